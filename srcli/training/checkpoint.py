"""Checkpoints: everything a run needs to go on exactly where it stopped.

A checkpoint is written beside its final name and renamed, and the one before it is
kept, so that a kill at any moment leaves a whole one.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from srcli.errors import InputError, OutputError

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
    part = folder / f"{NAME}.part"
    newest = folder / NAME
    try:
        torch.save(state, part)
        if newest.exists():
            newest.replace(folder / PREVIOUS)
        part.replace(newest)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its archive writer.
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write the checkpoint {newest}: {error}") from error


def find_checkpoint(place: Path) -> Path:
    """The newest checkpoint of a run's folder, or the checkpoint file itself.

    Raises:
        InputError: If there is none.
    """
    if place.is_file():
        return place
    for name in (NAME, PREVIOUS):
        if (place / name).is_file():
            return place / name
    raise InputError(f"no checkpoint in {place}: nothing to resume")


def load_checkpoint(place: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    path = find_checkpoint(place)
    try:
        # weights_only refuses everything but tensors and plain values.
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"the checkpoint {path} is damaged: {error}") from error
    if not isinstance(state, dict) or "step" not in state:
        raise InputError(f"{path} is not a checkpoint of srcli")
    return state
