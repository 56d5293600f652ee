"""Checkpoints: everything a run needs to go on exactly where it stopped.

A checkpoint is written beside its final name and renamed, and the one before it is
kept, so that a kill at any moment leaves a whole one.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from srcli.errors import InputError, UsageError
from srcli.models.base import SRModel
from srcli.writing import write_whole

log = logging.getLogger(__name__)

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the folder's newest checkpoint.

    Args:
        folder: The run's folder, which exists.
        state: Tensors and plain values only.

    Raises:
        OutputError: If it cannot be written; the last good checkpoint stays.
    """
    newest = folder / NAME
    # Through memory: of a full disk torch's own writer says no more than a position.
    packed = pack_state(state)
    with write_whole(newest) as part:
        with part.open("wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        if newest.exists():
            newest.replace(folder / PREVIOUS)


def pack_state(state: dict[str, Any]) -> bytes:
    """A checkpoint as the bytes of its file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_state(packed: bytes) -> dict[str, Any]:
    """What `pack_state` packed, on the CPU."""
    return _load(io.BytesIO(packed))


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder, the newest first.

    Raises:
        InputError: If the folder cannot be looked into.
    """
    try:
        return [p for p in (folder / NAME, folder / PREVIOUS) if p.is_file()]
    except OSError as error:
        raise InputError(f"cannot look into {folder}: {error.strerror}") from error


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU.

    Where the newest checkpoint is damaged, that is said and the one before it serves.

    Raises:
        InputError: If there is none, or all are damaged.
    """
    found = find_checkpoints(folder)
    if not found:
        raise InputError(f"no checkpoint in {folder}: nothing to resume")
    for spare in found[1:]:
        try:
            return _read(found[0])
        except InputError as error:
            log.warning("%s: %s serves instead", error, spare.name)
    return _read(found[-1])


def _load(source: Path | io.BytesIO) -> Any:  # noqa: ANN401 - whatever is in it
    # weights_only refuses everything but tensors and plain values.
    return torch.load(source, map_location="cpu", weights_only=True)  # noqa: TID251


def _read(path: Path) -> dict[str, Any]:
    try:
        state = _load(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot read the checkpoint {path}: {reason}") from error
    except (
        RuntimeError, EOFError, pickle.UnpicklingError, ValueError, LookupError
    ) as error:  # fmt: skip
        raise InputError(f"the checkpoint {path} is damaged") from error
    if not isinstance(state, dict) or "step" not in state:
        raise InputError(f"{path} is not a checkpoint of srcli")
    return state


def check_network(state: dict[str, Any], name: str, model: SRModel) -> None:
    """See to it that a checkpoint is of a network.

    Args:
        state: The checkpoint.
        name: The variant that the network was made as.
        model: The network.

    Raises:
        UsageError: If it is of another variant, configuration or scale.
    """
    kept = state["recipe"]["model"]
    if kept != name:
        raise UsageError(f"the checkpoint is of {kept}, not of {name}")
    before, now = type(model.config).from_dict(state["config"]), model.config
    changed = [
        field.name
        for field in dataclasses.fields(now)
        if getattr(before, field.name) != getattr(now, field.name)
    ]
    if changed:
        raise UsageError(
            f"the checkpoint's network has other {', '.join(changed)}: a resumed run "
            "keeps them, `srcli train --init FILE` begins a new one from its weights"
        )
