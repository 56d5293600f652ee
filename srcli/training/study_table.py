"""A study on screen and as JSON, and the columns that its report shares with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srcli.evaluation.table import format_fixed, widen
from srcli.storage import show_path
from srcli.training.study_member import DIGITS
from srcli.training.study_notes import list_notes, name_table, tell_sources
from srcli.training.study_outcome import StudyResult, Verdict
from srcli.training.study_rows import StudyRow, StudyTable

_PRINTED_DIGITS = 2  # as the papers print
_NONE = "-"  # a figure that there is not
_WIDE = 200  # columns, where the output is no terminal
# What a narrow terminal does without, one kind of column after the other.
_SPARED = ("", "time", "label", "component", "macs", "parameters", "steps")


@dataclass(frozen=True, slots=True)
class Column:
    """One thing of every row as text.

    Attributes:
        head: What stands above it.
        text: That of a row; empty where there is nothing to say.
        kind: What a narrow terminal leaves out together.
        left: Whether it is aligned left, as words are.
    """

    head: str
    text: Callable[[StudyRow], str]
    kind: str = ""
    left: bool = False


def print_study(console: Console, result: StudyResult) -> None:
    """Print the tables, with as many columns as there is room for, and the claims.

    Args:
        console: Of any width; a file or pipe gets every column.
        result: What the study has come to.
    """
    study = result.study
    title = f"{study.network} on {show_path(result.measured_on)} x{study.scale}"
    steps = f"{result.done} of {result.count} runs of {study.recipe.steps:,} steps"
    console.print(f"{title}: {steps} done", markup=False, highlight=False)
    for table in result.tables:
        console.print(f"\n{name_table(table)}", markup=False, highlight=False)
        console.print(_fit_table(console, result, table), crop=False)
        console.print(tell_sources(result, table), markup=False, highlight=False)
    console.print()
    for line in (*list_notes(result), *map(_word, result.verdicts)):
        console.print(line, markup=False, highlight=False)


def build_study_document(result: StudyResult) -> dict[str, Any]:
    """The study as a JSON document; a figure that there is not is None."""
    study = result.study
    return {
        "model": study.network,
        "out": show_path(result.out),
        "dataset": show_path(result.measured_on),
        "scale": study.scale,
        "steps": study.recipe.steps,
        "seeds": list(study.seeds),
        "margin": study.margin,
        "finished": result.done == result.count,
        "psnr_seeds": result.seeds,
        "changed": list(study.changed),
        "notes": list_notes(result),
        "tables": [
            {
                "source": table.source,
                "printed_on": table.dataset,
                "note": table.note,
                "rows": [_build_row(table, row) for row in table.rows],
            }
            for table in result.tables
        ],
        "claims": [
            {
                "text": verdict.claim.text,
                "section": verdict.claim.section,
                "better": verdict.claim.better,
                "than": verdict.claim.than,
                "at_least": verdict.claim.at_least,
                "difference": verdict.difference,
                "paper_difference": verdict.printed,
                "seeds": verdict.seeds,
                "verdict": verdict.text,
            }
            for verdict in result.verdicts
        ],
    }


def _build_row(table: StudyTable, row: StudyRow) -> dict[str, Any]:
    printed = table.printed.get(row.variant)
    return {
        "variant": row.variant,
        "label": table.labels.get(row.variant),
        "components": [name for name, there in row.components.items() if there],
        "parameters": row.parameters,
        "macs_720p": row.macs_720p,
        "seconds_per_step": row.seconds_per_step,
        "steps": row.steps,
        "psnr": row.psnr,
        "spread": row.spread,
        "diverged": list(row.diverged),
        "psnr_by_seed": {str(seed): psnr for seed, psnr in row.figures.items()},
        "difference": table.gain(row),
        "paper": printed
        and {
            "psnr": printed.psnr,
            "difference": table.gain_printed(row),
            "source": printed.source,
        },
    }


def show_gain(value: float | None) -> str:
    """A difference of ours in dB."""
    return format_fixed(value, DIGITS, "+") or _NONE


def show_printed_gain(value: float | None) -> str:
    """A difference of the paper's in dB, with as many digits as it prints."""
    return format_fixed(value, _PRINTED_DIGITS, "+") or _NONE


def list_columns(result: StudyResult, table: StudyTable) -> list[Column]:
    """Every column of a table that has something to show for one of its rows."""
    components = [
        Column(name, partial(_mark, name), "component")
        for name in result.study.components
        # One that all have, or none, tells them not apart.
        if len({row.components[name] for row in table.rows}) > 1
    ]
    columns = [
        Column("variant", lambda row: row.variant, left=True),
        Column(
            "in the paper",
            lambda row: table.labels.get(row.variant, ""),
            "label",
            left=True,
        ),
        *components,
        Column("parameters", lambda row: f"{row.parameters:,}", "parameters"),
        Column("MACs (720p)", lambda row: f"{row.macs_720p / 1e9:,.1f}G", "macs"),
        Column("s/step", lambda row: _show_seconds(row.seconds_per_step), "time"),
        Column("steps", lambda row: f"{row.steps:,}", "steps"),
        Column("PSNR", _show_psnr),
        Column("±", lambda row: format_fixed(row.spread, DIGITS)),
        Column("gain", lambda row: show_gain(table.gain(row))),
        *_list_printed(table),
    ]
    return [each for each in columns if any(each.text(row) for row in table.rows)]


def _list_printed(table: StudyTable) -> list[Column]:
    """The paper's figures and gains, each if there is any."""
    columns = []
    if table.printed:
        columns.append(Column("paper", partial(_show_printed, table)))
    if any(table.gain_printed(row) is not None for row in table.rows):
        columns.append(
            Column(
                "paper's gain",
                lambda row: show_printed_gain(table.gain_printed(row)),
            )
        )
    return columns


def _show_printed(table: StudyTable, row: StudyRow) -> str:
    printed = table.printed.get(row.variant)
    return format_fixed(printed.psnr, _PRINTED_DIGITS) if printed else _NONE


def _mark(component: str, row: StudyRow) -> str:
    return "x" if row.components[component] else ""


def _show_psnr(row: StudyRow) -> str:
    missing = "diverged" if row.diverged else _NONE
    return format_fixed(row.psnr, DIGITS) or missing


def _show_seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _fit_table(console: Console, result: StudyResult, table: StudyTable) -> Table:
    """A table with the columns that there is room for."""
    columns = list_columns(result, table)
    room = console.width if console.is_terminal else _WIDE
    for dropped in _SPARED:
        columns = [each for each in columns if not dropped or each.kind != dropped]
        drawn = _build_table(table.rows, columns)
        if widen(console, drawn) <= room:
            break
    return drawn


def _build_table(rows: Sequence[StudyRow], columns: Sequence[Column]) -> Table:
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in columns:
        table.add_column(
            column.head.replace(" ", "\n"),
            justify="left" if column.left else "right",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in columns))
    return table


def _word(verdict: Verdict) -> str:
    """A claim and what became of it, in one line."""
    claim = verdict.claim
    relation = "no worse than" if claim.at_least else "over"
    line = (
        f"{verdict.text}{verdict.note}: {claim.text} "
        f"({claim.better} {relation} {claim.than})"
    )
    figures = []
    if verdict.difference is not None:
        figures.append(f"{show_gain(verdict.difference)} dB")
    if verdict.printed is not None:
        figures.append(f"paper {show_printed_gain(verdict.printed)} dB")
    return f"{line}: {', '.join(figures)}" if figures else line
