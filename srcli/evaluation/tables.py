"""A benchmark's rows on screen and as JSON, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from srcli import __version__
from srcli.errors import OutputError, UsageError
from srcli.evaluation.contenders import DEFAULT_MODEL, Engine
from srcli.evaluation.measurement import (
    BenchmarkRequest,
    Metric,
    PictureResult,
    Row,
    StageResult,
)
from srcli.pretrained.catalog import BICUBIC
from srcli.storage import quote_path, show_message
from srcli.writing import write_whole

_DIGITS: dict[Metric, int] = {"psnr": 2, "ssim": 4, "ifc": 3}  # as the papers print
# What a narrow terminal does without, one after the other: a column, then space between
# columns. The files have it all.
_FITTINGS = (
    ("", 1),
    ("source", 1),
    ("", 0),
    *((name, 0) for name in ("macs", "parameters", "ifc paper", "ifc difference")),
    ("seconds", 0),
)
_WIDE = 200  # columns, where the output is no terminal

_UNITS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3))


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a row as text.

    Attributes:
        name: Unlike any other column's, short.
        head: What stands above it on screen.
        title: What stands above it where there is room, as in a file.
        text: The figure of a row; an empty text where there is none.
        of_picture: The figure of one picture.
        left: Whether it is aligned left, as text is.
    """

    name: str
    head: str
    title: str
    text: Callable[[Row], str]
    of_picture: Callable[[PictureResult], str] = lambda _: ""
    left: bool = False


def name_model(row: Row) -> str:
    """The model with its protocol; + stands for the self-ensemble, as in the papers."""
    return f"{row.model}{'+' if row.ensemble else ''} ({row.protocol})"


def name_set(row: Row) -> str:
    """The data set, with the degradation unless it is bicubic."""
    return (
        row.dataset if row.degradation == "bi" else f"{row.dataset} {row.degradation}"
    )


def name_group(row: Row) -> str:
    """Rows of one data set and scale stand together under this name."""
    return f"{name_set(row)} x{row.scale}"


LABELS = (
    Column("set", "set", "Set", name_set, left=True),
    Column("scale", "scale", "Scale", lambda row: f"x{row.scale}", left=True),
    Column("model", "model", "Model", name_model, left=True),
)


def list_columns(rows: Sequence[Row]) -> list[Column]:
    """Every column of figures that has something to show for one of the rows."""
    measured = [m for m in _DIGITS if any(getattr(row, m) is not None for row in rows)]
    columns = [column for metric in measured for column in _list_metric(metric)]
    columns += [
        Column(
            "parameters",
            "params",
            "Parameters",
            lambda row: _format_quantity(row.parameters, 3),
        ),
        Column(
            "macs",
            "MACs",
            "MACs (720p)",
            lambda row: _format_quantity(row.macs_720p, 4),
        ),
        Column(
            "seconds",
            "s/pic",
            "Seconds/picture",
            lambda row: _format_seconds(row.seconds),
            lambda picture: _format_seconds(picture.seconds),
        ),
        Column(
            "source",
            "source",
            "Source",
            lambda row: row.paper.source if row.paper else "",
            left=True,
        ),
    ]
    return [column for column in columns if any(column.text(row) for row in rows)]


def format_line(row: Row) -> str:
    """A row in one line, for the log of a long run."""
    figures = f"{format_fixed(row.psnr, 2)} dB, SSIM {format_fixed(row.ssim, 4)}"
    return f"{name_group(row)} {name_model(row)}: {figures}"


def print_table(
    console: Console, rows: Sequence[Row], *, per_image: bool = False
) -> None:
    """Print the table, with as many columns as the console has room for.

    Figures are never cut: on a very narrow console lines run over its edge.

    Args:
        console: Of any width; a file or pipe gets every column.
        rows: What was measured.
        per_image: Show every picture's figures below the model's.
    """
    room = console.width if console.is_terminal else _WIDE
    columns = list_columns(rows)
    for dropped, padding in _FITTINGS:
        columns = [column for column in columns if column.name != dropped]
        table = _build_table(rows, columns, padding, per_image)
        if widen(console, table) <= room:
            break
    console.print(table, crop=False)
    if "source" not in [column.name for column in columns]:
        sources = dict.fromkeys(row.paper.source for row in rows if row.paper)
        if sources:
            console.print("paper:", "; ".join(sources), markup=False, highlight=False)


