"""`report.md` of a study: the paper's ladder beside ours, and what became of claims."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from srcli.storage import quote_path, show_path
from srcli.training.recipe import STUDY, load_recipe
from srcli.training.report import format_table, join_words, quote_code
from srcli.training.study_notes import list_notes, name_table, tell_sources
from srcli.training.study_outcome import StudyResult
from srcli.training.study_table import list_columns, show_gain, show_printed_gain
from srcli.writing import write_whole

NAME = "report.md"


def write_study_report(result: StudyResult) -> Path:
    """Write `report.md` into the study's folder.

    Args:
        result: What the study has come to.

    Raises:
        OutputError: If it cannot be written.
    """
    study = result.study
    notes = [f"- {line}" for line in list_notes(result)]
    lines = [
        f"# Study of {study.network} at x{study.scale}: variants at equal budget",
        "",
        *_tell(result),
        "",
        *_tabulate_rows(result),
        *(["## Notes", "", *notes, ""] if notes else []),
        "## Claims",
        "",
        *_tabulate_claims(result),
        "",
        *_describe_recipe(result),
        "",
        "What each run was trained on is in the report of its own folder.",
    ]
    path = result.out / NAME
    with write_whole(path) as part:
        text = "\n".join(lines) + "\n"
        part.write_text(text, "utf-8", errors="backslashreplace", newline="\n")
    return path


def _tell(result: StudyResult) -> Iterator[str]:
    """What was done, in sentences."""
    study = result.study
    recipe = study.recipe
    seeds = join_words([str(seed) for seed in study.seeds])
    side = f"{recipe.crop}x{recipe.crop} {recipe.crop_of.upper()} pixels"
    yield (
        f"{result.done} of {result.count} runs are done, each of {recipe.steps:,} "
        f"steps of {recipe.batch} crops of {side}, the same for all (seed {seeds}). "
        f"PSNR in dB on {quote_code(show_path(result.measured_on))}, in "
        f"{result.precision}, of the averaged weights after the last step. A gain is "
        "over the first row of its table."
    )
    if result.done < result.count:
        yield ""
        yield (
            f"To go on: `srcli train -m {study.network} --recipe {STUDY} --resume "
            f"--out {quote_path(result.out)}`"
        )


def _tabulate_rows(result: StudyResult) -> Iterator[str]:
    """Every table below its name, and where the paper's figures come from."""
    for table in result.tables:
        columns = list_columns(result, table)
        rows = [[column.text(row) for column in columns] for row in table.rows]
        yield from (f"## {name_table(table)}", "")
        yield from format_table([column.head for column in columns], rows)
        yield from ("", tell_sources(result, table), "")


def _tabulate_claims(result: StudyResult) -> list[str]:
    """The claims with the paper's difference, ours, and the verdict."""
    study = result.study
    if not result.verdicts:
        return ["None of the paper's claims is about two of these networks."]
    rows = [
        [
            f"{verdict.claim.text} ({verdict.claim.section})",
            verdict.claim.better,
            f"{'no worse than' if verdict.claim.at_least else 'over'} "
            f"{verdict.claim.than}",
            show_printed_gain(verdict.printed),
            show_gain(verdict.difference),
            f"{verdict.text}{verdict.note}",
        ]
        for verdict in result.verdicts
    ]
    head = ["claim (section)", "", "", "paper (dB)", "ours (dB)", "verdict"]
    seeds = (
        "A claim counts as shown if every seed bears it out."
        if len(study.seeds) > 1
        else "One run of each: another seed moves such figures too (`--set seeds=2`)."
    )
    return [
        *format_table(head, rows),
        "",
        f"Less than {study.margin} dB is no difference after so few steps. {seeds}",
    ]


def _describe_recipe(result: StudyResult) -> list[str]:
    """Every field that the variants share, those in bold that the user replaced."""
    study = result.study
    values = study.recipe.as_dict()
    bundled = load_recipe(study.recipe.model, STUDY).as_dict()
    del values["model"]
    rows = []
    for name, value in values.items():
        shown = quote_code(json.dumps(value, ensure_ascii=False))
        changed = value != bundled[name]
        rows.append([f"**{name}**", f"**{shown}**"] if changed else [name, shown])
    head = ["field (bold: not as bundled)", "all variants"]
    return ["## Recipe", "", *format_table(head, rows)]
