"""The network that a run starts from: new, or with weights taken over."""

from __future__ import annotations

import logging
from pathlib import Path

from srcli.errors import UsageError
from srcli.models import variant
from srcli.models.base import SRModel
from srcli.pretrained.catalog import available_scales, load_model
from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)


def make_network(recipe: Recipe, init: str | None = None) -> SRModel:
    """The recipe's network.

    A new one runs as many recursions as the recipe begins with. One that starts from
    weights runs all that these were trained with: they have learned their part.

    Args:
        recipe: Its model, config and scales.
        init: "bundled" or the path of a weight file; what fits is taken over, see
            `SRModel.fitting_weights`.

    Raises:
        UsageError: If the config makes no network, or no weight fits.
        WeightsError: If the weights are missing or damaged.
    """
    network_class, config = variant(recipe.model)
    values = {**config.as_dict(), **recipe.config, "scales": recipe.scales}
    network = network_class(type(config).from_dict(values))
    if init is None:
        network.limit_recursions(recipe.recursions_at(0))
        return network
    source = _load_bundled(recipe) if init == "bundled" else load_model(Path(init))
    own, fitting = network.state_dict(), network.fitting_weights(source)
    if not fitting:
        raise UsageError(f"no weight of {init} fits {recipe.model}")
    network.load_state_dict({**own, **fitting})
    network.limit_recursions(source.recursion_limit)
    log.info("%d of %d tensors start from %s", len(fitting), len(own), init)
    return network


def _load_bundled(recipe: Recipe) -> SRModel:
    """The model's own weights, of the recipe's first scale that there are any for."""
    there = available_scales(recipe.model)
    scale = next((scale for scale in recipe.scales if scale in there), None)
    return load_model(recipe.model, scale)
