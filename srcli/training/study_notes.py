"""What to know of a study's figures, in sentences."""

from __future__ import annotations

import json

from srcli.training.report import join_words
from srcli.training.study_outcome import StudyResult
from srcli.training.study_rows import StudyTable

_NAMED = "Named variants"  # by the user, and in no table


def name_table(table: StudyTable) -> str:
    """What stands above a table."""
    return table.source or _NAMED


def tell_sources(result: StudyResult, table: StudyTable) -> str:
    """Where the paper's figures in a table come from, and what to know of them."""
    study = result.study
    sources = dict.fromkeys(each.source for each in table.printed.values())
    kind = study.recipe.degradation
    where = f"{table.dataset} x{study.scale}"
    where += "" if kind == "bi" else f" with degradation {kind}"
    if sources:
        text = f"The paper's figures: {join_words(list(sources))}, {where}."
    else:
        text = f"The papers print no figure of these networks on {where}."
    return f"{text} Note: {table.note}." if table.note else text


def list_notes(result: StudyResult) -> list[str]:
    """What a reader of the figures must know, a sentence each."""
    study = result.study
    lines = []
    if study.changed:
        config = json.dumps(study.recipe.config)
        every = len(study.changed) == len(study.variants)
        names = "The networks" if every else join_words(study.changed)
        lines.append(
            f"{names} are not as published ({config}): what the paper prints and "
            "claims of them is left out."
        )
    if result.done and result.seeds != list(study.seeds):
        seeds = join_words([str(seed) for seed in result.seeds])
        lines.append(f"Figures are of seed {seeds}, which every variant shown has.")
    for row in result.rows:
        if row.diverged:
            seeds = join_words([str(seed) for seed in row.diverged])
            lines.append(
                f"{row.variant} does not train with seed {seeds}: its loss is no "
                "number, whatever the learning rate."
            )
        back = sum(each.setbacks for each in row.outcomes.values())
        if back and not row.diverged:
            times = "once" if back == 1 else f"{back} times"
            lines.append(
                f"{row.variant} went back {times} with half the learning rate, its "
                "loss being no number: its rate is not the others'."
            )
    every_run = [each.pictures for row in result.rows for each in row.outcomes.values()]
    seen = list(dict.fromkeys(each for each in every_run if each))
    if len(seen) > 1:
        lines.append(f"The pictures were not the same for all: {join_words(seen)}.")
    return lines
