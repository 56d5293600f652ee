"""MATLAB's bicubic of a part of a picture, and of very large ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.resize import contributions
from srcli.imaging.resize_part import resize_part

_STRIP = 16  # output rows at a time
_BLOCK = 1 << 18  # source values that are floating point at a time


def resize_window(
    image: NDArray[Any],
    size: tuple[int, int],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> NDArray[Any]:
    """`imresize(image, size=size)[rows][:, columns]`, to the last bit.

    Of the picture only the surroundings of that part are read.

    Args:
        image: (H, W, C), whole numbers or floating point.
        size: Height and width of the whole result.
        rows: Rows of the result to make, in any order.
        columns: Its columns.

    Returns:
        (len(rows), len(columns), C), same dtype.
    """
    height, width = image.shape[:2]
    spans = []
    for length, out_length, wanted in (
        (height, size[0], rows),
        (width, size[1], columns),
    ):
        indices, _ = contributions(length, out_length, out_length / length)
        used = indices[wanted]
        spans.append(slice(int(used.min()), int(used.max()) + 1))
    part, corner = image[spans[0], spans[1]], (spans[0].start, spans[1].start)
    return resize_part(part, corner, (height, width), size, (rows, columns))


def fit(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """`imresize(image, size=size)` but for rounding, fast and in little memory.

    Args:
        image: (H, W, C), whole numbers or floating point, of any size.
        size: Height and width of the result, which is kept in memory several times.

    Returns:
        (H', W', C), never rounded, so that values swing over at edges.
    """
    height, width, channels = image.shape
    down, across = _list_taps(height, size[0]), _list_taps(width, size[1])
    result = np.empty((*size, channels), np.float32)
    for top in range(0, size[0], _STRIP):
        taps = down[top : top + _STRIP]
        first = min(start for start, _ in taps)
        last = max(start + len(weights) for start, weights in taps)
        source = image[first:last].reshape(last - first, -1)
        block = max(1, _BLOCK // len(source))
        parts = (
            _weigh(source[:, left : left + block].astype(np.float32), taps, first)
            for left in range(0, source.shape[1], block)
        )
        rows = np.concatenate(list(parts), axis=1)
        columns = rows.reshape(len(taps), width, channels).swapaxes(0, 1)
        strip = _weigh(columns.reshape(width, -1), across)
        shape = (size[1], len(taps), channels)
        result[top : top + _STRIP] = strip.reshape(shape).swapaxes(0, 1)
    return result


def _list_taps(length: int, out_length: int) -> list[tuple[int, NDArray[np.float32]]]:
    """The first source position of every output pixel, and the weights from there."""
    taps = []
    for used, weights in zip(
        *contributions(length, out_length, out_length / length), strict=True
    ):
        first = int(used.min())
        # Mirrored at an edge, a position may be used twice.
        taps.append((first, np.bincount(used - first, weights).astype(np.float32)))
    return taps


def _weigh(
    values: NDArray[np.float32],
    taps: list[tuple[int, NDArray[np.float32]]],
    first: int = 0,
) -> NDArray[np.float32]:
    """One pass of `fit` along the first axis of `values`, which begin at `first`."""
    # Products so small that BLAS does not share them out: where other programs keep the
    # processors busy its threads wait for each other.
    return np.stack(
        [
            weights @ values[start - first : start - first + len(weights)]
            for start, weights in taps
        ]
    )
