"""What a weight file says of itself: its network, and which pictures it is for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from srcli.errors import UsageError, WeightsError
from srcli.models import MODELS
from srcli.models.base import ModelConfig, SRModel
from srcli.pretrained.purpose import ORDINARY, PICKLES
from srcli.storage import show_path

# The recursion limit that the weights were trained under, if any.
RECURSIONS = "recursions"

# What files begin with that are taken for weights by mistake, and what is said of them.
_MISTAKES = (
    (b"version https://git-lfs", "is a Git LFS pointer, which only names the model"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
    (b"GGUF", "is a GGUF file"),
    (b"7767517", "is a model for ncnn"),
    (b"%PDF", "is a PDF"),
    (b"Rar!", "is an archive: unpack it first"),
    (b"7z\xbc\xaf", "is an archive: unpack it first"),
    (b"\x1f\x8b", "is an archive: unpack it first"),
)
WANTED = "a .pth, .pt, .ckpt or .safetensors file of the model is needed"
_HEAD = 512  # bytes that tell one kind of file from another


def check_kind(path: Path) -> None:
    """Refuse what its first bytes show to be no weights.

    Raises:
        WeightsError: If they do, or the file cannot be read.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"no weight file at {path}")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    if not head:
        raise WeightsError(f"{path} is empty: {WANTED}")
    for start, what in _MISTAKES:
        if head.startswith(start):
            raise WeightsError(f"{path} {what}: {WANTED}")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise WeightsError(
            f"{path} is a web page, not the model: follow its link to the file itself"
        )
    suffix = path.suffix.lower()
    # A file of safetensors begins with a number, which may be any.
    if suffix == ".onnx" or (suffix in PICKLES and _is_onnx(head)):
        raise WeightsError(f"{path} is an ONNX model, without a network: {WANTED}")


def _is_onnx(head: bytes) -> bool:
    """Whether a file begins as ONNX models do: a version, then another known field."""
    return head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42")


@contextmanager
def named_in_utf8(path: Path) -> Iterator[Path]:
    """A weight file by a name that libraries take: a link's, if its own is no UTF-8."""
    if not any("\ud800" <= character <= "\udfff" for character in str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="srcli-") as folder:
        link = Path(folder, f"weights{show_path(path.suffix)}")
        link.symlink_to(path.absolute())
        yield link


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """A weight file to read from, as safetensors gives it.

    Raises:
        WeightsError: If the file is missing or no safetensors file, or if reading it
            fails.
    """
    check_kind(path)
    try:
        with named_in_utf8(path) as named, safe_open(named, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is no readable safetensors file: it is damaged or cut off"
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The words of a weight file; its weights are not read.

    Raises:
        WeightsError: If the file is missing or no safetensors file.
    """
    with open_weights(path) as file:
        return dict(file.metadata() or {})


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


def read_licence(path: Path) -> str | None:
    """The terms of a weight file's weights, where it states them.

    Files of safetensors may, after the Model Spec (`modelspec.license`).
    """
    if path.suffix.lower() in PICKLES:
        return None
    metadata = read_metadata(path)
    return metadata.get("modelspec.license") or metadata.get("license")


def read_degradation(metadata: Mapping[str, str]) -> str | None:
    """What the pictures suffered that the weights are for; None where nothing says so.

    It is the recipe's word, which files of `srcli train` carry.
    """
    try:
        recipe = json.loads(metadata["recipe"])
        return str(recipe.get("degradation", ORDINARY))
    except (KeyError, ValueError, AttributeError):
        return None
