"""The tables of a benchmark's documents, as cells of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from srcli.evaluation.benchmark import Row
from srcli.evaluation.stage_table import have_stages, list_heads, list_stages
from srcli.evaluation.table import LABELS, list_columns, name_group

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
