"""Pictures cut into regions that are enlarged one by one, here or elsewhere.

A region is to a picture what a tile is to a network, one floor up: it goes through all
passes by itself, with so much context around it that the joined result is what the
whole would have become. Bicubic steps are the same to the last bit; networks differ by
what their tiles differ anyway (docs/design.md, "Tiles"). A picture that fits into
memory is one region.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from srcli.imaging.box import Box
from srcli.imaging.picture import PictureInfo
from srcli.imaging.resize import reach
from srcli.imaging.tiff.write import TILE
from srcli.inference.runner import Runner
from srcli.inference.tiling import plan_tiles

_REGION = 100_000_000  # bytes that the result of a region has, about
_LEAST_SIDE, _MOST_SIDE = 512, 2048  # LR px of a region, context apart
_CHROMA = 2  # LR px around a tile from which its chroma is interpolated
# Hidden pixels get their colours from blocks of 2, 4, 8, ... pixels, which have to
# begin where they do in the whole; larger ones have next to no say in what is seen.
_BLOCK, _SPREAD = 64, 32  # px: the largest of those blocks; where colours come from

Size = tuple[int, int]  # height and width in pixels


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
    info: PictureInfo, size: Size, runners: Sequence[Runner], side: int | None = None
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


def _find_margin(info: PictureInfo, size: Size, runners: Sequence[Runner]) -> int:
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


def _choose_side(info: PictureInfo, size: Size, runners: Sequence[Runner]) -> int:
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
