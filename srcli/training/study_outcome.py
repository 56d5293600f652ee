"""What a study has come to: its runs read back, and the paper's claims judged by them.

Compared are the averaged weights of the last step, so that all had the same budget;
the best validation on the way would favour whoever was validated at a lucky moment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from srcli.errors import UsageError, WeightsError
from srcli.evaluation.published import PublishedResult
from srcli.models.counting import count_macs, count_parameters, outline
from srcli.pretrained.metadata import read_metadata
from srcli.training.history import read_history
from srcli.training.recipe import make_recipe
from srcli.training.study_plan import Claim, Member, Study, outline_config

DIGITS = 3  # of a PSNR: variants differ by less than the papers' second one
SHOWN = "shown"
NOT_SHOWN = "not shown"
OPEN = "open"  # one of the two is not trained yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of a study as it lies in its folder."""

    steps: int = 0  # taken so far
    finished: bool = False
    psnr: float | None = None  # dB, of the last step of a finished run
    seconds_per_step: float | None = None
    setbacks: int = 0  # how often its loss was no number, which halves its rate
    pictures: str | None = None  # how many it learned from, and their fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One variant: what it is, what its runs came to, and what the paper prints."""

    variant: str
    components: Mapping[str, bool]
    parameters: int
    macs_720p: int  # for an output of 1280x720
    outcomes: Mapping[int, Outcome]  # by seed
    printed: PublishedResult | None

    @property
    def steps(self) -> int:
        """What the runs behind the figure have taken; without one, the longest run."""
        done = [o.steps for o in self.outcomes.values() if o.psnr is not None]
        return min(done) if done else max(o.steps for o in self.outcomes.values())

    @property
    def figures(self) -> dict[int, float]:
        """PSNR in dB by seed, of the runs that are finished."""
        return {
            seed: outcome.psnr
            for seed, outcome in self.outcomes.items()
            if outcome.psnr is not None
        }

    @property
    def psnr(self) -> float | None:
        """The mean over the seeds."""
        found = self.figures.values()
        return round(fmean(found), DIGITS) if found else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None for fewer than two."""
        found = list(self.figures.values())
        return round(stdev(found), DIGITS) if len(found) > 1 else None

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the seeds."""
        found = [o.seconds_per_step for o in self.outcomes.values()]
        known = [value for value in found if value is not None]
        return fmean(known) if known else None

    def compare(self, other: StudyRow) -> list[float]:
        """How many dB it is above another, for each seed that both have."""
        mine, others = self.figures, other.figures
        return [round(mine[s] - others[s], DIGITS) for s in mine if s in others]

    def compare_mean(self, other: StudyRow) -> float | None:
        """The mean of `compare`; None where no seed is common."""
        found = self.compare(other)
        return round(fmean(found), DIGITS) if found else None

    def compare_printed(self, other: StudyRow) -> float | None:
        """The same of the paper's figures; None where it does not print both."""
        mine, others = self.printed, other.printed
        if mine is None or others is None or mine.psnr is None or others.psnr is None:
            return None
        return round(mine.psnr - others.psnr, DIGITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a study says of one claim."""

    claim: Claim
    difference: float | None  # dB, the mean over the seeds
    printed: float | None  # dB, the paper's own
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """A study with all that its folder holds of it."""

    study: Study
    out: Path
    measured_on: str  # the data set's name, or its folder
    precision: str
    rows: tuple[StudyRow, ...]
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def count(self) -> int:
        """The runs of the study."""
        return sum(len(row.outcomes) for row in self.rows)

    @property
    def done(self) -> int:
        """The runs that have taken all their steps."""
        return sum(o.finished for row in self.rows for o in row.outcomes.values())


def read_result(
    study: Study, out: Path, *, measured_on: str, precision: str
) -> StudyResult:
    """What the runs of a study have come to so far.

    Args:
        study: The study.
        out: Its folder.
        measured_on: The data set, as the user named it.
        precision: What the networks were trained and measured in.

    Raises:
        UsageError: If a run was gone on with by another recipe.
        InputError: If a log cannot be read.
        WeightsError: If weights are damaged.
    """
    outcomes: dict[str, dict[int, Outcome]] = {name: {} for name in study.variants}
    for member in study.list_members(out):
        outcomes[member.variant][member.seed] = read_outcome(member)
    rows = {name: _make_row(study, name, outcomes[name]) for name in study.variants}
    verdicts = tuple(
        judge(claim, rows[claim.better], rows[claim.than], study.margin)
        for claim in study.claims
    )
    return StudyResult(
        study=study,
        out=out,
        measured_on=measured_on,
        precision=precision,
        rows=tuple(rows.values()),
        verdicts=verdicts,
    )


def read_outcome(member: Member) -> Outcome:
    """What one run has come to so far.

    Raises:
        UsageError: If it was gone on with by another recipe.
        InputError: If its log cannot be read.
        WeightsError: If its weights are damaged.
    """
    path = member.folder / "last.safetensors"
    if not path.exists():
        return Outcome()
    metadata = read_metadata(path)
    try:
        steps, recipe = int(metadata["steps"]), make_recipe(_read_recipe(metadata))
    except (KeyError, ValueError, TypeError, UsageError) as error:
        raise WeightsError(
            f"{path} does not say how it was trained: delete {member.folder}, and "
            "--resume trains it anew"
        ) from error
    if recipe != member.recipe:
        raise UsageError(
            f"{member.folder} was trained by another recipe than its study's: delete "
            "it, and --resume trains it anew"
        )
    history = read_history(member.folder)
    finished = steps >= member.recipe.steps
    psnr = history.validations.get(steps, {}).get(member.recipe.scales[0])
    return Outcome(
        steps=steps,
        finished=finished,
        psnr=round(psnr, DIGITS) if finished and psnr is not None else None,
        seconds_per_step=history.seconds_per_step,
        setbacks=len(history.events),
        pictures=metadata.get("data"),
    )


def _read_recipe(metadata: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata["recipe"])
    return found


def judge(claim: Claim, better: StudyRow, than: StudyRow, margin: float) -> Verdict:
    """Whether the runs show a claim.

    Args:
        claim: That `better` is better than, or at least as good as, `than`.
        better: The row of the one.
        than: The row of the other.
        margin: dB; a mean difference below it is none.
    """
    found = better.compare(than)
    mean = better.compare_mean(than)
    return Verdict(
        claim=claim,
        difference=mean,
        printed=better.compare_printed(than),
        text=OPEN if mean is None else _word(claim, mean, found, margin),
    )


def _word(claim: Claim, mean: float, found: Sequence[float], margin: float) -> str:
    """The verdict on a mean difference over the seeds."""
    if claim.at_least:
        return SHOWN if mean > -margin else f"{NOT_SHOWN}: it is worse"
    if abs(mean) < margin:
        return f"{NOT_SHOWN}: no difference"
    if mean < 0:
        return f"{NOT_SHOWN}: it is worse"
    return SHOWN if min(found) > 0 else f"{NOT_SHOWN}: the seeds disagree"


def _make_row(study: Study, name: str, outcomes: Mapping[int, Outcome]) -> StudyRow:
    network, config = outline_config(study.recipes[name])
    empty = outline(network, config)
    return StudyRow(
        variant=name,
        components={key: name in having for key, having in study.components.items()},
        parameters=count_parameters(empty),
        macs_720p=count_macs(empty, study.scale),
        outcomes=outcomes,
        printed=study.find_printed(name),
    )
