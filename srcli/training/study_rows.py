"""The rows of a study, and the tables that they stand in beside the paper's figures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from srcli.evaluation.published import PublishedResult, find_table
from srcli.training.study_member import DIGITS, Outcome
from srcli.training.study_plan import Study, subtract_printed


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One variant: what it is, and what its runs came to."""

    variant: str
    components: Mapping[str, bool]
    parameters: int
    macs_720p: int  # for an output of 1280x720
    outcomes: Mapping[int, Outcome]  # by seed
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTable:
    """Rows that are compared with the first of them, as in a table of the paper."""

    source: str | None  # of `published.json`; None: variants that the user named
    dataset: str  # that the paper's figures are of
    rows: tuple[StudyRow, ...]
    labels: Mapping[str, str]  # what the paper calls them, by variant
    printed: Mapping[str, PublishedResult]  # what it prints for them, by variant
    note: str | None = None  # on the paper's figures

    def gain(self, row: StudyRow) -> float | None:
        """How many dB a row is above the first; None where no seed is common."""
        return row.compare_mean(self.rows[0])

    def gain_printed(self, row: StudyRow) -> float | None:
        """The same of the paper's figures; None where it does not print both."""
        mine, first = (self.printed.get(r.variant) for r in (row, self.rows[0]))
        return subtract_printed(mine, first)


def arrange_rows(study: Study, rows: Mapping[str, StudyRow]) -> tuple[StudyTable, ...]:
    """The study's tables, then one of the variants that stand in none of them.

    A variant of several tables stands in each. A table of which only one row is trained
    compares nothing and is left out. The last one begins with the study's first
    variant, wherever that stands; if it is the only one, the others follow it all the
    same.

    Args:
        study: The study.
        rows: Of all its variants, by variant.
    """
    tables = []
    for source, dataset in study.tables.items():
        names = [name for name in find_table(source).labels if name in rows]
        if len(names) > 1:
            tables.append(_make_table(study, [rows[n] for n in names], dataset, source))
    there = {row.variant for table in tables for row in table.rows}
    others = [name for name in study.variants if name not in there]
    if others:
        names = list(dict.fromkeys((study.variants[0], *others)))
        names = names if len(names) > 1 else list(study.variants)
        tables.append(_make_table(study, [rows[n] for n in names], study.dataset))
    return tuple(tables)


def _make_table(
    study: Study, rows: Sequence[StudyRow], dataset: str, source: str | None = None
) -> StudyTable:
    names = [row.variant for row in rows if row.variant not in study.changed]
    found = {name: study.find_printed(name, dataset, source) for name in names}
    printed = {name: result for name, result in found.items() if result}
    table = find_table(source) if source else None
    labels = table.labels if table else {n: r.label for n, r in printed.items()}
    return StudyTable(
        source=source,
        dataset=dataset,
        rows=tuple(rows),
        labels={name: labels[name] for name in names if name in labels},
        printed=printed,
        note=table.note if table and names else None,
    )
