"""What weights are for: their scales, and what the pictures suffered before."""

from __future__ import annotations

from collections.abc import Sequence

PICKLES = (".pth", ".pt", ".ckpt")  # what PyTorch writes
SUFFIXES = (".safetensors", *PICKLES)  # what files of weights are called

ORDINARY = "bi"  # the degradation of pictures that are only small
DEGRADATIONS = (ORDINARY, "bd", "dn")  # what weights are made for


def is_weight_file(model: str) -> bool:
    """Whether what was typed for a model is the name of a weight file."""
    return model.lower().endswith((*SUFFIXES, ".onnx"))  # which reading refuses


def name_task(scales: Sequence[int], degradation: str) -> str:
    """What weights are for, as it is shown: "x2 x3 x4", or "x3 dn"."""
    words = [f"x{scale}" for scale in scales]
    return " ".join(words if degradation == ORDINARY else [*words, degradation])


def name_file(model: str, scales: Sequence[int], degradation: str) -> str:
    """What a weight file is called beside the code: model[_xS][_degradation]."""
    parts = [model]
    if len(scales) == 1:
        parts.append(f"x{scales[0]}")
    if degradation != ORDINARY:
        parts.append(degradation)
    return f"{'_'.join(parts)}.safetensors"


def find_nearest(degradation: str) -> str:
    """The one of `DEGRADATIONS` that comes nearest to what pictures suffered.

    It is itself, but for "bd-bicubic": the blur is that of "bd".
    """
    return degradation.removesuffix("-bicubic")
