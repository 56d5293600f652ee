"""What a run keeps to go on exactly where it stopped: what was asked, and its state.

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
from srcli.evaluation.datasets import canonical_name
from srcli.models.base import SRModel
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


def remember(
    request: TrainRequest, precision: str, command: dict[str, Any] | None = None
) -> None:
    """Write into the run's folder what `recall` reads.

    Args:
        request: The call.
        precision: What was chosen for it.
        command: What the run was begun with, as `describe_command` says it.

    Raises:
        OutputError: If the folder cannot be written.
    """
    recipe = request.recipe
    if recipe.endswith(".toml"):
        recipe = str(Path(recipe).absolute())
    data_dir, cache = request.data_dir, request.teacher_cache
    document = {
        "data": [str(path.absolute()) for path in request.data],
        "val": name_val(request),
        "held_out": {name: str(path) for name, path in request.held_out.items()},
        "data_dir": str(data_dir.expanduser().absolute()) if data_dir else None,
        "teachers": [str(path.absolute()) for path in request.teachers],
        "teacher_cache": str(cache.expanduser().absolute()) if cache else None,
        "precision": precision,
        "recipe": recipe,
        "command": command,
    }
    make_folder(request.out)
    with write_whole(request.out / RUN_FILE) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def describe_command(request: TrainRequest) -> dict[str, Any]:
    """What a run is begun with, but not where it runs, nor for how long.

    Paths stay as they were typed: nodes may be in other folders.
    """
    document = {
        "model": request.model.lower(),
        "recipe": request.recipe,
        "overrides": request.overrides,
        "scales": request.scales,
        "seed": request.seed,
        "init": request.init,
        "data": request.data,
        "val": request.val,
        "data_dir": request.data_dir,
        # Runs that were begun before there were teachers say nothing of them.
        **({"teachers": request.teachers} if request.teachers else {}),
    }
    described: dict[str, Any] = json.loads(json.dumps(document, default=str))
    return described


def name_val(request: TrainRequest) -> str:
    """What it validates on: a set's name, an absolute folder, "none" or "held-out"."""
    val = request.val or DEFAULT_VAL
    if val in (NO_VAL, HELD_OUT) or canonical_name(val) is not None:
        return val
    return str(Path(val).expanduser().absolute())


def recall(request: TrainRequest) -> TrainRequest:
    """The request of a resumed run with what its last call said in the gaps.

    Raises:
        InputError: If the file is there but damaged.
    """
    return fill(request, read_kept(request.out))


def read_kept(folder: Path) -> dict[str, Any] | None:
    """What `remember` wrote into the run's folder; None where nothing was.

    Raises:
        InputError: If the file is there but damaged.
    """
    path = folder / RUN_FILE
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(kept, dict):
        raise _damaged(path)
    return kept


def fill(request: TrainRequest, kept: dict[str, Any] | None) -> TrainRequest:
    """The request with what `read_kept` found in the gaps.

    Raises:
        InputError: If that is damaged.
    """
    if kept is None:
        return request
    try:
        data = tuple(Path(name) for name in kept["data"])
        data_dir = Path(kept["data_dir"]) if kept["data_dir"] else None
        # Runs of earlier versions say nothing of teachers and of held-out pictures.
        teachers = tuple(Path(name) for name in kept.get("teachers", ()))
        cache = kept.get("teacher_cache")
        precision = kept["precision"] if request.precision == "auto" else None
        return dataclasses.replace(
            request,
            data=request.data or data,
            val=request.val or kept["val"],
            held_out={n: Path(p) for n, p in kept.get("held_out", {}).items()},
            data_dir=request.data_dir or data_dir,
            teachers=request.teachers or teachers,
            teacher_cache=request.teacher_cache or (Path(cache) if cache else None),
            precision=precision or request.precision,
            recipe=kept.get("recipe", request.recipe),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(request.out / RUN_FILE) from error


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} cannot be read: delete it, and name --data, --val, --data-dir and "
        "--teacher"
    )
