"""A benchmark's rows as tables on screen, in Markdown and in LaTeX, as CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import rich.table
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from srcli import __version__
from srcli.errors import OutputError, UsageError
from srcli.evaluation.contenders import DEFAULT_MODEL, Engine
from srcli.evaluation.measurement import BenchmarkRequest, Metric, PictureResult, Row
from srcli.storage import quote_path, show_message
from srcli.writing import write_whole

_Cells = dict[str, str]  # texts by the titles of their columns

METRICS: dict[Metric, int] = {"psnr": 2, "ssim": 4, "ifc": 3}  # decimals, as printed
_STAGE_PSNR = 3  # decimals; one more, as late stages add little
_PRECISION = 6  # decimals of the figures in JSON and CSV
_WIDE = 200  # columns, where the output is no terminal
_KEYS = ("dataset", "scale", "degradation", "protocol", "model", "ensemble")
_CSV_FIELDS = (
    *(*_KEYS, "image", "device", "precision", "images", *METRICS, "seconds"),
    *(f"paper_{name}" for name in (*METRICS, "source")),
    *(f"difference_{metric}" for metric in METRICS),
    *("parameters", "macs_720p"),
)
_LATEX = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
})  # fmt: skip


class Column(NamedTuple):
    """A column of a table."""

    title: str  # in files, unlike any other of the table
    head: str = ""  # on screen; a column without one is for files only
    left: bool = False  # aligned left, as text is


_LABELS = (
    Column("Set", left=True),
    Column("Scale", left=True),
    Column("Model", "model", left=True),
)
_COLUMNS = (
    *_LABELS,
    *(
        Column(f"{metric.upper()}{what}", head or metric.upper())
        for metric in METRICS
        for what, head in (("", ""), (", paper", "paper"), (", difference", "diff"))
    ),
    Column("Parameters", "params"),
    Column("MACs (720p)", "MACs"),
    Column("Seconds/picture", "s/pic"),
    Column("Source", "source", left=True),
)
_STAGE_COLUMNS = (
    *(label._replace(head="") for label in _LABELS),
    Column("Stage", "stage", left=True),
    Column("PSNR", "PSNR"),
    Column("Gain over the line above", "gain"),
    Column("SSIM", "SSIM"),
    Column("Weight", "weight"),
)
# What a narrow terminal does without, one after the other. The files have it all.
_SPARED = ("Source", "MACs (720p)", "Parameters", "IFC, paper", "IFC, difference",
           "Seconds/picture")  # fmt: skip


class Table:
    """A table of text, without the columns that have nothing to show.

    Args:
        columns: Of which the first with a head names the lines on screen.
        groups: Lines that stand together, cells by title, below what stands above them
            on screen. Lines of pictures have their name indented.
    """

    def __init__(
        self, columns: Sequence[Column], groups: Sequence[tuple[str, Sequence[_Cells]]]
    ) -> None:
        lines = [cells for _, group in groups for cells in group]
        self.columns = [c for c in columns if any(cells[c.title] for cells in lines)]
        self.groups = groups
        # As files have it: titles, whether columns are aligned left, lines by group.
        self.titles = [column.title for column in self.columns]
        self.left = [column.left for column in self.columns]
        self.bodies = [
            [[cells[title] for title in self.titles] for cells in group]
            for _, group in groups
        ]


def list_tables(rows: Sequence[Row], *, per_image: bool = False) -> list[Table]:
    """The table of the rows and, where networks have stages, that of the stages.

    Of each set and scale the first row is bicubic's, as `run_benchmark` gives them.
    """
    by_set, by_row = [], []
    for title, group in groupby(rows, name_group):
        together = list(group)
        lines = []
        for row in together:
            lines.append(_label(row) | _list_cells(row))
            for picture in row.pictures if per_image else ():
                name = {"Model": f"  {picture.image}"}
                lines.append(_label(row) | _list_cells(picture) | name)
            if row.stage_names:
                stages = _list_stages(row, together[0], per_image)
                by_row.append((f"{title} {name_model(row)}", stages))
        by_set.append((title, lines))
    tables = [Table(_COLUMNS, by_set)]
    return [*tables, Table(_STAGE_COLUMNS, by_row)] if by_row else tables


def name_model(row: Row) -> str:
    """The model with its protocol; + stands for the self-ensemble, as in the papers."""
    return f"{row.model}{'+' if row.ensemble else ''} ({row.protocol})"


def name_set(row: Row) -> str:
    """The data set, with the degradation unless it is bicubic."""
    kind = "" if row.degradation == "bi" else f" {row.degradation}"
    return f"{row.dataset}{kind}"


def name_group(row: Row) -> str:
    """Rows of one data set and scale stand together under this name."""
    return f"{name_set(row)} x{row.scale}"


def _label(row: Row) -> _Cells:
    return {"Set": name_set(row), "Scale": f"x{row.scale}", "Model": name_model(row)}


def _list_cells(measured: Row | PictureResult) -> _Cells:
    """The figures of a row or of a picture, the paper's beside them."""
    paper = getattr(measured, "paper", None)
    cells: _Cells = {}
    for metric, digits in METRICS.items():
        title = metric.upper()
        ours = format_fixed(getattr(measured, metric), digits)
        theirs = format_fixed(getattr(paper, metric, None), digits) if ours else ""
        cells |= {title: ours, f"{title}, paper": theirs}
        cells[f"{title}, difference"] = _subtract(ours, theirs, digits)
    return cells | {
        "Parameters": _format_quantity(getattr(measured, "parameters", None), 3),
        "MACs (720p)": _format_quantity(getattr(measured, "macs_720p", None), 4),
        "Seconds/picture": _format_seconds(measured.seconds),
        "Source": getattr(paper, "source", ""),
    }


