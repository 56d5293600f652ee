"""The networks. One paper, one file; a new one is a file and a line in `MODELS`."""

from __future__ import annotations

import dataclasses
from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from srcli.errors import unknown

if TYPE_CHECKING:
    from srcli.models.base import ModelConfig, SRModel


class _Networks(UserDict[str, "type[SRModel]"]):
    """Networks by their names; the file of one is loaded once it is asked for."""

    data: dict[str, Any]  # classes, or their names until they are loaded

    def __getitem__(self, name: str) -> type[SRModel]:
        network: type[SRModel] | str = self.data[name]
        if isinstance(network, str):
            network = getattr(import_module(f"srcli.models.{name}"), network)
            self.data[name] = network
        return network  # type: ignore[return-value]


MODELS = _Networks()
MODELS.data |= {
    "drcn": "DRCN",
    "drrn": "DRRN",
    "dsrn": "DSRN",
    "mrnet": "MRNet",
    "rrrn": "RRRN",
}


def variant_names() -> list[str]:
    """Every name that `variant` knows, the networks' own first."""
    names = [name for model in MODELS.values() for name in model.variants]
    return sorted(names, key=lambda name: (name not in MODELS, name))


def variant(name: str, scale: int | None = None) -> tuple[type[SRModel], ModelConfig]:
    """The class and config of a network or of one of its variants, in any case.

    `scale` builds it for this one scale instead of the variant's own.

    Raises:
        UsageError: If no network has such a variant.
    """
    key = name.lower()
    for arch in sorted(MODELS, key=lambda arch: arch != key):  # its own comes first
        model = MODELS[arch]
        if key in model.variants:
            config = model.variants[key]
            if scale is not None:
                config = dataclasses.replace(config, scales=(scale,))
            return model, config
    listed = f"{', '.join(MODELS)} and their variants (`srcli models --all`)"
    raise unknown("model", name, variant_names(), listed)
