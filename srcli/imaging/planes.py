"""Arrays of pixels on their way out of a file, worked on in bands to save memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

_BAND = 256  # rows worked on at a time


class Planes(NamedTuple):
    """Decoded pixels, not turned upright.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8, uint16 or float32.
        alpha: Opacity, (H, W), same dtype; None where there is none.
        own_colours: Whether they are still in the file's own colours.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    own_colours: bool = True


def split_alpha(planes: NDArray[Any], own_colours: bool = True) -> Planes:
    """Planes (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha."""
    if planes.shape[2] in (2, 4):
        return Planes(planes[:, :, :-1], planes[:, :, -1], own_colours)
    return Planes(planes, None, own_colours)


def in_bands(
    function: Callable[..., NDArray[Any]],
    *planes: NDArray[Any],
    channels: int,
    dtype: DTypeLike,
) -> NDArray[Any]:
    """A function of each pixel, applied to a few rows at a time: (H, W, channels).

    It takes rows of `planes`, each (H, W) or (H, W, ...), and gives (rows, W, C).
    """
    result = np.empty((*planes[0].shape[:2], channels), dtype)
    for top in range(0, len(result), _BAND):
        rows = slice(top, top + _BAND)
        result[rows] = function(*(plane[rows] for plane in planes))
    return result


def widen(levels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Levels, (H, W, C), of 1 to 16 bits as the full range of uint8 or uint16."""
    dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    if bits == 8 * dtype.itemsize:
        return levels.astype(dtype, copy=False)
    peak, most = 2**bits - 1, 2 ** (8 * dtype.itemsize) - 1
    table = ((np.arange(peak + 1) * most + peak // 2) // peak).astype(dtype)
    return look_up(table[:, None], levels)


def look_up(table: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """What a table, (N, C), has under numbers, (H, W) or (H, W, 1): (H, W, C).

    With a table of one column, numbers may be (H, W, M). Numbers that are too large get
    its last row.
    """

    def find(band: NDArray[Any]) -> NDArray[Any]:
        return table.take(band, axis=0, mode="clip").reshape(*band.shape[:2], -1)

    channels = numbers[0, 0].size * table.shape[1]
    return in_bands(find, numbers, channels=channels, dtype=table.dtype)


def unmultiply(colours: NDArray[Any], opacity: NDArray[Any]) -> NDArray[Any]:
    """Colours, (H, W, C), that were multiplied by the opacity, (H, W), without it."""

    def divide(band: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
        if band.dtype == np.float32:
            return band / np.where(alpha > 0, alpha, np.float32(1))[:, :, None]
        peak = np.uint32(np.iinfo(band.dtype).max)
        some = np.maximum(alpha, 1).astype(np.uint32)[:, :, None]
        return np.minimum((band.astype(np.uint32) * peak + some // 2) // some, peak)

    channels, dtype = colours.shape[2], colours.dtype
    return in_bands(divide, colours, opacity, channels=channels, dtype=dtype)