def _list_stages(row: Row, bicubic: Row, per_image: bool) -> list[_Cells]:
    """What each stage of a network adds: bicubic, then stage by stage."""
    pairs: list[tuple[Row | PictureResult, Row | PictureResult]] = [(row, bicubic)]
    if per_image:
        pairs += zip(row.pictures, bicubic.pictures, strict=True)
    lines = []
    for number, name in enumerate((name_model(bicubic), *row.stage_names)):
        weight = row.stage_weights[number - 1] if number and row.stage_weights else None
        for measured, first in pairs:
            image = measured.image if isinstance(measured, PictureResult) else None
            known = (first, *measured.stages)
            psnrs = [format_fixed(each.psnr, _STAGE_PSNR) for each in known]
            before = psnrs[number - 1] if number else ""
            cells = {
                "Stage": f"  {image}" if image else name,
                "PSNR": psnrs[number],
                "Gain over the line above": _subtract(psnrs[number], before),
                "SSIM": format_fixed(known[number].ssim, METRICS["ssim"]),
                "Weight": format_fixed(None if image else weight, 3, "+"),
            }
            lines.append(_label(row) | cells)
    return lines


def format_fixed(value: float | None, digits: int, sign: str = "") -> str:
    """`value` with so many decimals; nothing for None."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def _subtract(after: str, before: str, digits: int = _STAGE_PSNR) -> str:
    """The difference of figures as shown, so that a table agrees with itself."""
    difference = float(after) - float(before) if after and before else math.nan
    return "" if math.isnan(difference) else format_fixed(difference, digits, "+")


def _format_quantity(value: float | None, digits: int) -> str:
    """`value` with a unit and so many significant digits: 1.06M, 776.5G."""
    if value is None:
        return ""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def _format_seconds(value: float) -> str:
    """Seconds in five characters, up to a day."""
    limits = ((3, 0.1), (2, 10), (1, 100))
    return format_fixed(value, next((n for n, limit in limits if value < limit), 0))


def format_line(row: Row) -> str:
    """A row in one line, for the log of a long run."""
    figures = f"{format_fixed(row.psnr, 2)} dB, SSIM {format_fixed(row.ssim, 4)}"
    return f"{name_group(row)} {name_model(row)}: {figures}"


def print_tables(
    console: Console, rows: Sequence[Row], *, per_image: bool = False
) -> None:
    """Print the tables of a benchmark, with as many columns as there is room for."""
    table, *others = list_tables(rows, per_image=per_image)
    kept = print_table(console, table, _SPARED)
    sources = dict.fromkeys(row.paper.source for row in rows if row.paper)
    if sources and "Source" not in kept:
        console.print("paper:", "; ".join(sources), markup=False, highlight=False)
    for other in others:
        console.print()
        print_table(console, other)


def print_table(
    console: Console, table: Table, spared: Sequence[str] = ()
) -> list[str]:
    """Print a table; the titles of the columns for which a terminal has room.

    It does without those that are `spared`, one after the other. Figures are never
    cut: on a very narrow console lines run over its edge.
    """
    room = console.width if console.is_terminal else _WIDE
    # Space between the columns goes after the first of them.
    steps = [(0, 1), (1, 1), *((n, 0) for n in range(1, len(spared) + 1))]
    for few, padding in steps:
        columns = [c for c in table.columns if c.head and c.title not in spared[:few]]
        drawing = rich.table.Table(
            box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding, 0, 0)
        )
        _draw(drawing, table, columns)
        unbound = console.options.update(width=_WIDE)
        drawing.width = Measurement.get(console, unbound, drawing).maximum
        if drawing.width <= room:
            break
    console.print(drawing, crop=False)
    return [column.title for column in columns]


def _draw(drawing: rich.table.Table, table: Table, columns: Sequence[Column]) -> None:
    for column in columns:
        side: Any = "left" if column.left else "right"
        drawing.add_column(column.head, justify=side, no_wrap=True)
    for title, lines in table.groups:
        if title:
            drawing.add_row(Text(title, "bold"))
        for cells in lines:
            name, *figures = (cells[column.title] for column in columns)
            style = "dim" if name.startswith("  ") else None
            name = f"  {name}" if title else name
            drawing.add_row(*map(Text, (name, *figures)), style=style)
        drawing.add_section()


def format_markdown(rows: Sequence[Row], command: str) -> str:
    """Tables for a README, below the command line that measures them again."""
    lines = ["```sh", command, "```"]
    for table in list_tables(rows):
        cells = (
            [c.replace("\\", r"\\") for c in x] for body in table.bodies for x in body
        )
        lines += ["", *format_table(table.titles, cells, table.left)]
    return "\n".join(lines) + "\n"


def format_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: Sequence[bool] | None = None,
) -> list[str]:
    """The lines of a Markdown table, all aligned left if not told.

    A backslash stays: in code it is one.
    """
    rule = ["---" if plain else "---:" for plain in left or [True] * len(head)]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *cells)]


def quote_code(text: str) -> str:
    """`text` as Markdown's code on one line, whatever it holds."""
    line = show_message(text)
    if "`" in line:
        return f"`` {line} ``"
    return f"`{line}`" if line else ""


