"""What a study has come to: its runs read back, and the paper's claims judged by them.

Means are over the seeds that all variants have, so that gains fit the figures shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from srcli.models.counting import count_macs, count_parameters, outline
from srcli.training.study_member import Outcome, read_outcome
from srcli.training.study_plan import Claim, Study, outline_config
from srcli.training.study_rows import StudyRow, StudyTable, arrange_rows

SHOWN = "shown"
NOT_SHOWN = "not shown"
OPEN = "open"  # one of the two is not trained yet


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
    rows: tuple[StudyRow, ...]  # every variant once, in the order of training
    tables: tuple[StudyTable, ...]  # where a variant may stand twice
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
    return StudyResult(
        study=study,
        out=out,
        measured_on=measured_on,
        precision=precision,
        rows=tuple(rows.values()),
        tables=arrange_rows(study, rows),
        verdicts=judge_claims(study, rows),
    )


def judge_claims(study: Study, rows: Mapping[str, StudyRow]) -> tuple[Verdict, ...]:
    """What the rows say of each of the study's claims.

    Args:
        study: The study.
        rows: Of all its variants, by variant.
    """
    return tuple(
        judge(
            claim,
            rows[claim.better],
            rows[claim.than],
            study.margin,
            printed=study.compare_printed(claim.better, claim.than),
        )
        for claim in study.claims
    )


def judge(
    claim: Claim,
    better: StudyRow,
    than: StudyRow,
    margin: float,
    *,
    printed: float | None = None,
) -> Verdict:
    """Whether the runs show a claim.

    Args:
        claim: That `better` is better than, or at least as good as, `than`.
        better: The row of the one.
        than: The row of the other.
        margin: dB; a mean difference below it is none.
        printed: dB, the difference in the paper.
    """
    found = better.compare(than)
    mean = better.compare_mean(than)
    return Verdict(
        claim=claim,
        difference=mean,
        printed=printed,
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
        seeds=seeds,
    )
