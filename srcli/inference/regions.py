"""Pictures larger than memory, cut into regions that are enlarged one by one.

A region is to a picture what a tile is to a network, one floor up: it goes through all
passes by itself, here or on another machine, with so much context around it that the
joined result is what the whole would have become. Bicubic steps are the same to the
last bit; networks differ by what their tiles differ anyway (docs/design.md, "Tiles").
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.alpha import fill_transparent
from srcli.imaging.box import Box
from srcli.imaging.files import Picture, PictureInfo
from srcli.imaging.resize_part import reach, resize_part
from srcli.imaging.tiff.write import TILE
from srcli.inference.tiling import plan_tiles
from srcli.inference.upscaler import Upscaler
from srcli.progress import SILENT, Progress

_REGION = 100_000_000  # bytes that the result of a region has, about
_LEAST_SIDE, _MOST_SIDE = 512, 2048  # LR px of a region, context apart
_CHROMA = 2  # LR px around a tile from which its chroma is interpolated
# Hidden pixels get their colours from blocks of 2, 4, 8, ... pixels, which have to
# begin where they do in the whole; larger ones have next to no say in what is seen.
_BLOCK, _SPREAD = 64, 32  # px: the largest of those blocks; where colours come from


@dataclass(frozen=True, slots=True)
class Region:
    """One piece of a picture; can be sent anywhere.

    Attributes:
        core: What is enlarged, in pixels of the picture.
        padded: The same with context, of which nothing is kept.
        target: What the core becomes, in pixels of the result.
        whole: Height and width of the picture.
        size: Height and width of the result.
    """

    core: Box
    padded: Box
    target: Box
    whole: tuple[int, int]
    size: tuple[int, int]


def plan_regions(
    upscaler: Upscaler, info: PictureInfo, side: int | None = None
) -> list[Region]:
    """The regions of a picture, row by row; their targets make up the result.

    Where the factor allows, regions end where tiles of the result's file do.

    Args:
        upscaler: What will enlarge them; its networks say how much context they need.
        info: Of the picture.
        side: Longest side of a core in pixels; None is what takes little memory.

    Raises:
        UsageError: If the factor is not between 1 and 8.
        WeightsError: If weights are missing or damaged.
    """
    whole = info.height, info.width
    size = upscaler.target_size(*whole)
    multiples = (runner.multiple for runner in upscaler.runners(*whole))
    step = math.lcm(_BLOCK if info.alpha else 1, *multiples)
    margin = _find_margin(upscaler, whole, size, has_alpha=info.alpha)
    margin = math.ceil(margin / step) * step
    if side is None:
        side = _choose_side(upscaler, whole, size, _bytes_per_pixel(info))
    unit = _find_unit(whole, size, step)
    if unit > side:
        unit = step
    rows, columns = (math.ceil(length / unit) for length in whole)
    regions = []
    for tile in plan_tiles(rows, columns, max(1, side // unit), 0):
        core = tile.core.scaled(unit).grown(0, *whole)
        padded = core.grown(margin, *whole)
        regions.append(
            Region(core, padded, _find_target(core, whole, size), whole, size)
        )
    return regions


def enlarge_region(
    upscaler: Upscaler, part: Picture, region: Region, progress: Progress = SILENT
) -> Picture:
    """What `upscaler` would make of the whole, in the region's target.

    Args:
        upscaler: Enlarges it; afterwards its `stats` are about this region.
        part: The picture in the region's `padded` box, `whole_levels` set.
        region: Which it is, as `plan_regions` gives it for this upscaler.
        progress: Told of tiles.

    Returns:
        The enlarged core, of the same kind.

    Raises:
        DeviceError: If memory does not suffice.
        WeightsError: If weights are missing or damaged.
    """
    pixels: NDArray[Any] = part.pixels
    alpha: NDArray[Any] | None = part.alpha
    levels = part.levels
    if alpha is not None:
        pixels = fill_transparent(pixels, alpha)
        alpha = _resize(alpha[:, :, None], region, 1)[:, :, 0]
    pixels = upscaler.run_networks(pixels, levels, region.whole, progress)
    pixels = _resize(pixels, region, math.prod(upscaler.plan(*region.whole)))
    if pixels.dtype == np.float32:
        pixels = pixels.clip(*levels)  # the cubic swings over at edges
        alpha = None if alpha is None else alpha.clip(0, 1)
    return dataclasses.replace(part, pixels=pixels, alpha=alpha)


def _resize(pixels: NDArray[Any], region: Region, scale: int) -> NDArray[Any]:
    """The region's target of pixels that are `scale` times as large as `padded`."""
    corner = region.padded.top * scale, region.padded.left * scale
    whole = region.whole[0] * scale, region.whole[1] * scale
    return resize_part(pixels, corner, whole, region.size, region.target.slices)


def _bytes_per_pixel(info: PictureInfo) -> int:
    return (info.channels + info.alpha) * info.depth // 8


def _find_margin(
    upscaler: Upscaler,
    whole: tuple[int, int],
    size: tuple[int, int],
    *,
    has_alpha: bool,
) -> int:
    """Context that a region needs on each side, in pixels of the picture."""
    margin, scale = Fraction(0), 1
    for runner in upscaler.runners(*whole):
        margin += Fraction(max(runner.overlap, _CHROMA), scale)
        scale *= runner.scale
    ratios = [out / (length * scale) for out, length in zip(size, whole, strict=True)]
    if any(ratio != 1 for ratio in ratios):
        margin += Fraction(reach(min(ratios)), scale)
    if has_alpha:
        margin = max(margin, Fraction(reach(1))) + _SPREAD
    return math.ceil(margin) + 1  # as the target is cut at whole pixels


def _choose_side(
    upscaler: Upscaler, whole: tuple[int, int], size: tuple[int, int], depth: int
) -> int:
    """The side of a region in pixels; `depth` is the bytes of a pixel."""
    scale = max(
        math.prod(upscaler.plan(*whole)), size[0] / whole[0], size[1] / whole[1]
    )
    side = math.isqrt(int(_REGION / (scale * scale * depth)))
    return max(_LEAST_SIDE, min(_MOST_SIDE, side))


def _find_unit(whole: tuple[int, int], size: tuple[int, int], step: int) -> int:
    """The least multiple of `step` pixels that are whole tiles of the result's file."""
    factor = Fraction(size[0], whole[0])
    if factor != Fraction(size[1], whole[1]):
        return step
    one = TILE * factor.denominator
    return math.lcm(step, one // math.gcd(one, factor.numerator))


def _find_target(core: Box, whole: tuple[int, int], size: tuple[int, int]) -> Box:
    rows, columns = (core.top, core.bottom), (core.left, core.right)
    top, bottom = (edge * size[0] // whole[0] for edge in rows)
    left, right = (edge * size[1] // whole[1] for edge in columns)
    return Box(top, left, bottom, right)
