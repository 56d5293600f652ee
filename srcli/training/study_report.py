"""A study as one document beside its paper: for JSON, the screen and the report.

Means are over the seeds that all variants have, so that gains fit the figures shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from srcli.evaluation.published import find_table
from srcli.evaluation.tables import (
    Column,
    Table,
    format_fixed,
    format_table,
    print_table,
    quote_code,
)
from srcli.models.counting import count_macs, count_parameters, outline
from srcli.storage import quote_path, show_path
from srcli.training.recipe import STUDY, outline_config
from srcli.training.study import (
    Claim,
    Study,
    StudyRun,
    TrainedVariant,
    subtract_printed,
)
from srcli.units import join_words
from srcli.writing import write_whole

NAME = "report.md"
_DIGITS = 3  # of a PSNR: variants differ by less than the papers' second one

_Document = dict[str, Any]
_Figures = Mapping[str, Mapping[int, float]]  # dB by variant and seed, as compared


def build_study_document(run: StudyRun) -> _Document:
    """The study as a JSON document; a figure that there is not is None."""
    study, outcomes = run.study, run.outcomes
    figures = {
        name: {seed: o.psnr for seed, o in found.items() if o.psnr is not None}
        for name, found in outcomes.items()
    }
    # Of which every variant that has figures has one; where there is none, the first's.
    known = [frozenset(found) for found in figures.values() if found] or [frozenset()]
    common = frozenset.intersection(*known) or known[0]
    shown = {
        name: {seed: psnr for seed, psnr in found.items() if seed in common}
        for name, found in figures.items()
    }
    rows = {
        name: {
            **_describe_variant(study, name, outcomes[name].values()),
            "psnr": _mean(shown[name].values()),
            "spread": round(stdev(shown[name].values()), _DIGITS)
            if len(shown[name]) > 1
            else None,
            "diverged": [s for s, each in outcomes[name].items() if each.diverged],
            "psnr_by_seed": {str(seed): psnr for seed, psnr in found.items()},
        }
        for name, found in figures.items()
    }
    done, count = sum(map(len, figures.values())), len(rows) * len(study.seeds)
    seeds = sorted({seed for found in shown.values() for seed in found})
    return {
        "model": study.network,
        "out": show_path(run.request.out),
        "dataset": show_path(run.request.val or study.dataset),
        "scale": study.scale,
        "steps": study.recipe.steps,
        "seeds": list(study.seeds),
        "margin": study.margin,
        "runs": {"done": done, "count": count},
        "finished": done == count,
        "psnr_seeds": seeds,
        "changed": list(study.changed),
        "notes": [*_list_notes(run, seeds)],
        "tables": [
            _build_table(study, source, dataset, [rows[name] for name in names], shown)
            for source, dataset, names in _arrange(study)
        ],
        "claims": [_judge(study, claim, shown) for claim in study.claims],
    }


def _describe_variant(
    study: Study, name: str, runs: Collection[TrainedVariant]
) -> _Document:
    """What a variant is, and how far its runs have come."""
    empty = outline(*outline_config(study.recipes[name]))
    seconds = [e.seconds_per_step for e in runs if e.seconds_per_step is not None]
    done = [each.steps for each in runs if each.psnr is not None]
    components = study.list_components(name)
    return {
        "variant": name,
        "components": [each for each, there in components.items() if there],
        "parameters": count_parameters(empty),
        "macs_720p": count_macs(empty, study.scale),
        "seconds_per_step": fmean(seconds) if seconds else None,
        "steps": min(done) if done else max(each.steps for each in runs),
    }


def _arrange(study: Study) -> Iterator[tuple[str | None, str, list[str]]]:
    """Source, data set and variants of the study's tables, then of those in none.

    A variant of several tables stands in each. A table of which only one row is trained
    compares nothing and is left out. The last one begins with the study's first
    variant; if it is the only one, the others follow it all the same.
    """
    names, there = list(study.recipes), set()
    for source, dataset in study.tables.items():
        own = [name for name in find_table(source).labels if name in names]
        if len(own) > 1:
            there.update(own)
            yield source, dataset, own
    others = [name for name in names if name not in there]
    if others:
        last = list(dict.fromkeys((names[0], *others)))
        yield None, study.dataset, last if len(last) > 1 else names


def _build_table(
    study: Study,
    source: str | None,
    dataset: str,
    rows: Sequence[_Document],
    figures: _Figures,
) -> _Document:
    """Rows that are compared with the first of them, beside what the paper prints."""
    names = [row["variant"] for row in rows]
    table = find_table(source) if source else None
    first = study.find_printed(names[0], dataset, source)
    built = []
    for name, row in zip(names, rows, strict=True):
        printed = study.find_printed(name, dataset, source)
        label = printed.label if printed else None
        if table is not None:
            label = None if name in study.changed else table.labels[name]
        paper = printed and {
            "psnr": printed.psnr,
            "difference": subtract_printed(printed, first),
            "source": printed.source,
        }
        gain = _mean(_compare(figures, name, names[0]))
        built.append({**row, "label": label, "difference": gain, "paper": paper})
    changed = set(names) <= set(study.changed)
    note = table.note if table is not None and not changed else None
    return {"source": source, "printed_on": dataset, "note": note, "rows": built}


def _judge(study: Study, claim: Claim, figures: _Figures) -> _Document:
    """What the runs say of a claim: shown, not shown, or open while one is missing."""
    found = _compare(figures, claim.better, claim.than)
    mean, least = _mean(found), -study.margin if claim.at_least else 0.0
    if mean is None:
        verdict = "open"
    elif mean <= -study.margin:
        verdict = "not shown: it is worse"
    elif mean < study.margin and not claim.at_least:
        verdict = "not shown: no difference"
    else:
        verdict = "shown" if min(found) > least else "not shown: the seeds disagree"
    return {
        **asdict(claim),
        "difference": mean,
        "paper_difference": study.compare_printed(claim),
        "seeds": len(found),
        "verdict": verdict,
    }


def _compare(figures: _Figures, name: str, other: str) -> list[float]:
    """How many dB one variant is above another, for each seed that both have."""
    mine, others = figures[name], figures[other]
    return [round(mine[s] - others[s], _DIGITS) for s in mine if s in others]


def _mean(values: Collection[float]) -> float | None:
    return round(fmean(values), _DIGITS) if values else None


def _list_notes(run: StudyRun, seeds: Sequence[int]) -> Iterator[str]:
    """What a reader of figures of these seeds must know, a sentence each."""
    study = run.study
    if study.changed:
        every = len(study.changed) == len(study.recipes)
        names = "The networks" if every else join_words(study.changed)
        yield (
            f"{names} are not as published ({json.dumps(study.recipe.config)}): what "
            "the paper prints and claims of them is left out."
        )
    if seeds and seeds != list(study.seeds):
        said = join_words([str(seed) for seed in seeds])
        yield f"Figures are of seed {said}, which every variant shown has."
    for name, outcomes in run.outcomes.items():
        diverged = [str(seed) for seed, each in outcomes.items() if each.diverged]
        back = sum(each.setbacks for each in outcomes.values())
        if diverged:
            yield (
                f"{name} does not train with seed {join_words(diverged)}: its loss is "
                "no number, whatever the learning rate."
            )
        elif back:
            times = "once" if back == 1 else f"{back} times"
            yield (
                f"{name} went back {times} with half the learning rate, its loss being "
                "no number: its rate is not the others'."
            )
    seen = [each.pictures for all_ in run.outcomes.values() for each in all_.values()]
    pictures = list(dict.fromkeys(each for each in seen if each))
    if len(pictures) > 1:
        yield f"The pictures were not the same for all: {join_words(pictures)}."


def print_study(console: Console, run: StudyRun) -> None:
    """Print the tables, with as many columns as there is room for, and the claims."""
    say = partial(console.print, markup=False, highlight=False)
    document = build_study_document(run)
    runs = document["runs"]
    say(
        f"{document['model']} on {document['dataset']} x{document['scale']}: "
        f"{runs['done']} of {runs['count']} runs of {document['steps']:,} steps done"
    )
    # What a narrow terminal does without, one after the other.
    parts = run.study.components
    spared = ["s/step", "in the paper", *parts, "MACs (720p)", "parameters", "steps"]
    for table in document["tables"]:
        say(f"\n{table['source'] or 'Named variants'}")
        print_table(console, _make_table(run.study, table), spared)
        say(_tell_sources(run.study, table))
    say("")
    for line in (*document["notes"], *_list_claims(document)):
        say(line)


def write_study_report(run: StudyRun) -> None:
    """Write `report.md` into the study's folder: the document as Markdown.

    Raises:
        OutputError: If it cannot be written.
    """
    document, recipe, out = build_study_document(run), run.study.recipe, run.request.out
    seeds, runs = join_words([str(s) for s in document["seeds"]]), document["runs"]
    side = f"{recipe.crop}x{recipe.crop} {recipe.crop_of.upper()} pixels"
    lines = [
        f"# Study of {document['model']} at x{document['scale']}: variants at equal "
        "budget",
        "",
        f"{runs['done']} of {runs['count']} runs are done, each of {recipe.steps:,} "
        f"steps of {recipe.batch} crops of {side}, the same for all (seed {seeds}). "
        f"PSNR in dB on {quote_code(document['dataset'])}, in {run.request.precision}, "
        "of the averaged weights after the last step. A gain is over the first row of "
        f"its table; less than {document['margin']} dB is no difference after so few "
        "steps.",
        "",
    ]
    if not document["finished"]:
        command = f"srcli train -m {document['model']} --recipe {STUDY} --resume --out"
        lines += [f"To go on: `{command} {quote_path(out)}`", ""]
    for table in document["tables"]:
        made = _make_table(run.study, table)
        lines += [f"## {table['source'] or 'Named variants'}", ""]
        lines += [*format_table(made.titles, made.bodies[0], made.left), ""]
        lines += [_tell_sources(run.study, table), ""]
    fields = ", ".join(f"{name} = {value!r}" for name, value in run.study.asked.items())
    notes = [
        *document["notes"],
        f"Recipe: `{STUDY}` of {document['model']}; replaced: {fields or 'nothing'}. "
        "What each run was trained on is in the report of its own folder.",
    ]
    lines += ["## Notes", "", *(f"- {note}" for note in notes), "", "## Claims", ""]
    claims = [*_list_claims(document)] or ["none is about two of these networks"]
    lines += [f"- {claim}" for claim in claims]
    with write_whole(out / NAME) as part:
        text = "\n".join(lines) + "\n"
        part.write_text(text, "utf-8", errors="backslashreplace", newline="\n")


def _make_table(study: Study, table: _Document) -> Table:
    """A table of the document as text."""

    def mark(component: str) -> Callable[[_Document], str]:
        return lambda row: "x" if component in row["components"] else ""

    def print_of(row: _Document, name: str, sign: str = "") -> str:
        return format_fixed(row["paper"][name], 2, sign) if row["paper"] else ""

    def print_psnr(row: _Document) -> str:
        missing = "diverged" if row["diverged"] else "-"
        return format_fixed(row["psnr"], _DIGITS) or missing

    rows = table["rows"]
    # A component that all have, or none, tells them not apart.
    parts = [
        p for p in study.components if len({p in r["components"] for r in rows}) > 1
    ]
    columns: dict[str, Callable[[_Document], str]] = {
        "variant": lambda row: row["variant"],
        "in the paper": lambda row: row["label"] or "",
        **{component: mark(component) for component in parts},
        "parameters": lambda row: f"{row['parameters']:,}",
        "MACs (720p)": lambda row: f"{row['macs_720p'] / 1e9:,.1f}G",
        "s/step": lambda row: f"{row['seconds_per_step'] or 0:.3g}",
        "steps": lambda row: f"{row['steps']:,}",
        "PSNR": print_psnr,
        "±": lambda row: format_fixed(row["spread"], _DIGITS),
        "gain": lambda row: format_fixed(row["difference"], _DIGITS, "+") or "-",
        "paper": partial(print_of, name="psnr"),
        "paper's gain": partial(print_of, name="difference", sign="+"),
    }
    words = ("variant", "in the paper")
    heads = [Column(each, each.replace(" ", "\n"), each in words) for each in columns]
    lines = [{head: text(row) for head, text in columns.items()} for row in rows]
    return Table(heads, [("", lines)])


def _tell_sources(study: Study, table: _Document) -> str:
    """Where the paper's figures in a table come from, and what to know of them."""
    papers = [row["paper"]["source"] for row in table["rows"] if row["paper"]]
    kind = study.recipe.degradation
    where = f"{table['printed_on']} x{study.scale}"
    where += "" if kind == "bi" else f" with degradation {kind}"
    text = f"The papers print no figure of these networks on {where}."
    if papers:
        text = f"The paper's figures: {join_words([*dict.fromkeys(papers)])}, {where}."
    return f"{text} Note: {table['note']}." if table["note"] else text


def _list_claims(document: _Document) -> Iterator[str]:
    """The claims, what became of each, and the figures, a line each."""
    seeds = len(document["seeds"])
    for claim in document["claims"]:
        relation = "no worse than" if claim["at_least"] else "over"
        few = 0 < claim["seeds"] < seeds
        so_far = f" (so far, {claim['seeds']} of {seeds} seeds)" if few else ""
        line = (
            f"{claim['verdict']}{so_far}: {claim['text']} ({claim['better']} "
            f"{relation} {claim['than']}; section {claim['section']})"
        )
        figures = []
        if claim["difference"] is not None:
            figures.append(f"{claim['difference']:+.{_DIGITS}f} dB")
        if claim["paper_difference"] is not None:
            figures.append(f"paper {claim['paper_difference']:+.2f} dB")
        yield f"{line}: {', '.join(figures)}" if figures else line
