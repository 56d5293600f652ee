"""`report.md`: what a run was, how it went, and what it came to beside its paper."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch

from srcli import __version__
from srcli.errors import SrcliError
from srcli.evaluation.benchmark import Row
from srcli.evaluation.contenders import BICUBIC
from srcli.evaluation.report import format_command, format_markdown
from srcli.evaluation.table import name_group
from srcli.storage import quote_path, show_path
from srcli.training import curves
from srcli.training.data import CropSampler
from srcli.training.history import History, read_history
from srcli.training.machine import describe_machine
from srcli.training.markdown import (
    format_table,
    join_words,
    quote_code,
)
from srcli.training.measure import make_request
from srcli.training.recipe import Recipe, load_recipe
from srcli.training.teacher import TeacherFacts
from srcli.units import format_duration
from srcli.writing import write_whole

NAME = "report.md"
_ROWS = 25  # of the curve's table, at most
_NAMED = 100  # skipped pictures that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFacts:
    """The training pictures."""

    count: int  # reduced copies included
    pixels: int
    fingerprint: str  # of all pictures' values
    skipped: tuple[Path, ...] = ()  # unreadable, or the same as another
    held_out: tuple[Path, ...] = ()  # validated on, not trained on
    folders: tuple[Path, ...] = ()
    teachers: tuple[TeacherFacts, ...] = ()

    @classmethod
    def of(
        cls,
        sampler: CropSampler,
        folders: Iterable[Path] = (),
        teachers: Iterable[TeacherFacts] = (),
    ) -> Self:
        """What a sampler holds, and where its pictures were looked for."""
        return cls(
            count=sampler.count,
            pixels=sampler.pixels,
            fingerprint=sampler.fingerprint,
            skipped=tuple(sampler.skipped),
            held_out=tuple(sampler.held_out.values()),
            folders=tuple(folders),
            teachers=tuple(teachers),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run knows of itself at its end, beyond its log."""

    recipe: Recipe
    recipe_name: str | None = None  # "paper", "fast", a TOML file; None: not known
    pictures: PictureFacts
    step: int
    seconds: float  # wall-clock of all calls
    finished: bool  # by the recipe's steps or its plateau
    best: Mapping[str, float] = field(default_factory=dict)  # dB: "mean", "x2", ...
    best_step: int = 0
    device: torch.device
    devices: int = 1
    precision: str
    val: str | None = None  # name or folder of the validation set; None: none
    weights: Path | None = None  # the file that stands for the run, see `find_weights`
    rows: Sequence[Row] = ()  # what `measure_run` found of it


def write_report(folder: Path, facts: RunFacts) -> Path:
    """Write `report.md` into a run's folder; `curves.png` comes in if it is there.

    Args:
        folder: The run's folder, with its log and weights.
        facts: What else there is to say.

    Raises:
        InputError: If the log cannot be read.
        OutputError: If the report cannot be written.
    """
    history = read_history(folder)
    sections = (
        _summarise(folder, facts, history),
        _compare(facts),
        _tell_course(folder, facts, history),
        _describe_recipe(facts),
        _describe_pictures(facts),
        _describe_machine(facts),
    )
    text = "\n".join(line for section in sections for line in (*section, ""))
    path = folder / NAME
    with write_whole(path) as part:
        # Names of files may hold bytes that are no text.
        part.write_text(text, "utf-8", errors="backslashreplace", newline="\n")
    return path


def _benchmark(weights: Path, facts: RunFacts) -> str:
    """The command that measures the run's weights."""
    val = facts.val or "set5"
    return format_command(make_request(weights, facts.recipe, val, None, facts.device))


