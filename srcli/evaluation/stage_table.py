"""What each stage of a network adds: the lines of it, and the table on screen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srcli.evaluation.benchmark import Row
from srcli.evaluation.picture import PictureResult
from srcli.evaluation.table import format_fixed, name_group, name_model, widen
from srcli.pretrained.catalog import BICUBIC

# What stands above the figures, and where there is room, as in a file.
_HEADS = {
    "PSNR": "PSNR",
    "gain": "Gain over the line above",
    "SSIM": "SSIM",
    "weight": "Weight",
}
_PSNR_DIGITS = 3  # one more than the papers print: late stages add little
_SSIM_DIGITS = 4
_WEIGHT_DIGITS = 3


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage's figures as text.

    Attributes:
        name: Of the stage, or bicubic's.
        figures: Under `list_heads`: PSNR in dB, its gain over the line before (of the
            same picture), SSIM, weight. Bicubic, the first line, has no gain. Weights
            are the network's: bicubic and pictures have none.
        image: The picture; none for the means.
    """

    name: str
    figures: tuple[str, ...]
    image: str = ""


def have_stages(rows: Sequence[Row]) -> bool:
    """Whether there is something to show: where it was asked for, there always is."""
    return any(row.stage_names for row in rows)


def have_weights(rows: Sequence[Row]) -> bool:
    """Whether a network sums its stages up by weights."""
    return any(row.stage_weights for row in rows)


def list_heads(rows: Sequence[Row]) -> dict[str, str]:
    """What stands above the figures on screen, and what above the same in a file."""
    weighted = have_weights(rows)
    return {
        head: title for head, title in _HEADS.items() if weighted or head != "weight"
    }


def list_stages(
    rows: Sequence[Row], *, per_image: bool = False
) -> Iterator[tuple[Row, list[StageLine]]]:
    """Every row that has stages, with its lines: bicubic, then stage by stage.

    Args:
        rows: What was measured.
        per_image: Have a line for each picture too, below that of the means.
    """
    columns = len(list_heads(rows))
    for _, group in groupby(rows, name_group):
        together = list(group)
        bicubic = next((row for row in together if row.model == BICUBIC), None)
        for row in together:
            if row.stage_names:
                yield row, _list_lines(row, bicubic, per_image, columns)


def print_stages(
    console: Console, rows: Sequence[Row], *, per_image: bool = False
) -> None:
    """Print the stages of every row that has some.

    Args:
        console: Of any width; lines longer than that run over its edge.
        rows: What was measured.
        per_image: Show every picture's figures below those of the stage.
    """
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("stage", no_wrap=True)
    for head in list_heads(rows):
        table.add_column(head, justify="right", no_wrap=True)
    for row, lines in list_stages(rows, per_image=per_image):
        table.add_row(Text(f"{name_group(row)} {name_model(row)}", "bold"))
        for line in lines:
            name = f"    {line.image}" if line.image else f"  {line.name}"
            style = "dim" if line.image else None
            table.add_row(*map(Text, (name, *line.figures)), style=style)
        table.add_section()
    widen(console, table)
    console.print(table, crop=False)


def _list_lines(
    row: Row, bicubic: Row | None, per_image: bool, columns: int
) -> list[StageLine]:
    """Bicubic's line and those of the stages, each with those of the pictures."""
    figures = {"": _list_figures(row, bicubic)}
    if per_image:
        others = bicubic.pictures if bicubic else [None] * len(row.pictures)
        figures |= {
            picture.image: _list_figures(picture, other)
            for picture, other in zip(row.pictures, others, strict=True)
        }
    names = (*([name_model(bicubic)] if bicubic else []), *row.stage_names)
    return [
        StageLine(name, known[index][:columns], image)
        for index, name in enumerate(names)
        for image, known in figures.items()
    ]


def _list_figures(
    measured: Row | PictureResult, bicubic: Row | PictureResult | None
) -> list[tuple[str, ...]]:
    """PSNR, gain, SSIM and weight of bicubic, if it is there, and of every stage."""
    known = (*([bicubic] if bicubic else []), *measured.stages)
    psnrs = [format_fixed(each.psnr, _PSNR_DIGITS) for each in known]
    # Of the figures as shown, so that the table agrees with itself.
    gains = ["", *(_subtract(after, before) for before, after in pairwise(psnrs))]
    ssims = [format_fixed(each.ssim, _SSIM_DIGITS) for each in known]
    known_weights = measured.stage_weights if isinstance(measured, Row) else ()
    weights = [""] * (len(known) - len(known_weights))
    weights += [format_fixed(weight, _WEIGHT_DIGITS, "+") for weight in known_weights]
    return list(zip(psnrs, gains, ssims, weights, strict=True))


def _subtract(after: str, before: str) -> str:
    """The gain; nothing where both are infinite."""
    gain = float(after) - float(before)
    return "" if math.isnan(gain) else format_fixed(gain, _PSNR_DIGITS, "+")
