"""Tiles and regions of a picture: pure functions on boxes.

A network sees tiles. Every pixel belongs to the core of exactly one; a tile is computed
with `overlap` pixels of context around its core, of which nothing is kept. Context ends
at the border of the picture, so that a network pads there exactly as it would for the
whole picture.

A picture that is larger than memory is cut into regions first. A region is to a picture
what a tile is to a network, one floor up: it goes through all passes by itself, here or
elsewhere, with so much context that the joined result is what the whole would have
become. Bicubic steps are the same to the last bit; networks differ by what their tiles
differ anyway (docs/design.md, "Tiles"). A picture that fits into memory is one region.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol

from srcli.errors import UsageError
from srcli.imaging.box import Box
from srcli.imaging.picture import PictureInfo
from srcli.imaging.resize import reach
from srcli.imaging.tiff.write import TILE

TileSize = int | Literal["auto"]
Overlap = int | Literal["auto", "exact"]
Size = tuple[int, int]  # height and width in pixels

_REGION = 100_000_000  # bytes that the result of a region has, about
_LEAST_SIDE, _MOST_SIDE = 512, 2048  # LR px of a region, context apart
_CHROMA = 2  # LR px around a tile from which its chroma is interpolated
# Hidden pixels get their colours from blocks of 2, 4, 8, ... pixels, which have to
# begin where they do in the whole; larger ones have next to no say in what is seen.
_BLOCK, _SPREAD = 64, 32  # px: the largest of those blocks; where colours come from


@dataclass(frozen=True, slots=True)
class Tile:
    """A piece of a network's work: `core` is what is kept of what `padded` yields."""

    core: Box
    padded: Box


def check_tiling(tile: TileSize, overlap: Overlap) -> None:
    """Refuse tile sizes and overlaps that mean nothing.

    Raises:
        UsageError: If a number is negative, or a word unknown.
    """
    if tile != "auto" and not (isinstance(tile, int) and tile >= 0):
        raise UsageError(f"tile must be auto, 0 or a number of pixels, not {tile!r}")
    is_number = isinstance(overlap, int) and overlap >= 0
    if overlap not in ("auto", "exact") and not is_number:
        raise UsageError(
            f"tile overlap must be auto, exact or a number of pixels, not {overlap!r}"
        )


def plan_tiles(
    area: Box, side: int, whole: Size, overlap: int, multiple: int = 1
) -> list[Tile]:
    """Tiles whose cores make up a part of a picture, row by row.

    The cores differ by at most one pixel in height and in width, so that no tile is a
    sliver whose context costs more than itself.

    Args:
        area: The part; half of a tile's side makes four of its core.
        side: Longest side of a core, at least 1.
        whole: Height and width of the picture.
        overlap: Context on each side of a core, where the picture has it.
        multiple: What tiles begin and end at multiples of. Cores do too where their
            side allows it, else their context grows.
    """
    unit = multiple if multiple <= side else 1
    rows = _cut(area.top, area.bottom, side, unit)
    columns = _cut(area.left, area.right, side, unit)
    cores = (
        Box(top, left, bottom, right)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    )
    return [
        Tile(core, core.grown(overlap, *whole).aligned(multiple, *whole))
        for core in cores
    ]


def _cut(start: int, stop: int, side: int, unit: int) -> list[int]:
    """The edges of equal parts of at most `side`; they lie `unit`s from the start."""
    if stop - start <= side:
        return [start, stop]
    units = math.ceil((stop - start) / unit)
    parts = math.ceil(units / (side // unit))
    inner = [start + part * units // parts * unit for part in range(parts)]
    return [*inner, stop]


class Pass(Protocol):
    """The facts of a network that cutting depends on: see `Runner`."""

    scale: int
    overlap: int
    multiple: int


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture that is enlarged by itself; can be sent anywhere."""

    padded: Box  # what is read, in pixels of the picture: with its context
    target: Box  # what the region itself becomes, in pixels of the result
    whole: Size  # of the picture
    size: Size  # of the result


def plan_regions(info: PictureInfo, size: Size, passes: Sequence[Pass]) -> list[Region]:
    """The regions of a picture, row by row; their targets make up the result.

    At whole factors, regions end where tiles of the result's file do. Each of the
    networks that the picture goes through needs context.
    """
    whole = height, width = info.height, info.width
    margin, scale = 1.0, 1  # LR px; 1, as the targets are cut at whole pixels
    for network in passes:
        margin += max(network.overlap, _CHROMA) / scale
        scale *= network.scale
    if (height * scale, width * scale) != size:  # a bicubic step follows
        ratio = min(size[0] / height, size[1] / width) / scale
        margin += reach(ratio) / scale
    if info.alpha:
        margin = max(margin, 1 + reach(1)) + _SPREAD
    step = math.lcm(_BLOCK if info.alpha else 1, *(each.multiple for each in passes))
    margin = math.ceil(margin / step) * step
    factor = max(scale, size[0] / height, size[1] / width)
    side = math.isqrt(int(_REGION / (factor**2 * info.pixel_bytes)))
    side = min(_MOST_SIDE, max(_LEAST_SIDE, side))
    unit = math.lcm(step, TILE)
    if unit > side:
        unit = step
    grid = Box(0, 0, math.ceil(height / unit), math.ceil(width / unit))
    regions = []
    for tile in plan_tiles(grid, max(1, side // unit), grid.size, 0):
        core = tile.core.scaled(unit).grown(0, *whole)
        top, bottom = (y * size[0] // height for y in (core.top, core.bottom))
        left, right = (x * size[1] // width for x in (core.left, core.right))
        target = Box(top, left, bottom, right)
        regions.append(Region(core.grown(margin, *whole), target, whole, size))
    return regions
