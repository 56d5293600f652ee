"""What a weight file says of itself: its network, and which pictures it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from srcli.errors import UsageError, WeightsError
from srcli.models import MODELS
from srcli.models.base import ModelConfig, SRModel
from srcli.pretrained.purpose import ORDINARY

# The recursion limit that the weights were trained under, if any.
RECURSIONS = "recursions"


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """A weight file to read from, as safetensors gives it.

    Raises:
        WeightsError: If the file is missing or no safetensors file, or if reading it
            fails.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"no weight file at {path}")
    except OSError as error:  # a name that is too long, a folder that is closed
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is no readable safetensors file: {error}"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The words of a weight file; its weights are not read.

    Raises:
        WeightsError: If the file is missing or no safetensors file.
    """
    with open_weights(path) as file:
        return dict(file.metadata() or {})


def read_config(
    path: Path, metadata: Mapping[str, str]
) -> tuple[type[SRModel], ModelConfig]:
    """The class and config of the network that a weight file is for.

    Raises:
        WeightsError: If the file does not say, or says what makes no network.
    """
    try:
        network_class = MODELS[metadata["arch"]]
        values = json.loads(metadata["config"])
        return network_class, network_class.config_class.from_dict(values)
    except KeyError as error:
        raise WeightsError(
            f"{path} does not say which network it is for ({error}): "
            "it was not written by srcli"
        ) from error
    except (ValueError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(f"{path} has an unreadable config: {error}") from error


def build_network(path: Path, metadata: Mapping[str, str]) -> SRModel:
    """The untrained network that a weight file is for.

    Raises:
        WeightsError: As `read_config`.
    """
    network_class, config = read_config(path, metadata)
    try:
        network = network_class(config)
        limit = metadata.get(RECURSIONS)
        network.limit_recursions(None if limit is None else int(limit))
    except (ValueError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(f"{path} has an unreadable config: {error}") from error
    return network


def read_degradation(metadata: Mapping[str, str]) -> str | None:
    """What the pictures suffered that the weights are for; None where nothing says so.

    It is the recipe's word, which files of `srcli train` carry.
    """
    try:
        recipe = json.loads(metadata["recipe"])
        return str(recipe.get("degradation", ORDINARY))
    except (KeyError, ValueError, AttributeError):
        return None
