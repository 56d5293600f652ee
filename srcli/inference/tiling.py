"""How a picture is cut into tiles and joined again: pure functions on boxes.

Every pixel belongs to the core of exactly one tile. A tile is computed with `overlap`
pixels of context around its core, of which nothing is kept. Context ends at the border
of the picture, so that a network pads there exactly as it would for the whole picture.
All lengths are pixels of the low-resolution picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from srcli.errors import UsageError
from srcli.imaging.box import Box

TileSize = int | Literal["auto"]
Overlap = int | Literal["auto", "exact"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One piece of the work: `core` is what is kept of what `padded` yields."""

    core: Box
    padded: Box


def check_tiling(tile: TileSize, overlap: Overlap) -> None:
    """Refuse tile sizes and overlaps that mean nothing.

    Raises:
        UsageError: If a number is negative, or a word unknown.
    """
    if tile != "auto" and not (isinstance(tile, int) and tile >= 0):
        raise UsageError(f"tile must be auto, 0 or a number of pixels, not {tile!r}")
    if overlap in ("auto", "exact"):
        return
    if not (isinstance(overlap, int) and overlap >= 0):
        raise UsageError(
            f"tile overlap must be auto, exact or a number of pixels, not {overlap!r}"
        )


def plan_tiles(
    height: int, width: int, tile: int, overlap: int, multiple: int = 1
) -> list[Tile]:
    """The tiles of a picture, row by row.

    The cores differ by at most one pixel in height and in width, so that no tile is a
    sliver whose context costs more than itself.

    Args:
        height: Rows of the picture, at least 1.
        width: Columns of the picture, at least 1.
        tile: Longest side of a core; 0 makes one tile of the whole picture.
        overlap: Context on each side of a core, where the picture has it.
        multiple: What tiles begin and end at multiples of. Cores do too where their
            side allows it, else their context grows.
    """
    picture = Box(0, 0, height, width)
    return split_tile(
        Tile(picture, picture), tile or picture.side, height, width, overlap, multiple
    )


def split_tile(
    tile: Tile, side: int, height: int, width: int, overlap: int, multiple: int = 1
) -> list[Tile]:
    """Smaller tiles that together have the core of `tile`, row by row.

    Args:
        tile: A tile of the picture.
        side: Longest side of a new core, at least 1; half of the tile's own makes four.
        height: Rows of the picture.
        width: Columns of the picture.
        overlap: Context on each side of a core, where the picture has it.
        multiple: As `plan_tiles`.
    """
    return [
        Tile(core, core.grown(overlap, height, width).aligned(multiple, height, width))
        for core in _cut(tile.core, side, multiple)
    ]


def _cut(box: Box, side: int, multiple: int) -> list[Box]:
    """`box` in equal parts of at most `side` by `side` pixels."""
    unit = multiple if multiple <= side else 1
    rows = _edges(box.top, box.bottom, side, unit)
    columns = _edges(box.left, box.right, side, unit)
    return [
        Box(top, left, bottom, right)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def _edges(start: int, stop: int, side: int, unit: int) -> list[int]:
    """Where a length is cut: equal parts of at most `side`, the ends included.

    Inner edges are `start` and a multiple of `unit`.
    """
    units = math.ceil((stop - start) / unit)
    parts = math.ceil(units / (side // unit))
    inner = [start + part * units // parts * unit for part in range(parts)]
    return [*inner, stop]
