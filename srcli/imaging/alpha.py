"""Colour behind transparency, made harmless before a picture is enlarged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BAND = 256  # rows worked on at a time
# Levels of alpha from which on a colour is taken as it is. Most programs compute with
# premultiplied colours, where half a level of rounding is 255/32 levels of the colour
# at this alpha, and any colour at all at the lowest.
_RELIABLE = 16


def peak_level(dtype: np.dtype[Any]) -> int:
    """The level of white and of full opacity: 255, 65535, or 1 in floating point."""
    return 1 if dtype == np.float32 else int(np.iinfo(dtype).max)


def fill_transparent(pixels: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """The picture with visible colour spread into its transparent pixels.

    The colour of a pixel with alpha 0 is undefined and mostly black, that of a pixel
    with next to no opacity is mostly rounding; a network or a filter would mix either
    into the visible edge as a dark or light fringe. Here a hidden pixel gets a smooth
    continuation of the visible colours around it, by pull and push through a pyramid of
    averages weighted with alpha, and a nearly hidden one a share of that.

    Source: the pull-push of Gortler et al., "The Lumigraph", SIGGRAPH 1996.

    Args:
        pixels: (H, W, C), uint8, uint16 or float32, not premultiplied.
        alpha: Opacity, (H, W), same dtype; floating point in [0, 1].

    Returns:
        The same, or `pixels` itself where nothing, or everything, is hidden. Pixels of
        16 or more levels of alpha, those that no neighbour surpasses, and in floating
        point those of any opacity keep their colour.
    """
    trust = _trust(alpha)
    if (trust == _RELIABLE).all() or not alpha.any():
        return pixels
    is_whole = alpha.dtype != np.float32
    peak = peak_level(alpha.dtype)
    weight = alpha.astype(np.float32) / np.float32(peak)
    colour, coarse = _shrink(pixels, weight)
    colour = _fill(colour, coarse)
    filled = pixels.copy()
    for top in range(0, pixels.shape[0], _BAND):
        rows = slice(top, min(top + _BAND, pixels.shape[0]))
        spread = _enlarge(colour, rows.start, rows.stop, pixels.shape[1])
        own = trust[rows, :, None].astype(np.float32) / np.float32(_RELIABLE)
        spread += (pixels[rows] - spread) * own
        mixed = (np.rint(spread) if is_whole else spread).astype(pixels.dtype)
        np.copyto(filled[rows], mixed, where=own < 1)
    return filled


def _trust(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    """How far each colour is taken as it is: 0 to `_RELIABLE`, (H, W).

    A faint pixel beside a stronger one is the edge of something; among its like it is
    part of a faint picture, and all that there is to see.
    """
    if alpha.dtype == np.float32:
        return np.where(alpha > 0, np.uint8(_RELIABLE), np.uint8(0))
    capped = np.minimum(alpha, _RELIABLE).astype(np.uint8)
    around = capped.copy()
    for axis in (0, 1):
        line = np.moveaxis(around, axis, 0)
        strongest = line.copy()
        np.maximum(strongest[1:], line[:-1], out=strongest[1:])
        np.maximum(strongest[:-1], line[1:], out=strongest[:-1])
        line[:] = strongest
    share = capped.astype(np.uint16) * _RELIABLE // np.maximum(around, 1)
    return share.astype(np.uint8)


def _fill(
    colour: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A level of the pyramid with its empty pixels filled from the coarser ones."""
    if weight.all():
        return colour
    coarse = _fill(*_shrink(colour, weight))
    spread = _enlarge(coarse, 0, colour.shape[0], colour.shape[1])
    return np.where(weight[:, :, None] > 0, colour, spread)


def _shrink(
    pixels: NDArray[Any], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weighted mean colours of 2x2 blocks, and the weight of each, at most 1."""
    height, width = (weight.shape[0] + 1) // 2, (weight.shape[1] + 1) // 2
    total = np.zeros((height, width, pixels.shape[2]), np.float32)
    weights = np.zeros((height, width), np.float32)
    for y in (0, 1):
        for x in (0, 1):
            part = weight[y::2, x::2]
            rows, columns = part.shape
            total[:rows, :columns] += pixels[y::2, x::2] * part[:, :, None]
            weights[:rows, :columns] += part
    np.divide(total, weights[:, :, None], out=total, where=weights[:, :, None] > 0)
    return total, np.minimum(weights, 1.0)


def _enlarge(
    coarse: NDArray[np.float32], top: int, bottom: int, width: int
) -> NDArray[np.float32]:
    """Rows `top` to `bottom` of `coarse` doubled bilinearly to `width` columns."""
    rows = _blend(coarse, np.arange(top, bottom))
    columns = _blend(rows.swapaxes(0, 1), np.arange(width))
    return columns.swapaxes(0, 1)


def _blend(
    values: NDArray[np.float32], positions: NDArray[np.int64]
) -> NDArray[np.float32]:
    """`values` doubled along their first axis, read at fine `positions`."""
    # Fine pixel 2k lies a quarter of a coarse pixel before the centre of pixel k,
    # 2k + 1 a quarter after it: three quarters of k and one of its neighbour.
    near = positions // 2
    far = np.clip(near + np.where(positions % 2, 1, -1), 0, len(values) - 1)
    return np.float32(0.75) * values[near] + np.float32(0.25) * values[far]
