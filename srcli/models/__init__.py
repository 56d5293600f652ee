"""The networks. One paper, one file; a new one is a file and a line in `MODELS`."""

from __future__ import annotations

import dataclasses

from srcli.errors import unknown
from srcli.models.base import ModelConfig, SRModel
from srcli.models.drcn import DRCN
from srcli.models.drrn import DRRN
from srcli.models.dsrn import DSRN
from srcli.models.mrnet import MRNet
from srcli.models.rrrn import RRRN

MODELS: dict[str, type[SRModel]] = {
    "drcn": DRCN,
    "drrn": DRRN,
    "dsrn": DSRN,
    "mrnet": MRNet,
    "rrrn": RRRN,
}


def variant_names() -> list[str]:
    """Every name that `variant` knows, the networks' own first."""
    names = [name for model in MODELS.values() for name in model.variants]
    return sorted(names, key=lambda name: (name not in MODELS, name))


def variant(name: str, scale: int | None = None) -> tuple[type[SRModel], ModelConfig]:
    """The class and config of a network or of one of its variants.

    Args:
        name: A key of `MODELS` or of a network's `variants`, in any case.
        scale: Build for this one scale instead of the variant's own.

    Raises:
        UsageError: If no network has such a variant.
    """
    for model in MODELS.values():
        if name.lower() in model.variants:
            config = model.variants[name.lower()]
            if scale is not None:
                config = dataclasses.replace(config, scales=(scale,))
            return model, config
    listed = f"{', '.join(MODELS)} and their variants (`srcli models --all`)"
    raise unknown("model", name, variant_names(), listed)
