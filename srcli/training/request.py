"""What `srcli train` was asked for, and what a resumed run remembers of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srcli.errors import InputError, UsageError
from srcli.evaluation.datasets import canonical_name
from srcli.writing import make_folder, write_whole

NAME = "run.json"
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
    with write_whole(request.out / NAME) as part:
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
    path = folder / NAME
    try:
        kept = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
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
        raise _damaged(request.out / NAME) from error


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{path} cannot be read: delete it, and name --data, --val, --data-dir and "
        "--teacher"
    )