def widen(console: Console, table: Table) -> int:
    """Give a table the width that it needs, whatever room there is; that width."""
    unbound = console.options.update(width=_WIDE)
    table.width = Measurement.get(console, unbound, table).maximum
    return table.width


def _build_table(
    rows: Sequence[Row], columns: Sequence[Column], padding: int, per_image: bool
) -> Table:
    """The table with just these columns, the models grouped by data set and scale."""
    table = Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding, 0, 0)
    )
    table.add_column("model", no_wrap=True)
    for column in columns:
        table.add_column(
            column.head, justify="left" if column.left else "right", no_wrap=True
        )
    for title, group in groupby(rows, name_group):
        table.add_row(Text(title, "bold"))
        for row in group:
            cells = [Text(column.text(row)) for column in columns]
            table.add_row(Text(f"  {name_model(row)}"), *cells)
            for picture in row.pictures if per_image else ():
                cells = [Text(column.of_picture(picture)) for column in columns]
                table.add_row(Text(f"    {picture.image}"), *cells, style="dim")
        table.add_section()
    return table


def _list_metric(metric: Metric) -> tuple[Column, Column, Column]:
    """Ours, the paper's and the difference of one metric."""
    title, digits = metric.upper(), _DIGITS[metric]

    def ours(measured: Row | PictureResult) -> str:
        return format_fixed(getattr(measured, metric), digits)

    def theirs(row: Row) -> str:
        return format_fixed(getattr(row.paper, metric, None), digits)

    def gap(row: Row) -> str:
        if row.difference(metric) is None:
            return ""
        # Of the figures as shown, so that the table agrees with itself.
        return format_fixed(float(ours(row)) - float(theirs(row)), digits, "+")

    return (
        Column(metric, title, title, ours, ours),
        Column(f"{metric} paper", "paper", f"{title}, paper", theirs),
        Column(f"{metric} difference", "diff", f"{title}, difference", gap),
    )


def format_fixed(value: float | None, digits: int, sign: str = "") -> str:
    """`value` with so many decimals; nothing for None."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def _format_quantity(value: float | None, digits: int) -> str:
    """`value` with a unit and so many significant digits: 1.06M, 776.5G."""
    if value is None:
        return ""
    for unit, size in _UNITS:
        if value >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def _format_seconds(value: float) -> str:
    """Seconds in five characters, up to a day."""
    decimals = next(
        (n for n, limit in ((3, 0.1), (2, 10), (1, 100)) if value < limit), 0
    )
    return f"{value:.{decimals}f}"


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


Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table.

    Attributes:
        titles: Above the columns.
        left: Whether each column is aligned left, as text is.
        groups: Its lines, as they stand together.
    """

    titles: Cells
    left: tuple[bool, ...]
    groups: tuple[tuple[Cells, ...], ...]


def list_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """The table of the rows and, where there are some, that of their stages."""
    sheets = [_list_rows(rows)]
    if have_stages(rows):
        sheets.append(_list_stages(rows))
    return sheets


def _list_rows(rows: Sequence[Row]) -> Sheet:
    """The main table, in groups of one data set and scale."""
    columns = [*LABELS, *list_columns(rows)]
    return Sheet(
        tuple(column.title for column in columns),
        tuple(column.left for column in columns),
        tuple(
            tuple(tuple(column.text(row) for column in columns) for row in group)
            for _, group in groupby(rows, name_group)
        ),
    )


def _list_stages(rows: Sequence[Row]) -> Sheet:
    """The table of stages, in groups of one row."""
    labels = (*(label.title for label in LABELS), "Stage")
    titles = list_heads(rows).values()
    return Sheet(
        (*labels, *titles),
        (*(True for _ in labels), *(False for _ in titles)),
        tuple(
            tuple(
                (*(label.text(row) for label in LABELS), line.name, *line.figures)
                for line in lines
            )
            for row, lines in list_stages(rows)
        ),
    )


METRICS: tuple[Metric, ...] = get_args(Metric)
_PRECISION = 6  # decimals of the figures in JSON and CSV

_CSV_FIELDS = (
    *("dataset", "scale", "degradation", "protocol", "model", "ensemble", "image"),
    *("device", "precision"),
    *("images", *METRICS, "seconds"),
    *(f"paper_{name}" for name in (*METRICS, "source")),
    *(f"difference_{metric}" for metric in METRICS),
    *("parameters", "macs_720p"),
)
_STAGE_FIELDS = ("stage", "stage_name")  # where stages were asked for
_WEIGHT_FIELDS = ("weight",)  # where one of them has a weight
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
}


