"""`study.json`: what a study was begun with, and what is refused when it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srcli.errors import InputError, UsageError
from srcli.evaluation.datasets import canonical_name
from srcli.training.checkpoint import TrainRequest, name_val
from srcli.training.study_plan import Study
from srcli.writing import write_whole

NAME = "study.json"
_KINDS = {
    "model": str, "asked": dict, "scale": int, "tables": list, "variants": list,
    "seeds": list, "recipe": dict, "data": list, "val": str, "precision": str,
}  # fmt: skip
_ENTRIES = {"tables": str, "variants": str, "seeds": int, "data": str}  # of the lists
# Without which studies were described at first: `asked` has the tables that were named,
# `run.json` the others.
_LATER: dict[str, Any] = {"tables": [], "data": [], "val": "", "precision": ""}


def is_study(folder: Path) -> bool:
    """Whether a study has been begun in a folder."""
    return (folder / NAME).is_file()


def write_description(study: Study, request: TrainRequest) -> None:
    """Write into the study's folder what it begins with.

    Raises:
        OutputError: If it cannot be written.
    """
    document = {
        "model": study.network,
        "asked": dict(study.asked),
        **name_settings(request),
        **study.identity,
    }
    with write_whole(request.out / NAME) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def read_description(out: Path) -> dict[str, Any]:
    """What describes a study in its folder.

    Raises:
        InputError: If it is missing or damaged.
    """
    path = out / NAME
    try:
        kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
        _check_kept(kept)
    except FileNotFoundError as error:
        raise InputError(f"no study in {out}: nothing to resume") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: begin the study again with another --out"
        ) from error
    return kept


def _check_kept(kept: object) -> None:
    """Raise for a document that cannot be a study's.

    Raises:
        TypeError: If something is of another type.
        ValueError: If there is no seed.
    """
    if not isinstance(kept, dict):
        raise TypeError
    values = {**_LATER, **kept}
    if any(type(values.get(name)) is not kind for name, kind in _KINDS.items()):
        raise TypeError
    for name, kind in _ENTRIES.items():
        if any(type(entry) is not kind for entry in values[name]):
            raise TypeError
    if not values["seeds"]:
        raise ValueError


def list_fixed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must stay, each by the name that a user knows it by."""
    names = ("scale", "tables", "variants", "seeds")
    named = {name: identity[name] for name in names if name in identity}
    return {**named, **identity["recipe"]}


def refuse_changes(
    out: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise for the first setting that is another now.

    Raises:
        UsageError: If there is one.
    """
    for name in now:
        if name in before and before[name] != now[name]:
            raise UsageError(
                f"the study in {out} has {name} {json.dumps(before[name])}, not "
                f"{json.dumps(now[name])}: a resumed study keeps it, --out NEW begins "
                "another"
            )


def name_settings(request: TrainRequest) -> dict[str, Any]:
    """What else must stay, by the names of the options."""
    return {
        "data": [str(path.absolute()) for path in request.data],
        "val": name_set(request),
        "precision": request.precision,
    }


def name_set(request: TrainRequest) -> str:
    """The data set as it is called in every call, however the user spells it."""
    name = name_val(request)
    return canonical_name(name) or name
