"""A weight file: tensors in safetensors, and metadata that rebuild the network.

One whose hash or shapes are wrong is an error, never a guess. Files of other networks
go to `srcli.pretrained.community`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from srcli import __version__
from srcli.errors import UsageError, WeightsError
from srcli.models import MODELS
from srcli.models.base import SRModel
from srcli.models.counting import count_parameters
from srcli.pretrained.catalog import ORDINARY, PICKLES, WeightEntry
from srcli.writing import write_whole

WANTED = "a .pth, .pt, .ckpt or .safetensors file of the model is needed"
# What files begin with that are taken for weights by mistake, and what is said of them.
_MISTAKES = (
    (b"version https://git-lfs", "is a Git LFS pointer, which only names the model"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
    (b"7767517", "is a model for ncnn"),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
_ONNX = (b"\x12", b"\x1a", b"\x3a", b"\x42")  # fields that follow a model's version
_DAMAGED = "is no readable safetensors file: it is damaged or cut off"
_LONGEST_HEADER = 100_000_000  # bytes that safetensors take


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_kind(path: Path) -> None:
    """Refuse what its first bytes show to be no weights.

    Raises:
        WeightsError: If they do, or the file cannot be read.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"no weight file at {path}")
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise WeightsError(f"{path} is empty: {WANTED}")
    for start, what in _MISTAKES:
        if head.startswith(start):
            raise WeightsError(f"{path} {what}: {WANTED}")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise WeightsError(
            f"{path} is a web page, not the model: follow its link to the file itself"
        )
    suffix = path.suffix.lower()
    is_onnx = head[:1] == b"\x08" and head[2:3] in _ONNX
    # A file of safetensors begins with a number, which may be any.
    if suffix == ".onnx" or (suffix in PICKLES and is_onnx):
        raise WeightsError(f"{path} is an ONNX model, without a network: {WANTED}")


def read_tensors(path: Path, entry: WeightEntry | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        WeightsError: If the file is missing, damaged, or not what `entry` says.
    """
    check_kind(path)
    try:
        data = path.read_bytes()
        if entry is not None and hashlib.sha256(data).hexdigest() != entry.sha256:
            raise WeightsError(
                f"the weights {path} are damaged (wrong SHA-256): install srcli again, "
                f"or `srcli download {entry.model}`"
            )
        return load(data)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    except (SafetensorError, KeyError) as error:
        raise WeightsError(f"{path} {_DAMAGED}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The words of a safetensors file; its weights are not read.

    Raises:
        WeightsError: If the file is missing or no safetensors file.
    """
    check_kind(path)
    try:
        with path.open("rb") as file:
            size = min(int.from_bytes(file.read(8), "little"), _LONGEST_HEADER)
            words = json.loads(file.read(size)).get("__metadata__", {})
        return {str(name): str(text) for name, text in words.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} {_DAMAGED}") from error


def is_own(path: Path) -> bool:
    """Whether a weight file is for a network of ours, by what it says.

    What is neither a pickle nor readable counts as ours: reading it says why.
    """
    if path.suffix.lower() in PICKLES:
        return False
    try:
        return {"arch", "config"} <= read_metadata(path).keys()
    except WeightsError:
        return True


def read_licence(path: Path) -> str | None:
    """The terms of a weight file's weights, where it states them.

    Files of safetensors may, after the Model Spec (`modelspec.license`).
    """
    if path.suffix.lower() in PICKLES:
        return None
    metadata = read_metadata(path)
    return metadata.get("modelspec.license") or metadata.get("license")


def read_degradation(path: Path) -> str | None:
    """What the pictures suffered that the weights are for; None where nothing says so.

    It is the recipe's word, which files of `srcli train` carry.
    """
    if not is_own(path):
        return None
    try:
        recipe = json.loads(read_metadata(path)["recipe"])
        return str(recipe.get("degradation", ORDINARY))
    except (KeyError, ValueError, AttributeError):
        return None


def read_weights(path: Path, entry: WeightEntry | None = None) -> SRModel:
    """The network of a file by `save_weights`, in evaluation mode.

    Raises:
        WeightsError: If the file is missing, damaged, of unknown make, does not fit, or
            is not what `entry` says.
    """
    tensors = read_tensors(path, entry)
    network = _build_network(path, read_metadata(path))
    try:
        network.load_state_dict(tensors)  # into the network's own dtypes
    except RuntimeError as error:
        raise WeightsError(
            f"the weights {path} do not fit a {network.arch} network of their config"
        ) from error
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise WeightsError(f"the weights {path} are damaged: some are no numbers")
    return network.eval()


def _build_network(path: Path, metadata: Mapping[str, str]) -> SRModel:
    try:
        network_class = MODELS[metadata["arch"]]
        values = json.loads(metadata["config"])
        network = network_class(network_class.config_class.from_dict(values))
        limit = metadata.get("recursions")
        network.limit_recursions(None if limit is None else int(limit))
    except KeyError as error:
        raise WeightsError(
            f"{path} does not say which network it is for ({error}): "
            "it was not written by srcli"
        ) from error
    except (ValueError, TypeError, AttributeError, UsageError) as error:
        raise WeightsError(f"{path} has an unreadable config: {error}") from error
    return network


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
        says["recursions"] = str(model.recursion_limit)
    tensors = {}
    for name, value in model.state_dict().items():
        kept = dtype if value.is_floating_point() else value.dtype
        tensors[name] = value.detach().to("cpu", kept).contiguous()
    with write_whole(path) as part:
        part.write_bytes(save(tensors, says))
