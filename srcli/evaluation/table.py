"""The table of a benchmark on screen, and the columns it shares with the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from srcli.evaluation.benchmark import Metric, Row
from srcli.evaluation.picture import PictureResult

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