def _summarise(folder: Path, facts: RunFacts, history: History) -> list[str]:
    """What was run, what it came to, and how to go on."""
    recipe = facts.recipe
    scales = join_words([f"x{scale}" for scale in recipe.scales])
    kind = "" if recipe.degradation == "bi" else f", degradation {recipe.degradation}"
    lines = [f"# {recipe.model} at {scales}{kind}", "", _tell_steps(facts)]
    if facts.best:
        parts = [f"{name} {psnr:.3f}" for name, psnr in facts.best.items()]
        where = quote_code(show_path(facts.val or "the validation set"))
        if facts.pictures.held_out:
            where = "the held-out pictures"
        lines.append(
            f"Best validation on {where}, at step {facts.best_step:,}: "
            f"{', '.join(parts)} (PSNR in dB)."
        )
    else:
        lines.append("It was not validated: no step is known to be the best.")
    if history.seconds_per_step is not None:
        share = history.data_share
        drawn = "" if share is None else f", {share:.1%} of it for the crops"
        lines.append(f"A step took {history.seconds_per_step:.3g} s (median){drawn}.")
    commands = []
    again = f"srcli train -m {recipe.model} --resume --out {quote_path(folder)}"
    if not facts.finished:
        commands.append(again)
    elif facts.step >= recipe.steps:
        commands.append(f"{again} --steps {2 * recipe.steps}")
    if facts.weights is not None and not facts.rows:
        commands.append(_benchmark(facts.weights, facts))
    if commands:
        lines += ["", "To go on, or to measure the weights:", ""]
        lines += ["```sh", *commands, "```"]
    return lines


def _tell_steps(facts: RunFacts) -> str:
    steps, done = facts.recipe.steps, facts.step
    begun = f"`srcli train` {__version__} took"
    time = f"in {format_duration(facts.seconds)} of wall-clock"
    if done >= steps:
        return f"{begun} all {steps:,} steps of the recipe {time}."
    if facts.finished:
        return f"{begun} {done:,} steps {time}; there its plateau schedule ended."
    return f"{begun} {done:,} of {steps:,} steps {time}; there it was stopped."


def _compare(facts: RunFacts) -> list[str]:
    """The table of the benchmark, and what it does not say itself."""
    lines, weights = ["## Against the paper", ""], facts.weights
    if not facts.rows or weights is None:
        return [
            *lines,
            "Not measured: the run was interrupted, is one of a study, or validated"
            " on no published set.",
        ]
    recipe = facts.recipe
    lines += [
        f"{quote_code(weights.name)} in fp32, beside bicubic and what papers print. A "
        "difference is the measured figure less the printed one; PSNR is in dB.",
        "",
        *format_markdown(facts.rows, _benchmark(weights, facts)).splitlines(),
        "",
    ]
    networks = [row for row in facts.rows if row.model != BICUBIC]
    alone = [name_group(row) for row in networks if row.paper is None]
    if alone:
        lines.append(
            f"No paper prints figures of {recipe.model} on {join_words(alone)}."
        )
    if recipe.config:
        changed = quote_code(json.dumps(recipe.config))
        lines.append(f"The network is not {recipe.model} as published: {changed}.")
    if weights.name.startswith("best"):
        lines.append(
            "These weights were chosen by their PSNR on this same set, which flatters "
            "them a little here."
        )
    return lines


def _tell_course(folder: Path, facts: RunFacts, history: History) -> list[str]:
    """The picture, the validations as a table, and the events."""
    lines = ["## Curve", ""]
    if (folder / curves.NAME).is_file():
        lines += [f"![curves]({curves.NAME})", ""]
    if not history.validations:
        lines += ["There was no validation.", ""]
    steps = list(history.validations or history.losses)
    if steps:
        lines += _tabulate(_choose(steps, facts.best_step), facts.best_step, history)
    else:
        lines.append("The log holds no figures: the run was too short for any.")
    lines += ["", "## Events", ""]
    for number, (step, text) in enumerate(history.events, start=1):
        lines.append(f"{number}. step {step:,}: {' '.join(text.split())}")
    return lines if history.events else [*lines, "None."]


def _tabulate(steps: Sequence[int], best: int, history: History) -> list[str]:
    """The table of the steps, the best of the validations in bold."""
    scales = history.scales
    head = ["step", "loss", "learning rate", *(f"x{scale} (dB)" for scale in scales)]
    rows = []
    for step in steps:
        psnr = history.validations.get(step, {})
        row = [f"{step:,}", _at(history.losses, step), _at(history.rates, step)]
        row += [f"{psnr[scale]:.3f}" if scale in psnr else "" for scale in scales]
        marked = psnr and step == best
        rows.append([f"**{cell}**" if cell and marked else cell for cell in row])
    return format_table(head, rows)


