"""One run of a study, read back from its folder.

Compared are the averaged weights of the last step, so that all had the same budget;
the best validation on the way would favour whoever was validated at a lucky moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from srcli.errors import InputError, UsageError, WeightsError
from srcli.pretrained.metadata import read_metadata
from srcli.training.log import History, read_history
from srcli.training.loop import GIVEN_UP
from srcli.training.recipe import make_recipe
from srcli.training.study_plan import Member

DIGITS = 3  # of a PSNR: variants differ by less than the papers' second one


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of a study as it lies in its folder."""

    steps: int = 0  # taken so far
    finished: bool = False  # all its steps taken, and its figure there
    diverged: bool = False  # given up, its loss being no number again and again
    psnr: float | None = None  # dB, of the last step of a finished run
    seconds_per_step: float | None = None
    setbacks: int = 0  # how often its loss was no number, which halves its rate
    pictures: str | None = None  # how many it learned from, and their fingerprint


def read_outcome(member: Member) -> Outcome:
    """What one run has come to so far.

    Raises:
        UsageError: If it was gone on with by another recipe.
        InputError: If its log cannot be read.
        WeightsError: If its weights are damaged.
    """
    path = member.folder / "last.safetensors"
    try:
        history = read_history(member.folder)
        metadata = read_metadata(path) if path.exists() else None
    except (InputError, WeightsError) as error:
        raise type(error)(f"{error}; {tell_remedy(member)}") from error
    if metadata is None:
        # It was killed, or given up: what there is of it is in its log.
        return _describe(history, history.last_step)
    try:
        steps, recipe = int(metadata["steps"]), make_recipe(_read_recipe(metadata))
    except (KeyError, ValueError, TypeError, UsageError) as error:
        raise WeightsError(
            f"{path} does not say how it was trained; {tell_remedy(member)}"
        ) from error
    if recipe != member.recipe:
        raise UsageError(
            f"{member.folder} was trained by another recipe than its study's; "
            f"{tell_remedy(member)}"
        )
    found = _describe(history, steps, metadata.get("data"))
    psnr = history.validations.get(steps, {}).get(recipe.scales[0])
    if steps < recipe.steps or psnr is None:
        return found
    return replace(found, psnr=round(psnr, DIGITS), finished=True, diverged=False)


def tell_remedy(member: Member) -> str:
    """What helps where the files of a run are of no use."""
    return f"delete {member.folder}, and --resume trains it anew"


def _describe(history: History, steps: int, pictures: str | None = None) -> Outcome:
    """A run that has no figure yet."""
    events = history.events
    return Outcome(
        steps=steps,
        # It may have been tried again since, and gone further.
        diverged=bool(events)
        and events[-1][1] == GIVEN_UP
        and events[-1][0] >= history.last_step,
        seconds_per_step=history.seconds_per_step,
        setbacks=sum(text != GIVEN_UP for _, text in events),
        pictures=pictures,
    )


def _read_recipe(metadata: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata["recipe"])
    return found
