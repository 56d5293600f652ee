"""A run's checkpoint and request, from which it goes on exactly where it stopped.

A checkpoint is written beside its final name and renamed, and the one before it is
kept, so that a kill at any moment leaves a whole one.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from srcli.errors import InputError, UsageError
from srcli.models.base import SRModel
from srcli.pretrained.datasets import canonical_name
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
RUN_FILE = "run.json"
DEFAULT_VAL = "set5"
NO_VAL = "none"
HELD_OUT = "held-out"  # pictures of its own that the run does not train on


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What `srcli train` was asked for; a resumed run fills in what was left out."""

    model: str
    out: Path
    data: tuple[Path, ...] = ()
    scales: tuple[int, ...] = ()  # instead of the recipe's
    recipe: str = "fast"
    overrides: dict[str, Any] = field(default_factory=dict)
    # A data set or folder, "none" or "held-out"; None: set5, or held-out without it.
    val: str | None = None
    held_out: dict[str, Path] = field(default_factory=dict)  # so far, by their hashes
    data_dir: Path | None = None
    resume: bool = False
    init: str | None = None  # "bundled" or a weight file
    teachers: tuple[Path, ...] = ()  # weight files whose enlargements are learned
    teacher_cache: Path | None = None  # where these are kept; None: the user's cache
    max_minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    measured: bool = True  # its best weights are measured and packed at the end

    def __post_init__(self) -> None:
        if self.resume and self.init is not None:
            raise UsageError("--resume has weights of its own: leave --init out")


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values as the newest checkpoint of a run's folder.

    Raises:
        OutputError: If it cannot be written; the last good checkpoint stays.
    """
    newest = folder / NAME
    # Through memory: of a full disk torch's own writer says no more than a position.
    packed = io.BytesIO()
    torch.save(state, packed)
    with write_whole(newest) as part:
        with part.open("wb") as file:
            file.write(packed.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if newest.exists():
            newest.replace(folder / PREVIOUS)


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run's folder, the newest first.

    Raises:
        InputError: If the folder cannot be looked into.
    """
    return _find_files(folder, NAME, PREVIOUS)


def find_weights(folder: Path) -> Path | None:
    """The weight file that stands for a run: its best, else its last, else None.

    Raises:
        InputError: If the folder cannot be looked into.
    """
    found = _find_files(folder, "best.safetensors", "last.safetensors")
    return found[0] if found else None


def _find_files(folder: Path, *names: str) -> list[Path]:
    try:
        return [path for name in names if (path := folder / name).is_file()]
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


def _read(path: Path) -> dict[str, Any]:
    try:
        # weights_only refuses everything but tensors and plain values.
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
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
    """See to it that a checkpoint is of the network that was made as this variant.

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


def remember(
    request: TrainRequest, precision: str, command: dict[str, Any] | None = None
) -> None:
    """Write into the run's folder what a resumed run fills its gaps with.

    `precision` is what was chosen, `command` what `describe_command` said at the run's
    beginning.

    Raises:
        OutputError: If the folder cannot be written.
    """
    own = request.recipe.endswith(".toml")
    document = {
        **describe_places(request, precision),
        "held_out": {name: str(path) for name, path in request.held_out.items()},
        "teachers": [_absolute(path) for path in request.teachers],
        "teacher_cache": _absolute(request.teacher_cache),
        "recipe": _absolute(Path(request.recipe)) if own else request.recipe,
        "command": command,
    }
    make_folder(request.out)
    with write_whole(request.out / RUN_FILE) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def describe_places(request: TrainRequest, precision: str) -> dict[str, Any]:
    """Pictures, validation and the precision that was chosen, for `fill`."""
    return {
        "data": [_absolute(path) for path in request.data],
        "val": name_val(request),
        "data_dir": _absolute(request.data_dir),
        "precision": precision,
    }


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def describe_command(request: TrainRequest) -> dict[str, Any]:
    """What a run is begun with, but not where it runs, nor for how long.

    Paths stay as they were typed: nodes may be in other folders.
    """
    names = ["recipe", "overrides", "scales", "seed", "init", "data", "val", "data_dir"]
    if request.teachers:  # of which runs of earlier versions say nothing
        names.append("teachers")
    document = {name: getattr(request, name) for name in names}
    document["model"] = request.model.lower()
    described: dict[str, Any] = json.loads(json.dumps(document, default=str))
    return described


def name_val(request: TrainRequest) -> str:
    """What it validates on: a set's name, an absolute folder, "none" or "held-out"."""
    val = request.val or DEFAULT_VAL
    if val in (NO_VAL, HELD_OUT) or canonical_name(val) is not None:
        return val
    return str(Path(val).expanduser().absolute())


def read_kept(folder: Path) -> dict[str, Any] | None:
    """What `remember` wrote into the run's folder; None where nothing was.

    Raises:
        InputError: If the file is there but damaged.
    """
    path = folder / RUN_FILE
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path) from error


def fill(request: TrainRequest, kept: dict[str, Any] | None) -> TrainRequest:
    """The request with what `read_kept` or a study's file says in the gaps.

    Raises:
        InputError: If that is damaged.
    """
    if kept is None:
        return request
    try:
        # Runs of earlier versions say nothing of teachers and of held-out pictures.
        cache, data_dir = kept.get("teacher_cache"), kept["data_dir"]
        auto = request.precision == "auto"
        return dataclasses.replace(
            request,
            data=request.data or tuple(map(Path, kept["data"])),
            val=request.val or kept["val"],
            held_out={n: Path(p) for n, p in kept.get("held_out", {}).items()},
            data_dir=request.data_dir or (Path(data_dir) if data_dir else None),
            teachers=request.teachers or tuple(map(Path, kept.get("teachers", ()))),
            teacher_cache=request.teacher_cache or (Path(cache) if cache else None),
            precision=kept["precision"] if auto else request.precision,
            recipe=kept.get("recipe", request.recipe),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(request.out / RUN_FILE) from error


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} cannot be read: delete it, and name --data, --val, --data-dir and "
        "--teacher"
    )
