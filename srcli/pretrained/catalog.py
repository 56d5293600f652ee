"""Which weights exist, where they lie, whether they are whole, and how to load them.

`weights_manifest.json` lists every weight file. Files bundled with the package come
first, then the user's cache (filled by `srcli download`). They are safetensors; one
whose hash or shapes are wrong is an error, never a guess. Files of other networks go to
`srcli.pretrained.community`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors.torch import save

from srcli import __version__
from srcli.errors import UsageError, WeightsError, unknown
from srcli.models import variant, variant_names
from srcli.models.base import SRModel
from srcli.models.counting import count_parameters
from srcli.pretrained.advice import explain_missing
from srcli.pretrained.metadata import (
    RECURSIONS,
    build_network,
    is_own,
    open_weights,
)
from srcli.pretrained.purpose import DEGRADATIONS, ORDINARY, is_weight_file
from srcli.writing import write_whole

PACKAGE = Path(__file__).resolve().parent.parent
MANIFEST = "weights_manifest.json"
SCALES = (2, 3, 4)
UNSTATED = "not stated"  # what is said where nobody said anything
EXPORT_FOLDER = "export"  # in a run's folder: weights to pass on, and their entry


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
        entries = json.loads(path.read_text("utf-8"))["weights"]
        return tuple(map(make_entry, entries))
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
    lists = {
        "scales": tuple(values["scales"]),
        "teachers": tuple(values.get("teachers", ())),
    }
    return WeightEntry(**{**values, **lists})


def cache_folder() -> Path:
    """Where downloads go: $SRCLI_CACHE_DIR, else the user's cache folder."""
    override = os.environ.get("SRCLI_CACHE_DIR")
    return Path(override) if override else user_cache_path("srcli")


def data_folders() -> list[Path]:
    """Where named data sets may lie: $SRCLI_DATA_DIR if set, then the cache."""
    named = os.environ.get("SRCLI_DATA_DIR")
    own = [Path(named).expanduser()] if named else []
    return [*own, cache_folder() / "datasets"]


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


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_entry(model: str, scale: int, degradation: str = ORDINARY) -> WeightEntry:
    """The manifest's entry for a model at a scale.

    Raises:
        UsageError: If there is no such model, scale or degradation.
        WeightsError: If the model exists but nobody has trained it for this yet.
    """
    variant(model)  # an unknown name is a usage error and says what is known
    if scale not in SCALES:
        raise UsageError(f"models enlarge by 2, 3 or 4, not {scale}")
    if degradation not in DEGRADATIONS:
        raise unknown("degradation", degradation, DEGRADATIONS)
    for entry in _entries_of(model, degradation):
        if scale in entry.scales:
            return entry
    raise WeightsError(explain_missing(model.lower(), scale, degradation, manifest()))


def listed_scales(model: str, degradation: str = ORDINARY) -> tuple[int, ...]:
    """The scales that the manifest lists weights of `model` for, ascending.

    They need not be installed; see `available_scales`.

    Raises:
        UsageError: If there is no such model.
    """
    variant(model)
    entries = _entries_of(model, degradation)
    return tuple(sorted({scale for entry in entries for scale in entry.scales}))


def available_scales(model: str, degradation: str = ORDINARY) -> tuple[int, ...]:
    """The scales at which `load_model` would find weights for `model`, ascending.

    Raises:
        UsageError: If there is no such model.
    """
    variant(model)
    entries = [e for e in _entries_of(model, degradation) if locate(e) is not None]
    return tuple(sorted({scale for entry in entries for scale in entry.scales}))


def _entries_of(model: str, degradation: str) -> list[WeightEntry]:
    return [
        entry
        for entry in manifest()
        if entry.model == model.lower() and entry.degradation == degradation
    ]