def format_command(request: BenchmarkRequest) -> str:
    """The command line that measures the same again.

    Options that only say where files lie or go are left out.
    """
    chosen, engine, usual = request.selection, request.engine, Engine()
    models = chosen.models or (() if chosen.weights else (DEFAULT_MODEL,))
    words = ["srcli", "benchmark"]
    words += [word for name in request.datasets for word in ("-d", name)]
    words += [word for name in models for word in ("-m", name)]
    if chosen.scales is not None:
        words += ["-x", ",".join(str(scale) for scale in chosen.scales)]
    # A weight file brings its own degradation, which need not be the one measured.
    usual_degradation = "bi" if chosen.weights is None else None
    settings: tuple[tuple[str, object, object], ...] = (
        ("--degradation", chosen.degradation, usual_degradation),
        ("--protocol", chosen.protocol, "auto"),
        ("--weights", chosen.weights, None),
        ("--seed", request.seed, 0),
        ("--device", engine.device, usual.device),
        ("--precision", engine.precision, usual.precision),
        ("--tile", engine.tile, usual.tile),
        ("--tile-overlap", engine.overlap, usual.overlap),
    )
    for option, value, default in settings:
        if value != default:
            words += [option, str(value)]
    flags = {
        "--ensemble": engine.ensemble,
        "--stages": request.stages,
        "--ifc": request.ifc,
        "--gray-as-rgb": request.gray_as_rgb,
    }
    words += [flag for flag, given in flags.items() if given]
    return " ".join(map(quote_path, words))


def build_document(
    rows: Sequence[Row], command: str, *, per_image: bool = False
) -> dict[str, Any]:
    """The JSON document; figures that are unknown or not finite are None.

    Where one of the rows has stages all have that key.

    Args:
        rows: What was measured.
        command: The command line that measures it again (`format_command`).
        per_image: Include every picture's figures.
    """
    return {
        "srcli": __version__,
        "command": command,
        "rows": [_describe_row(row, per_image, have_stages(rows)) for row in rows],
    }


def format_csv(rows: Sequence[Row], *, per_image: bool = False) -> str:
    """A table for programs: one line for each row and, if asked, for each picture.

    Lines of pictures have a name in the column `image`; those of rows have none. Where
    a row has stages, the line of each follows that of its row or picture, with its
    number in the column `stage` and its name in `stage_name`; where a network weighs
    its stages there is a column `weight`.
    """
    text = io.StringIO()
    staged = have_stages(rows)
    fields = (*_CSV_FIELDS, *(_STAGE_FIELDS if staged else ()))
    fields += _WEIGHT_FIELDS if have_weights(rows) else ()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerows(_list_csv_lines(row, per_image, staged))
    return text.getvalue()


