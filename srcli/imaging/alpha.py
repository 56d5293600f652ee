"""Colour behind transparency, made harmless before a picture is enlarged."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_Level = TypeVar("_Level", np.uint8, np.uint16)

_BAND = 256  # rows worked on at a time


def fill_transparent(
    pixels: NDArray[_Level], alpha: NDArray[_Level]
) -> NDArray[_Level]:
    """The picture with visible colour spread into its fully transparent pixels.

    The colour of a pixel with alpha 0 is undefined and mostly black; a network or a
    filter would mix it into the visible edge as a dark fringe. Here each such pixel
    gets a smooth continuation of the visible colours around it, by pull and push
    through a pyramid of averages weighted with alpha.

    Source: the pull-push of Gortler et al., "The Lumigraph", SIGGRAPH 1996.

    Args:
        pixels: (H, W, C), not premultiplied.
        alpha: Opacity, (H, W), same dtype.

    Returns:
        (H, W, C), same dtype: `pixels` itself where nothing is, or everything is,
        fully transparent; pixels with any opacity are never changed.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return pixels
    weight = alpha.astype(np.float32) / np.float32(np.iinfo(alpha.dtype).max)
    colour, coarse = _shrink(pixels, weight)
    colour = _fill(colour, coarse)
    filled = pixels.copy()
    for top in range(0, pixels.shape[0], _BAND):
        rows = slice(top, min(top + _BAND, pixels.shape[0]))
        spread = _enlarge(colour, rows.start, rows.stop, pixels.shape[1])
        np.copyto(
            filled[rows],
            np.rint(spread).astype(pixels.dtype),
            where=hidden[rows, :, None],
        )
    return filled


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
