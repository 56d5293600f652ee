"""What is said where weights are asked for that nobody has trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from srcli.pretrained.purpose import ORDINARY, name_task

if TYPE_CHECKING:
    from srcli.pretrained.catalog import WeightEntry


def explain_missing(
    model: str, scale: int | None, degradation: str, entries: Sequence[WeightEntry]
) -> str:
    """Why there are no such weights, and what to do instead.

    Args:
        model: The name that was asked for.
        scale: Enlargement; None is any.
        degradation: What the pictures suffered.
        entries: The whole manifest.
    """
    own = [entry for entry in entries if entry.model == model]
    fitting = [entry.model for entry in entries if entry.degradation == degradation]
    if scale is None or (degradation != ORDINARY and model not in fitting):
        others = list(dict.fromkeys(fitting))
        advice = _point_to(others) if others else _tell_to_train(model, degradation)
        return f"{model} has no weights for {degradation}; {advice}"
    trained = ", ".join(
        name_task([s], entry.degradation) for entry in own for s in entry.scales
    )
    there = f"trained: {trained}" if trained else "no weights are bundled yet"
    return (
        f"no weights for {model} {name_task([scale], degradation)} ({there}); "
        "`srcli models` lists what there is, `srcli train` makes your own"
    )


def _point_to(models: Sequence[str]) -> str:
    """Which models have the weights that were asked for."""
    has = "has" if len(models) == 1 else "have"
    return f"{', '.join(models)} {has}: use -m {models[0]}"


def _tell_to_train(model: str, degradation: str) -> str:
    """What to do where nobody has such weights; x3 is where they all are defined."""
    return (
        f"nor has any other model: `srcli train -m {model} -x 3 --set "
        f"degradation={degradation}` makes your own"
    )