def format_markdown(rows: Sequence[Row], command: str) -> str:
    """A table for a README, below the command line that measures it again.

    Stages have a table of their own below it.
    """
    lines = ["```sh", command, "```"]
    for sheet in list_sheets(rows):
        lines += ["", _join_markdown(sheet.titles)]
        lines.append(_join_markdown("---" if left else "---:" for left in sheet.left))
        lines += [_join_markdown(cells) for group in sheet.groups for cells in group]
    return "\n".join(lines) + "\n"


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; a row that is too short ends in empty cells."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        # A backslash stays: in code it is one.
        cells = [cell.replace("|", "\\|") for cell in row]
        cells += [""] * (len(head) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def quote_code(text: str) -> str:
    """`text` as Markdown's code on one line, whatever it holds."""
    line = show_message(text)
    if "`" in line:
        return f"`` {line} ``"
    return f"`{line}`" if line else ""


def format_latex(rows: Sequence[Row], command: str) -> str:
    r"""A `tabular` with the rules of `\usepackage{booktabs}`; stages have a second."""
    lines = ["% " + " ".join(command.split())]
    for sheet in list_sheets(rows):
        alignment = "".join("l" if left else "r" for left in sheet.left)
        lines.append(rf"\begin{{tabular}}{{{alignment}}}")
        lines += [r"\toprule", _join_latex(sheet.titles)]
        for group in sheet.groups:
            lines.append(r"\midrule")
            lines += [_join_latex(cells) for cells in group]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def check_reports(paths: Iterable[Path | None], overwrite: bool) -> None:
    """Refuse report files that cannot be written, before anything is measured.

    Args:
        paths: Files; None is left out.
        overwrite: Whether existing ones may be replaced.

    Raises:
        UsageError: If a file is named twice.
        OutputError: If a file exists and may not be replaced, or its folder cannot be
            written to.
    """
    seen = set()
    for path in paths:
        if path is None:
            continue
        if path.resolve() in seen:
            raise UsageError(f"{path} is named for two reports: give each its own file")
        seen.add(path.resolve())
        if path.is_dir():
            raise OutputError(f"{path} is a folder: name a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists: use --overwrite or another name")
        if not path.parent.is_dir():
            raise OutputError(f"{path.parent} is no folder: make it first")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(f"{path.parent} is not writable: choose another folder")


def write_report(text: str, path: Path) -> None:
    """Write a report; the file appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with write_whole(path) as part:
        part.write_text(text, "utf-8", newline="")


def _round_finite(value: float | None) -> float | None:
    """`value` rounded; None if it is missing or, which JSON lacks, not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(value, _PRECISION)


def _describe_figures(measured: Row | PictureResult) -> dict[str, float | None]:
    """The measured figures of a row or of one picture."""
    names = (*METRICS, "seconds")
    return {name: _round_finite(getattr(measured, name)) for name in names}


def _describe_stages(row: Row, stages: Sequence[StageResult]) -> list[dict[str, Any]]:
    """The stages of a row or of one of its pictures, as JSON has them."""
    weights = [{"weight": _round_finite(weight)} for weight in row.stage_weights]
    return [
        {
            "stage": number,
            "name": name,
            "psnr": _round_finite(stage.psnr),
            "ssim": _round_finite(stage.ssim),
            **weight,
        }
        for number, (name, stage, weight) in enumerate(
            zip(row.stage_names, stages, weights or [{}] * len(stages), strict=True),
            start=1,
        )
    ]


def _describe_row(row: Row, per_image: bool, staged: bool) -> dict[str, Any]:
    """A row of the JSON document."""

    def describe(measured: Row | PictureResult) -> dict[str, Any]:
        stages = _describe_stages(row, measured.stages)
        return _describe_figures(measured) | ({"stages": stages} if staged else {})

    paper = difference = None
    if row.paper is not None:
        names = (*METRICS, "source", "note")
        paper = {name: getattr(row.paper, name) for name in names}
        difference = {
            metric: _round_finite(row.difference(metric)) for metric in METRICS
        }
    described: dict[str, Any] = {
        "dataset": row.dataset,
        "scale": row.scale,
        "degradation": row.degradation,
        "protocol": row.protocol,
        "model": row.model,
        "ensemble": row.ensemble,
        "device": row.device,
        "precision": row.precision,
        "images": len(row.pictures),
        **describe(row),
        "paper": paper,
        "difference": difference,
        "parameters": row.parameters,
        "macs_720p": row.macs_720p,
    }
    if per_image:
        described["per_image"] = [
            {"image": picture.image, **describe(picture)} for picture in row.pictures
        ]
    return described


def _list_csv_lines(row: Row, per_image: bool, staged: bool) -> list[dict[str, Any]]:
    """The line of a row, then those of its pictures, each with its stages after it."""
    described = _describe_row(row, per_image, staged)
    pictures = described.pop("per_image", ())
    for group in ("paper", "difference"):
        for name, value in (described.pop(group) or {}).items():
            described[f"{group}_{name}"] = value
    described.pop("paper_note", None)
    kept = ("dataset", "scale", "degradation", "protocol", "model", "ensemble")
    shared = {name: described[name] for name in kept}
    lines = []
    for line in (described, *({**shared, **picture} for picture in pictures)):
        stages = line.pop("stages", ())
        whose = {**shared, "image": line.get("image")}
        lines.append(line)
        lines += [
            {**whose, "stage_name": stage.pop("name"), **stage} for stage in stages
        ]
    return lines


def _join_markdown(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    escaped = (cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _join_latex(cells: Iterable[str]) -> str:
    """One line of a LaTeX table; a sign before a digit is set as a minus or plus."""
    return " & ".join(_escape_latex(cell) for cell in cells) + r" \\"


def _escape_latex(text: str) -> str:
    """`text` as LaTeX sets it literally, with a real minus sign."""
    if text[:1] in ("+", "-") and text[1:2].isdigit():
        return f"${text}$"
    return "".join(_LATEX.get(character, character) for character in text)
