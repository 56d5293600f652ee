"""How a picture is cut and joined again: pure functions on boxes.

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
from fractions import Fraction
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


class Pass(Protocol):
    """What cutting has to know of a network: see `Runner`."""

    scale: int
    overlap: int
    multiple: int


@dataclass(frozen=True, slots=True)
class Region:
    """One piece of a picture; can be sent anywhere.

    Attributes:
        padded: What is read, in pixels of the picture: the region with its context.
        target: What the region itself becomes, in pixels of the result.
        whole: Height and width of the picture.
        size: Height and width of the result.
    """

    padded: Box
    target: Box
    whole: Size
    size: Size

    @property
    def is_whole(self) -> bool:
        """Whether there is no other."""
        return self.target.size == self.size


def whole_region(whole: Size, size: Size) -> Region:
    """A picture that is one region."""
    return Region(Box(0, 0, *whole), Box(0, 0, *size), whole, size)


def plan_regions(
    info: PictureInfo, size: Size, runners: Sequence[Pass], side: int | None = None
) -> list[Region]:
    """The regions of a picture, row by row; their targets make up the result.

    Where the factor allows, regions end where tiles of the result's file do.

    Args:
        info: Of the picture.
        size: Height and width of the result.
        runners: The networks that it goes through: each needs context.
        side: Longest side of a region in pixels, its context apart; None is what takes
            little memory.
    """
    whole = info.height, info.width
    step = math.lcm(_BLOCK if info.alpha else 1, *(r.multiple for r in runners))
    margin = math.ceil(_find_margin(info, size, runners) / step) * step
    unit = _find_unit(whole, size, step)
    side = side or _choose_side(info, size, runners)
    if unit > side:
        unit = step
    rows, columns = (math.ceil(length / unit) for length in whole)
    regions = []
    for tile in plan_tiles(rows, columns, max(1, side // unit), 0):
        core = tile.core.scaled(unit).grown(0, *whole)
        top, bottom = (y * size[0] // whole[0] for y in (core.top, core.bottom))
        left, right = (x * size[1] // whole[1] for x in (core.left, core.right))
        target = Box(top, left, bottom, right)
        regions.append(Region(core.grown(margin, *whole), target, whole, size))
    return regions


def _find_margin(info: PictureInfo, size: Size, runners: Sequence[Pass]) -> int:
    """Context that a region needs on each side, in pixels of the picture."""
    margin, scale = Fraction(0), 1
    for runner in runners:
        margin += Fraction(max(runner.overlap, _CHROMA), scale)
        scale *= runner.scale
    ratios = size[0] / (info.height * scale), size[1] / (info.width * scale)
    if ratios != (1, 1):
        margin += Fraction(reach(min(ratios)), scale)
    if info.alpha:
        margin = max(margin, Fraction(reach(1))) + _SPREAD
    return math.ceil(margin) + 1  # as the target is cut at whole pixels


def _choose_side(info: PictureInfo, size: Size, runners: Sequence[Pass]) -> int:
    passes = math.prod(runner.scale for runner in runners)
    scale = max(passes, size[0] / info.height, size[1] / info.width)
    side = math.isqrt(int(_REGION / (scale * scale * info.pixel_bytes)))
    return max(_LEAST_SIDE, min(_MOST_SIDE, side))


def _find_unit(whole: Size, size: Size, step: int) -> int:
    """The least multiple of `step` pixels that are whole tiles of the result's file."""
    factor = Fraction(size[0], whole[0])
    if factor != Fraction(size[1], whole[1]):
        return step
    one = TILE * factor.denominator
    return math.lcm(step, one // math.gcd(one, factor.numerator))
