"""Pictures as a page shows them: in 8 bits, at one size, whole or in parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.alpha import fill_transparent
from srcli.imaging.files import Picture, Pixels
from srcli.imaging.resize import imresize
from srcli.pages.resample import fit, resize_window
from srcli.pages.windows import Grid, Window

_SAMPLES = 2_000_000  # pixels that stand for all where two pictures are compared
_SAMPLED_ROWS = 16  # of them, rows at a time

Levels = tuple[float, float]  # of black and white


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture as seen at some size: bicubic unless the size is its own.

    Attributes:
        pixels: (H, W, 1) or (H, W, 3).
        alpha: (H, W, 1), or None.
        levels: Of `pixels`.
        size: Height and width that it is seen at.
        icc: Its colour profile.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None
    levels: Levels
    size: tuple[int, int]
    icc: bytes | None

    def crop(self, window: Window) -> NDArray[np.uint8]:
        """A part of the picture at its size, (h, w, C), the last channel alpha."""
        rows, columns = (
            np.arange(span.start, span.stop) for span in (window.rows, window.columns)
        )
        return self.sample(rows, columns)

    def sample(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.uint8]:
        """Some rows of some columns, (h, w, C), the last channel alpha if any."""
        parts = [
            _narrow(resize_window(plane, self.size, rows, columns), levels)
            for plane, levels in self._planes()
        ]
        return np.concatenate(parts, axis=2)

    def whole(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """All of it reduced to a size, (h, w, C); exact at the view's own size."""
        parts = [
            _narrow(
                imresize(plane, size=size) if size == self.size else fit(plane, size),
                levels,
            )
            for plane, levels in self._planes()
        ]
        return np.concatenate(parts, axis=2)

    def _planes(self) -> list[tuple[NDArray[Any], Levels]]:
        """The pixels and alpha, each with its levels."""
        planes = [(self.pixels, self.levels)]
        if self.alpha is not None:
            planes.append((self.alpha, _natural_levels(self.alpha)))
        return planes


def view_pair(source: Picture, result: Picture) -> tuple[View, View]:
    """Bicubic of `source`, and `result`, both at the size of `result`.

    Floating-point pictures are shown between the levels of `source`, both alike.
    """
    size = (result.height, result.width)
    pixels: Pixels = source.pixels
    if source.alpha is not None:
        # As for every enlargement, bicubic included (`srcli.inference.upscaler`).
        pixels = fill_transparent(pixels, source.alpha)
    levels = source.levels
    alike = source.pixels.dtype == result.pixels.dtype
    return (
        View(pixels, _stack(source.alpha), levels, size, source.metadata.icc),
        View(
            result.pixels,
            _stack(result.alpha),
            levels if alike else result.levels,
            size,
            result.metadata.icc,
        ),
    )


def find_differences(before: View, after: View, side: int, count: int) -> list[Window]:
    """The windows where two views of one size differ most, spread over the picture.

    Args:
        before: One of them.
        after: The other; where it is transparent a difference counts for less.
        side: Of the windows, in pixels.
        count: How many at most; fewer where no more fit beside each other.

    Returns:
        Windows that do not overlap, from top to bottom.
    """
    height, width = after.size
    grid = Grid.lay(height, width, side)
    every = min(_choose_step(height * width), grid.height, grid.width)
    first = every // 2
    rows, columns = (np.arange(first, length, every) for length in after.size)
    difference = np.empty((len(rows), len(columns)), np.float32)
    for top in range(0, len(rows), _SAMPLED_ROWS):
        band = slice(top, top + _SAMPLED_ROWS)
        ours, theirs = (v.sample(rows[band], columns) for v in (after, before))
        difference[band] = _difference(ours, theirs, after.pixels.shape[2])
    scores = grid.average(difference, every, first)
    # The smallest number keeps windows apart also where nothing differs.
    scores += np.finfo(np.float64).tiny
    chosen = grid.choose(scores, count, spread=0.3 * math.hypot(height, width))
    return sorted(chosen, key=lambda window: (window.top, window.left))


def _difference(
    ours: NDArray[np.uint8], theirs: NDArray[np.uint8], channels: int
) -> NDArray[np.float32]:
    """Mean difference of the colour of every pixel, (h, w), weighted with opacity."""
    colours = [each[:, :, :channels].astype(np.float32) for each in (ours, theirs)]
    difference: NDArray[np.float32] = np.abs(colours[0] - colours[1]).mean(axis=2)
    if ours.shape[2] > channels:
        difference *= ours[:, :, -1] / np.float32(255)
    return difference


def _choose_step(pixels: int) -> int:
    """Every which row and column to compare, so that enough are left.

    A step that shares a divisor with a scale would see always the same of the places
    that a pixel can have between those of the source, where bicubic is better or worse.
    """
    step = max(1, math.ceil(math.sqrt(pixels / _SAMPLES)))
    while math.gcd(step, 6) > 1:
        step += 1
    return step


def _stack(alpha: Pixels | None) -> NDArray[Any] | None:
    return None if alpha is None else alpha[:, :, None]


def _natural_levels(values: NDArray[Any]) -> Levels:
    """Black and white of whole numbers, or of fractions."""
    if np.issubdtype(values.dtype, np.integer):
        return 0.0, float(np.iinfo(values.dtype).max)
    return 0.0, 1.0


def _narrow(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """`values` in 8 bits, rounded and clipped, so that `levels` are 0 and 255."""
    if values.dtype == np.uint8:
        return values
    black, white = levels
    scaled = values.astype(np.float32)
    scaled -= black
    scaled *= 255.0 / (white - black)
    scaled += 0.5
    np.floor(scaled, out=scaled)
    return scaled.clip(0, 255, out=scaled).astype(np.uint8)