def format_latex(rows: Sequence[Row], command: str) -> str:
    r"""A `tabular` with the rules of `\usepackage{booktabs}`; stages have a second."""

    def join(cells: Iterable[str]) -> str:
        return " & ".join(map(_escape_latex, cells)) + r" \\"

    lines = ["% " + " ".join(command.split())]
    for table in list_tables(rows):
        alignment = "".join("l" if left else "r" for left in table.left)
        lines += [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", join(table.titles)]
        for body in table.bodies:
            lines += [r"\midrule", *map(join, body)]
        lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _escape_latex(text: str) -> str:
    """`text` as LaTeX sets it literally; a sign before a digit is a real minus."""
    if text[:1] in ("+", "-") and text[1:2].isdigit():
        return f"${text}$"
    return text.translate(_LATEX)


def build_document(
    rows: Sequence[Row], command: str, *, per_image: bool = False
) -> dict[str, Any]:
    """The JSON document; figures that are unknown or not finite are None.

    Where one of the rows has stages all have that key. `command` is the command line
    that measures them again (`format_command`).
    """
    staged = any(row.stage_names for row in rows)
    described = [_describe_row(row, per_image, staged) for row in rows]
    return {"srcli": __version__, "command": command, "rows": _clean(described)}


def _describe_row(row: Row, per_image: bool, staged: bool) -> dict[str, Any]:
    names = (*METRICS, "source", "note")
    described: dict[str, Any] = {
        **{key: getattr(row, key) for key in (*_KEYS, "device", "precision")},
        "images": len(row.pictures),
        **_describe_figures(row, row, staged),
        "paper": row.paper and {name: getattr(row.paper, name) for name in names},
        "difference": row.paper and {each: row.difference(each) for each in METRICS},
        "parameters": row.parameters,
        "macs_720p": row.macs_720p,
    }
    if per_image:
        described["per_image"] = [
            {"image": picture.image, **_describe_figures(picture, row, staged)}
            for picture in row.pictures
        ]
    return described


def _describe_figures(
    measured: Row | PictureResult, row: Row, staged: bool
) -> dict[str, Any]:
    """The figures of a row or of one of its pictures."""
    described = {name: getattr(measured, name) for name in (*METRICS, "seconds")}
    if not staged:
        return described
    stages: list[dict[str, Any]] = []
    for name, stage in zip(row.stage_names, measured.stages, strict=True):
        figures = {"psnr": stage.psnr, "ssim": stage.ssim}
        stages.append({"stage": len(stages) + 1, "name": name, **figures})
    for each, weight in zip(stages, row.stage_weights, strict=False):
        each["weight"] = weight
    return {**described, "stages": stages}


def _clean(value: Any) -> Any:  # noqa: ANN401 - whatever JSON may hold
    """`value` with its figures rounded, and those that JSON lacks left out."""
    if isinstance(value, dict):
        return {key: _clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, float):
        return round(value, _PRECISION) if math.isfinite(value) else None
    return value


def format_csv(rows: Sequence[Row], *, per_image: bool = False) -> str:
    """A table for programs: one line for each row and, if asked, for each picture.

    Lines of pictures have a name in the column `image`. Where a row has stages, the
    line of each follows that of its row or picture.
    """
    fields = [*_CSV_FIELDS]
    if any(row.stage_names for row in rows):
        fields += ["stage", "stage_name"]
    if any(row.stage_weights for row in rows):
        fields.append("weight")
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for described in build_document(rows, "", per_image=per_image)["rows"]:
        writer.writerows(_flatten(described))
    return text.getvalue()


def _flatten(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row of the JSON document, its pictures and their stages as lines of CSV."""
    shared = {name: described[name] for name in _KEYS}
    beside = {
        f"{group}_{name}": value
        for group in ("paper", "difference")
        for name, value in (described[group] or {}).items()
    }
    pictures = ({**shared, **picture} for picture in described.get("per_image", ()))
    for line in ({**described, **beside}, *pictures):
        yield line
        for stage in line.get("stages", ()):
            whose = {**shared, "image": line.get("image"), "stage_name": stage["name"]}
            yield {**whose, **stage}


def format_command(request: BenchmarkRequest) -> str:
    """The command line that measures the same again.

    Options that only say where files lie or go are left out.
    """
    chosen, engine, usual = request.selection, request.engine, Engine()
    models = chosen.models or (() if chosen.weights else (DEFAULT_MODEL,))
    words = ["srcli", "benchmark"]
    for option, names in (("-d", request.datasets), ("-m", models)):
        words += [word for name in names for word in (option, name)]
    if chosen.scales is not None:
        words += ["-x", ",".join(map(str, chosen.scales))]
    settings: dict[str, tuple[object, object]] = {
        # A weight file brings its own degradation, which need not be the one measured.
        "--degradation": (chosen.degradation, None if chosen.weights else "bi"),
        "--protocol": (chosen.protocol, "auto"),
        "--weights": (chosen.weights, None),
        "--seed": (request.seed, 0),
        "--device": (engine.device, usual.device),
        "--precision": (engine.precision, usual.precision),
        "--tile": (engine.tile, usual.tile),
        "--tile-overlap": (engine.overlap, usual.overlap),
        "--ensemble": (engine.ensemble, False),
        "--stages": (request.stages, False),
        "--ifc": (request.ifc, False),
        "--gray-as-rgb": (request.gray_as_rgb, False),
    }
    for option, (value, default) in settings.items():
        if value != default:
            words += [option] if value is True else [option, str(value)]
    return " ".join(map(quote_path, words))


def check_reports(paths: Iterable[Path | None], overwrite: bool) -> None:
    """Refuse report files that cannot be written, before anything is measured.

    Raises:
        UsageError: If a file is named twice.
        OutputError: If a file exists and may not be replaced, or its folder cannot be
            written to.
    """
    seen = set()
    for path in filter(None, paths):
        if path.resolve() in seen:
            raise UsageError(f"{path} is named for two reports: give each its own file")
        seen.add(path.resolve())
        if path.is_dir():
            raise OutputError(f"{path} is a folder: name a file")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists: use --overwrite or another name")
        if not os.access(path.parent, os.W_OK):
            raise OutputError(
                f"{path.parent} is no folder that can be written to: choose another"
            )


def write_report(text: str, path: Path) -> None:
    """Write a report; the file appears whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    with write_whole(path) as part:
        part.write_text(text, "utf-8", newline="")