def load_model(
    model: str | Path, scale: int | None = None, *, degradation: str = ORDINARY
) -> SRModel:
    """A trained network in evaluation mode, on the CPU, in float32.

    Args:
        model: A name of `srcli models`, or the path of a weight file.
        scale: Enlargement; may be None for a network that serves several, or a file.
        degradation: What the pictures suffered: "bi", "bd" or "dn". A file is what it
            is.

    Raises:
        UsageError: For an unknown model, scale or degradation.
        WeightsError: If the weights are not there, damaged, or do not fit.
    """
    if isinstance(model, Path) or is_weight_file(model):
        network = read_file(Path(model))
        if scale is not None:
            network.resolve_scale(scale)
        return network
    if scale is None:
        _, config = variant(model)
        there = available_scales(model, degradation)
        scale = (there or listed_scales(model, degradation) or config.scales)[0]
    entry = find_entry(model, scale, degradation)
    path = locate(entry)
    if path is None:
        raise WeightsError(
            f"the weights {entry.file} are not installed: "
            f"`srcli download {entry.model}` fetches them"
        )
    return read_weights(path, entry)


def read_file(path: Path) -> SRModel:
    """The network of any weight file, ours or another's, in evaluation mode.

    Raises:
        UsageError: If another's needs an extra that is not installed.
        WeightsError: If the file is missing, damaged, or holds no known network.
    """
    if is_own(path):
        return read_weights(path)
    from srcli.pretrained.community import read_community  # noqa: PLC0415 - optional

    return read_community(path)


def read_weights(path: Path, entry: WeightEntry | None = None) -> SRModel:
    """The network that a weight file describes, with its weights.

    Args:
        path: A .safetensors file written by `save_weights`.
        entry: What the file must be; its hash is checked first.

    Raises:
        WeightsError: If the file is missing, damaged, of unknown make, or does not fit.
    """
    if entry is not None:
        _check_hash(path, entry)
    with open_weights(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = build_network(path, metadata)
    try:
        # Values are copied into the network's own dtypes.
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights {path} do not fit a {network.arch} network of their config"
        ) from error
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise WeightsError(f"the weights {path} are damaged: some are no numbers")
    return network.eval()


def describe_file(path: Path) -> dict[str, Any]:
    """The fields of an entry that a weight file decides: its content, its network.

    Raises:
        WeightsError: As `read_weights`.
    """
    network = read_weights(path)
    return {
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
        "arch": network.arch,
        "scales": network.config.scales,
        "config": json.loads(json.dumps(network.config.as_dict())),  # no tuples
        "parameters": count_parameters(network),
    }


def _check_hash(path: Path, entry: WeightEntry) -> None:
    """Raise a WeightsError unless the file is the one that `entry` describes."""
    try:
        if sha256_of(path) == entry.sha256:
            return
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    raise WeightsError(
        f"the weights {path} are damaged (wrong SHA-256): install srcli again, or "
        f"`srcli download {entry.model}`"
    )


def save_weights(
    model: SRModel,
    path: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a network's weights with everything needed to load them again.

    Args:
        model: Any network.
        path: The .safetensors file; it appears whole or not at all.
        metadata: More to say about the weights: recipe, data, steps.
        dtype: Of the stored values; counters stay whole numbers.

    Raises:
        OutputError: If the file cannot be written.
    """
    says = {
        "srcli": __version__,
        **(metadata or {}),
        "arch": model.arch,
        "config": json.dumps(model.config.as_dict()),
        "scales": json.dumps(list(model.config.scales)),
    }
    if model.recursion_limit is not None:
        says[RECURSIONS] = str(model.recursion_limit)
    tensors = {}
    for name, value in model.state_dict().items():
        kept = dtype if value.is_floating_point() else value.dtype
        tensors[name] = value.detach().to("cpu", kept).contiguous()
    with write_whole(path) as part:
        part.write_bytes(save(tensors, says))


def model_names() -> list[str]:
    """Names that `load_model` takes: those with weights first, then all others."""
    trained = [entry.model for entry in manifest()]
    return list(dict.fromkeys([*trained, *variant_names()]))
