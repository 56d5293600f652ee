"""A part of what `imresize` would make of a picture of which only a part is there."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.resize import (
    KERNEL_WIDTH,
    contributions,
    resample_columns,
    resample_rows,
)

Wanted: TypeAlias = slice | NDArray[np.intp]


def resize_part(
    part: NDArray[Any],
    corner: tuple[int, int],
    whole: tuple[int, int],
    size: tuple[int, int],
    wanted: tuple[Wanted, Wanted],
) -> NDArray[Any]:
    """`imresize(picture, size=size)[rows][:, columns]`, to the last bit.

    Args:
        part: (h, w, C) of a picture: what `wanted` depends on, at least `reach` pixels
            beyond where it lies on each side, as far as the picture goes.
        corner: The picture's row and column where the part begins.
        whole: Height and width of the picture.
        size: Height and width of the whole result.
        wanted: The rows and columns of the result to make, in any order.

    Returns:
        The part of the result, same dtype.
    """
    scales = size[0] / whole[0], size[1] / whole[1]
    # The order of the passes shows: whole numbers are rounded after each.
    for axis in np.argsort(scales, kind="stable").tolist():
        start, out = corner[axis], wanted[axis]
        if whole[axis] == size[axis]:
            part = part.take(np.arange(whole[axis])[out] - start, axis)
            continue
        indices, weights = contributions(whole[axis], size[axis], scales[axis])
        taps = indices[out] - start, weights[out]
        if taps[0].min() < 0 or taps[0].max() >= part.shape[axis]:
            raise ValueError("the part is too small")
        part = (resample_rows if axis == 0 else resample_columns)(part, *taps)
    return part


def reach(scale: float) -> int:
    """How many pixels around its place `imresize` reads for a pixel of the result.

    Args:
        scale: Output pixels per input pixel.
    """
    return math.ceil(KERNEL_WIDTH / 2 / min(scale, 1)) + 2
