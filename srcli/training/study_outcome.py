"""What a study has come to: its runs read back, and the paper's claims judged by them.

Means are over the seeds that all variants have, so that gains fit the figures shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

from srcli.evaluation.published import PublishedResult
from srcli.models.counting import count_macs, count_parameters, outline
from srcli.training.study_member import DIGITS, Outcome, read_outcome
from srcli.training.study_plan import Claim, Study, outline_config

SHOWN = "shown"
NOT_SHOWN = "not shown"
OPEN = "open"  # one of the two is not trained yet


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One variant: what it is, what its runs came to, and what the paper prints."""

    variant: str
    components: Mapping[str, bool]
    parameters: int
    macs_720p: int  # for an output of 1280x720
    outcomes: Mapping[int, Outcome]  # by seed
    printed: PublishedResult | None
    # Those that its mean is over, so that all rows have the same; None: all it has.
    seeds: Collection[int] | None = None

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
    def shown(self) -> dict[int, float]:
        """Those of the figures that count."""
        seeds = self.figures if self.seeds is None else self.seeds
        return {seed: psnr for seed, psnr in self.figures.items() if seed in seeds}

    @property
    def diverged(self) -> tuple[int, ...]:
        """The seeds with which it does not train."""
        return tuple(seed for seed, each in self.outcomes.items() if each.diverged)

    @property
    def psnr(self) -> float | None:
        """The mean over the seeds."""
        found = self.shown.values()
        return round(fmean(found), DIGITS) if found else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over the seeds; None for fewer than two."""
        found = list(self.shown.values())
        return round(stdev(found), DIGITS) if len(found) > 1 else None

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the seeds."""
        found = [o.seconds_per_step for o in self.outcomes.values()]
        known = [value for value in found if value is not None]
        return fmean(known) if known else None

    def compare(self, other: StudyRow) -> list[float]:
        """How many dB it is above another, for each seed that both have."""
        mine, others = self.shown, other.shown
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
    seeds: int  # that it rests on
    count: int  # of the study's seeds
    text: str

    @property
    def note(self) -> str:
        """What to say beside the text while runs are missing."""
        if not 0 < self.seeds < self.count:
            return ""
        return f" (so far, {self.seeds} of {self.count} seeds)"


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
        """The runs that have taken all their steps and been measured."""
        return sum(o.finished for row in self.rows for o in row.outcomes.values())

    @property
    def seeds(self) -> list[int]:
        """Those that the means are over."""
        return sorted({seed for row in self.rows for seed in row.shown})


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
    seeds = _choose_seeds(outcomes.values())
    rows = {
        name: _make_row(study, name, outcomes[name], seeds) for name in study.variants
    }
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
        seeds=len(found),
        count=len(better.outcomes),
        text=OPEN if mean is None else _word(claim, mean, found, margin),
    )


def _word(claim: Claim, mean: float, found: Sequence[float], margin: float) -> str:
    """The verdict on a mean difference over the seeds."""
    if mean <= -margin:
        return f"{NOT_SHOWN}: it is worse"
    if mean < margin and not claim.at_least:
        return f"{NOT_SHOWN}: no difference"
    least = -margin if claim.at_least else 0
    return SHOWN if min(found) > least else f"{NOT_SHOWN}: the seeds disagree"


def _choose_seeds(outcomes: Iterable[Mapping[int, Outcome]]) -> frozenset[int]:
    """Those of which every variant that has figures has one.

    Where there is none, those of the first of them; the others then show nothing.
    """
    having = [
        frozenset(seed for seed, each in found.items() if each.psnr is not None)
        for found in outcomes
    ]
    known = [seeds for seeds in having if seeds] or [frozenset()]
    return frozenset.intersection(*known) or known[0]


def _make_row(
    study: Study, name: str, outcomes: Mapping[int, Outcome], seeds: frozenset[int]
) -> StudyRow:
    network, config = outline_config(study.recipes[name])
    empty = outline(network, config)
    return StudyRow(
        variant=name,
        components=study.list_components(name),
        parameters=count_parameters(empty),
        macs_720p=count_macs(empty, study.scale),
        outcomes=outcomes,
        printed=study.find_printed(name),
        seeds=seeds,
    )
