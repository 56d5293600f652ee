"""The catalogue: which weights there are, what they are for, and where files lie.

`weights_manifest.json` lists every weight file. Those bundled with the package come
first, then those in the user's cache, which `srcli download` fills.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from srcli.errors import UsageError, WeightsError, unknown
from srcli.models import variant, variant_names

BICUBIC = "bicubic"  # a model like the others, without weights
SCALES = (2, 3, 4)
ORDINARY = "bi"  # the degradation of pictures that are only small
DEGRADATIONS = (ORDINARY, "bd", "dn")  # what weights are made for
PICKLES = (".pth", ".pt", ".ckpt")  # weights as PyTorch writes them
UNSTATED = "not stated"  # what is said where nobody said anything
EXPORT_FOLDER = "export"  # in a run's folder: weights to pass on, and their entry
PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = "weights_manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightEntry:
    """One weight file of the manifest."""

    file: str  # name in srcli/pretrained or in the cache
    sha256: str
    bytes: int
    model: str  # the name that users type
    arch: str  # key of MODELS
    scales: tuple[int, ...]
    config: dict[str, Any]
    parameters: int
    data: str
    data_licence: str
    recipe: str
    steps: int
    degradation: str = ORDINARY
    # What was learned from: file, sha256, licence, scales of each; none: the originals.
    teachers: tuple[dict[str, Any], ...] = ()
    psnr: dict[str, dict[str, float]] = field(default_factory=dict)  # set, scale: dB
    ssim: dict[str, dict[str, float]] = field(default_factory=dict)
    url: str | None = None  # where files that are not bundled are fetched


def manifest_path() -> Path:
    """The manifest: inside the installed package, or beside it in a checkout.

    Raises:
        WeightsError: If the installation has none.
    """
    for folder in (PACKAGE, PACKAGE.parent):
        if (folder / MANIFEST).is_file():
            return folder / MANIFEST
    raise WeightsError(f"{MANIFEST} is missing from {PACKAGE}: install srcli again")


@lru_cache(maxsize=1)
def manifest() -> tuple[WeightEntry, ...]:
    """Every weight file that srcli knows.

    Raises:
        WeightsError: If the manifest is missing or damaged.
    """
    path = manifest_path()
    try:
        return tuple(map(make_entry, json.loads(path.read_text("utf-8"))["weights"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is damaged: {error}; install srcli again"
        ) from error


def make_entry(values: dict[str, Any]) -> WeightEntry:
    """An entry from its JSON values.

    Raises:
        KeyError: If there are no scales among them.
        TypeError: If there are others than fields, or some are missing.
    """
    scales, teachers = tuple(values["scales"]), tuple(values.get("teachers", ()))
    return WeightEntry(**{**values, "scales": scales, "teachers": teachers})


def cache_folder() -> Path:
    """Where downloads go: $SRCLI_CACHE_DIR, else the user's cache folder."""
    override = os.environ.get("SRCLI_CACHE_DIR")
    return Path(override) if override else user_cache_path("srcli")


def bundled_folder() -> Path:
    """Where the weight files that come with the package lie."""
    return PACKAGE / "pretrained"


def is_bundled(entry: WeightEntry) -> bool:
    """Whether the file came with the package."""
    return (bundled_folder() / entry.file).is_file()


def locate(entry: WeightEntry) -> Path | None:
    """The entry's file, bundled or else in the cache; None if it is in neither."""
    for folder in (bundled_folder(), cache_folder() / "weights"):
        if (folder / entry.file).is_file():
            return folder / entry.file
    return None


def find_nearest(degradation: str) -> str:
    """The degradation whose weights serve pictures that suffered this one.

    It is itself, but for "bd-bicubic": the blur is that of "bd".
    """
    return degradation.removesuffix("-bicubic")


def served_scales(
    model: str, degradation: str = ORDINARY, *, installed: bool = False
) -> tuple[int, ...]:
    """The scales that a model has weights for, ascending.

    Args:
        model: A name of the catalogue, in any case.
        degradation: What the pictures suffered.
        installed: Leave out weights that are not here.

    Raises:
        UsageError: If there is no such model.
    """
    scales = {
        scale
        for entry in _entries_of(model, degradation)
        if not installed or locate(entry) is not None
        for scale in entry.scales
    }
    return tuple(sorted(scales))


def find_entry(
    model: str, scale: int | None = None, degradation: str = ORDINARY
) -> WeightEntry:
    """The weights of a model: at `scale`, else the first, rather one that is here.

    Raises:
        UsageError: If there is no such model, scale or degradation.
        WeightsError: If the model exists but nobody has trained it for this yet.
    """
    if scale not in (None, *SCALES):
        raise UsageError(f"models enlarge by 2, 3 or 4, not {scale}")
    entries = _entries_of(model, degradation)
    if fitting := [e for e in entries if scale is None or scale in e.scales]:
        return min(fitting, key=lambda e: (locate(e) is None, e.scales))
    raise WeightsError(_explain_missing(model.lower(), scale, degradation))


def _entries_of(model: str, degradation: str) -> list[WeightEntry]:
    variant(model)  # an unknown name is a usage error and says what is known
    made_for = find_nearest(degradation)
    if made_for not in DEGRADATIONS:
        raise unknown("degradation", degradation, DEGRADATIONS)
    return [
        entry
        for entry in manifest()
        if entry.model == model.lower() and entry.degradation == made_for
    ]


def _explain_missing(model: str, scale: int | None, degradation: str) -> str:
    """Why there are no such weights, and what to do instead."""
    made = f" -x 3 --set degradation={degradation}" if degradation != ORDINARY else ""
    able = [each.model for each in manifest() if each.degradation == degradation]
    if made and able and model not in able:
        others = ", ".join(dict.fromkeys(able))
        return (
            f"{model} has no weights for {degradation}; {others} has: use -m {able[0]}"
        )
    own = [entry for entry in manifest() if entry.model == model]
    trained = [name_task([s], e.degradation) for e in own for s in e.scales]
    there = f"trained: {', '.join(trained)}" if own else "no weights are bundled yet"
    task = name_task([] if scale is None else [scale], degradation)
    return (
        f"no weights for {f'{model} {task}'.strip()} ({there}); `srcli models` lists "
        f"what there is, `srcli train -m {model}{made}` makes your own"
    )


def model_names() -> list[str]:
    """The names of all models: those with weights first, then all others."""
    trained = [entry.model for entry in manifest()]
    return list(dict.fromkeys([*trained, *variant_names()]))


def is_weight_file(model: str) -> bool:
    """Whether what was typed for a model is the name of a weight file."""
    # Reading refuses .onnx, and says why.
    return model.lower().endswith((".safetensors", ".onnx", *PICKLES))


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