def _choose(steps: Sequence[int], best: int) -> list[int]:
    """At most `_ROWS` of the steps: the first, the last, the best, others between."""
    if len(steps) <= _ROWS:
        return list(steps)
    gaps = _ROWS - 2
    spread = {steps[round(n * (len(steps) - 1) / gaps)] for n in range(gaps + 1)}
    return sorted(spread | ({best} & set(steps)))


def _at(figures: Mapping[int, float], step: int) -> str:
    """The last figure up to a step; nothing where there is none."""
    known = list(figures)
    place = bisect_right(known, step)
    return f"{figures[known[place - 1]]:.4g}" if place else ""


def _describe_recipe(facts: RunFacts) -> list[str]:
    """Every field, those in bold that differ from the recipe of that name."""
    values, name = facts.recipe.as_dict(), facts.recipe_name
    lines = ["## Recipe", ""]
    named: dict[str, object] | None = None
    try:
        if name is not None:
            named = load_recipe(facts.recipe.model, name).as_dict()
    except SrcliError:
        lines += [f"The recipe {quote_code(name or '')} cannot be read any more.", ""]
    if named is None:
        return lines + format_table(
            ["field", "value"], [[key, _show(value)] for key, value in values.items()]
        )
    title = quote_code(name or "")
    changed = [key for key in values if values[key] != named[key]]
    what = f"{len(changed)} of its fields" if changed else "none of its fields"
    lines += [f"The recipe {title} with {what} changed (in bold).", ""]
    rows = [
        [f"**{key}**", f"**{_show(value)}**", _show(named[key])]
        if key in changed
        else [key, _show(value)]
        for key, value in values.items()
    ]
    return lines + format_table(["field", "this run", f"in {title}"], rows)


def _show(value: object) -> str:
    return quote_code(json.dumps(value, ensure_ascii=False))


def _describe_pictures(facts: RunFacts) -> list[str]:
    """How many, how large, which; those that were left out by name."""
    pictures, recipe = facts.pictures, facts.recipe
    rows = [
        ["pictures", f"{pictures.count:,}"],
        ["megapixels", f"{pictures.pixels / 1e6:,.1f}"],
        ["hash of their values", quote_code(pictures.fingerprint)],
        ["skipped: unreadable, or the same as another", f"{len(pictures.skipped):,}"],
        [
            "found in",
            ", ".join(quote_code(show_path(path)) for path in pictures.folders),
        ],
        ["the recipe was made for", recipe.data],
        ["their terms", recipe.data_licence],
    ]
    for teacher in pictures.teachers:
        scales = join_words([f"x{scale}" for scale in teacher.scales])
        words = f"{quote_code(teacher.file)}, SHA-256 {quote_code(teacher.sha256)}"
        rows.append([f"teacher at {scales}", f"{words}, terms: {teacher.licence}"])
    if pictures.held_out:
        names = [quote_code(show_path(path)) for path in pictures.held_out]
        rows.append(["held out for validation", ", ".join(names)])
    lines = ["## Data", "", *format_table(["what", "value"], rows)]
    if pictures.skipped:
        lines += ["", "Skipped:", ""]
        names = [show_path(path) for path in pictures.skipped[:_NAMED]]
        lines += [f"- {quote_code(name)}" for name in names]
        if len(pictures.skipped) > _NAMED:
            lines.append(f"- and {len(pictures.skipped) - _NAMED:,} more")
    return lines


def _describe_machine(facts: RunFacts) -> list[str]:
    several = f", {facts.devices} processes" if facts.devices > 1 else ""
    rows = [["trained on", f"{facts.device}{several}, {facts.precision}"]]
    rows += [[name, value] for name, value in describe_machine(facts.device).items()]
    return ["## Machine", "", *format_table(["what", "value"], rows)]
