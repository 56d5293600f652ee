"""A run's report: `report.md`, and its curves as `curves.png`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from srcli import __version__
from srcli.errors import SrcliError
from srcli.evaluation.measurement import Row
from srcli.evaluation.tables import (
    format_command,
    format_markdown,
    format_table,
    name_group,
    quote_code,
)
from srcli.inference.device import describe_machine
from srcli.pretrained.catalog import BICUBIC
from srcli.storage import quote_path, show_path
from srcli.training.checkpoint import DEFAULT_VAL, HELD_OUT, NO_VAL, TrainRequest
from srcli.training.export import make_request
from srcli.training.log import History, read_history
from srcli.training.loop import Trainer
from srcli.training.recipe import load_recipe
from srcli.units import format_duration, join_words
from srcli.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "report.md"
CURVES = "curves.png"
_ROWS = 12  # of the table of validations
_NAMED = 5  # skipped pictures and events that are listed

# Told apart with any kind of colour vision (Okabe and Ito, "Color Universal Design").
_BLUE, _ORANGE, _RED = "#0072B2", "#E69F00", "#D55E00"
_BY_SCALE = {2: _BLUE, 3: "#009E73", 4: "#CC79A7"}
_STYLE = {
    "font.size": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "text.parse_math": False,
}


def write_report(
    request: TrainRequest,
    trainer: Trainer,
    folders: Sequence[Path],
    precision: str,
    weights: Path | None = None,
    rows: Sequence[Row] = (),
) -> None:
    """Write `report.md` and `curves.png` into a run's folder.

    `folders` are where its pictures came from, `weights` the file that stands for the
    run, `rows` what was measured of it, beside bicubic; None and none: nothing yet.

    Raises:
        InputError: If the log cannot be read.
        OutputError: If a file cannot be written.
    """
    history = read_history(request.out)
    _draw_curves(request.out, history, trainer.recipe.model)
    measure = ""
    if weights is not None:
        named = request.val not in (None, NO_VAL, HELD_OUT)
        val = str(request.val) if named else DEFAULT_VAL
        device = str(trainer.sampler.device)
        measure = format_command(
            make_request(weights, trainer.recipe, (val,), None, device)
        )
    lines = _summarise(request, trainer, history, "" if rows else measure)
    lines += ["", "## Against the paper", ""]
    if rows and weights is not None:
        lines += _compare(trainer, weights, rows, measure)
    else:
        lines.append(
            "Not measured: the run was interrupted, is one of a study, or validated on "
            "no published set."
        )
    lines += ["", "## Course", "", *_tell_course(trainer, history)]
    lines += ["", "## What was trained, on what", ""]
    facts = _describe_run(request, trainer, folders, precision)
    lines += format_table(["what", "value"], facts)
    with write_whole(request.out / NAME) as part:
        # Names of files may hold bytes that are no text.
        text = "\n".join(lines) + "\n"
        part.write_text(text, "utf-8", errors="backslashreplace", newline="\n")


def _summarise(
    request: TrainRequest, trainer: Trainer, history: History, measure: str
) -> list[str]:
    """What was run, what it came to, and how to go on."""
    recipe, scales = trainer.recipe, [f"x{scale}" for scale in trainer.recipe.scales]
    kind = "" if recipe.degradation == "bi" else f", degradation {recipe.degradation}"
    planned = f"all {trainer.step:,}" if trainer.finished else f"{trainer.step:,}"
    if recipe.minutes:
        of = f" within {format_duration(60 * recipe.minutes)} that it has"
    else:
        of = "" if trainer.step >= recipe.steps else f" of {recipe.steps:,}"
    end = ""
    if not trainer.finished:
        end = "; there it was stopped"
    elif trainer.plateau.is_over:
        planned, end = f"{trainer.step:,}", "; there its plateau schedule ended"
    lines = [
        f"# {recipe.model} at {join_words(scales)}{kind}",
        "",
        f"`srcli train` {__version__} took {planned} steps{of}, in "
        f"{format_duration(trainer.seconds)} of wall-clock{end}.",
    ]
    if history.seconds_per_step is not None:
        share = history.data_share
        drawn = "" if share is None else f", {share:.1%} of it for the crops"
        lines.append(f"A step took {history.seconds_per_step:.3g} s (median){drawn}.")
    if trainer.best:
        where = quote_code(show_path(request.val or DEFAULT_VAL))
        if request.val == HELD_OUT:
            where = "the held-out pictures"
        parts = [f"{name} {psnr:.3f}" for name, psnr in trainer.best.items()]
        lines.append(
            f"Best validation on {where}, at step {trainer.best_step:,}: "
            f"{', '.join(parts)} (PSNR in dB)."
        )
    else:
        lines.append("It was not validated: no step is known to be the best.")
    again = f"srcli train -m {recipe.model} --resume --out {quote_path(request.out)}"
    if trainer.finished and not trainer.plateau.is_over:
        hours = f"--for {2 * recipe.minutes:g}m"
        again += f" {hours if recipe.minutes else f'--steps {2 * recipe.steps}'}"
    commands = [command for command in (again, measure) if command]
    return [*lines, "", "To go on with it:", "", "```sh", *commands, "```"]


def _compare(
    trainer: Trainer, weights: Path, rows: Sequence[Row], measure: str
) -> list[str]:
    """The table of the benchmark, and what it does not say itself."""
    recipe = trainer.recipe
    lines = [
        f"{quote_code(weights.name)} in fp32, beside bicubic and what papers print. A "
        "difference is the measured figure less the printed one; PSNR is in dB.",
        "",
        *format_markdown(rows, measure).splitlines(),
        "",
    ]
    alone = [name_group(r) for r in rows if r.model != BICUBIC and r.paper is None]
    if alone:
        lines.append(
            f"No paper prints figures of {recipe.model} on {join_words(alone)}."
        )
    if recipe.config:
        changed = quote_code(str(recipe.config))
        lines.append(f"The network is not {recipe.model} as published: {changed}.")
    if trainer.best:
        lines.append(
            "The weights were chosen by their PSNR on the validation set, which "
            "flatters them a little there."
        )
    return lines


def _tell_course(trainer: Trainer, history: History) -> list[str]:
    """The curves, the validations as a table, and the events."""
    lines = (
        [f"![curves]({CURVES})", ""] if history.losses or history.validations else []
    )
    steps = list(history.validations or history.losses)
    if len(steps) > _ROWS:
        spread = np.linspace(0, len(steps) - 1, _ROWS - 1).round().astype(int)
        steps = sorted({steps[n] for n in spread} | ({trainer.best_step} & {*steps}))
    table = []
    for step in steps:
        psnr = history.validations.get(step, {})
        row = [f"{step:,}", _at(history.losses, step), _at(history.rates, step)]
        row += [f"{psnr[s]:.3f}" if s in psnr else "" for s in history.scales]
        best = psnr and step == trainer.best_step
        table.append([f"**{cell}**" if cell and best else cell for cell in row])
    if table:
        scales = [f"x{scale} (dB)" for scale in history.scales]
        lines += format_table(["step", "loss", "learning rate", *scales], table)
    else:
        lines.append("The log holds no figures: the run was too short for any.")
    if history.events:
        lines += ["", "What happened besides:", ""]
    lines += [f"- step {step:,}: {text}" for step, text in history.events[-20:]]
    return lines


def _at(figures: Mapping[int, float], step: int) -> str:
    """The last figure up to a step; nothing where there is none."""
    known = list(figures)
    place = bisect_right(known, step)
    return f"{figures[known[place - 1]]:.4g}" if place else ""


def _describe_run(
    request: TrainRequest, trainer: Trainer, folders: Sequence[Path], precision: str
) -> list[list[str]]:
    """Recipe, pictures, teachers and machine, as rows of a table."""
    recipe, sampler = trainer.recipe, trainer.sampler
    values = named = recipe.as_dict()
    with suppress(SrcliError):  # a file that has gone since
        named = load_recipe(recipe.model, request.recipe).as_dict()
    changed = [f"{name} = {v!r}" for name, v in values.items() if v != named[name]]
    with_changes = f"; changed: {quote_code(', '.join(changed))}" if changed else ""
    skipped = [quote_code(show_path(path)) for path in sampler.skipped[:_NAMED]]
    if len(sampler.skipped) > _NAMED:
        skipped.append(f"{len(sampler.skipped) - _NAMED:,} more")
    world = trainer.world
    several = f", {world.size} processes" if world.size > 1 else ""
    rows = [
        ["recipe", f"{quote_code(request.recipe)}, all in `recipe.json`{with_changes}"],
        ["pictures", f"{sampler.count:,}, {sampler.pixels / 1e6:,.1f} megapixels"],
        ["hash of their values", quote_code(sampler.fingerprint)],
        ["found in", ", ".join(quote_code(show_path(path)) for path in folders)],
        ["skipped: unreadable, or the same as another", join_words(skipped) or "none"],
        ["the recipe was made for", f"{recipe.data}; terms: {recipe.data_licence}"],
    ]
    for teacher in trainer.taught_by:
        scales = join_words([f"x{scale}" for scale in teacher.scales])
        words = f"{quote_code(teacher.file)}, SHA-256 {quote_code(teacher.sha256)}"
        rows.append([f"teacher at {scales}", f"{words}, terms: {teacher.licence}"])
    if sampler.held_out:
        names = [quote_code(show_path(path)) for path in sampler.held_out.values()]
        rows.append(["held out for validation", join_words(names)])
    rows.append(["trained on", f"{sampler.device}{several}, {precision}"])
    machine = describe_machine(sampler.device)
    return rows + [[name, value] for name, value in machine.items()]


def _draw_curves(folder: Path, history: History, model: str) -> None:
    """Loss, rate and PSNR at each scale, one above the other; none of an empty log."""
    if not (history.losses or history.validations):
        return
    # Slow to load, and only drawing needs it.
    from matplotlib import style  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = [
        ("Training loss", _BLUE, history.losses),
        ("Learning rate", _ORANGE, history.rates),
    ]
    for scale in history.scales:
        psnr = {n: of[scale] for n, of in history.validations.items() if scale in of}
        color = _BY_SCALE.get(scale, _ORANGE)
        panels.append((f"PSNR at x{scale} (dB)", color, psnr))
    # Whatever settings the user has for other work: the same picture everywhere.
    with style.context(["default", _STYLE]):
        figure = Figure((11, 2.8 * len(panels)), dpi=120, layout="constrained")
        figure.suptitle(f"{model}: {history.last_step:,} steps", fontweight="bold")
        for axes, panel in zip(figure.subplots(len(panels)), panels, strict=True):
            _draw_panel(axes, *panel, history)
        with write_whole(folder / CURVES) as part:
            figure.savefig(part, format="png")  # with Agg, whatever screen there is


def _draw_panel(
    axes: Axes, title: str, color: str, figures: dict[int, float], history: History
) -> None:
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - slow, as above

    values, marker = [*figures.values()], "o" if len(figures) < 30 else ""
    axes.plot([*figures], values, color=color, marker=marker, markersize=4)
    axes.set_title(title)
    axes.set_xlim(0, max(1, history.last_step) * 1.02)
    axes.set_xlabel("step")
    for step, _ in history.events:
        axes.axvline(step, color="#333333", linestyle="--", linewidth=1)
    best = history.best_step
    if figures is history.losses:
        window = max(1, len(values) // 20)
        if window > 1:  # enough for a mean that tells more than the points
            axes.lines[0].set_alpha(0.35)
            mean = [
                np.convolve(of, np.ones(window) / window, "valid")
                for of in ([*figures], values)
            ]
            axes.plot(*mean, color=color, linewidth=2.2, label="mean")
            axes.legend()
        if figures and min(values) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter("{x:g}")
    elif figures is not history.rates and values:
        # What a run gains late is small beside its first validations.
        top, low = max(values), min(values)
        bottom = max(low, top - max(8 * (top - median(values)), 0.2))
        axes.set_ylim(bottom - 0.05, top + 0.06 * (top - bottom) + 0.05)
        if best in figures:  # the best on all scales
            label = f"best: {figures[best]:.2f}"
            axes.plot(best, figures[best], "*", color=_RED, markersize=15, label=label)
            axes.legend(loc="lower right")
