"""Which parts of a picture are worth a look: windows that stand out, apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.box import Box
from srcli.pages.view import View

_STEPS = 4  # windows tried per side of one
_SAMPLES = 2_000_000  # pixels that stand for all where two pictures are compared
_SAMPLED_ROWS = 16  # of them, rows at a time


class Grid:
    """Where windows of one size may lie in a picture: some steps apart, edge to edge.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture.
        side: Of the windows, which are smaller where there is no room.
        border: Pixels along the picture's edges that no window covers.
    """

    def __init__(self, height: int, width: int, side: int, border: int = 0) -> None:
        self.height = min(side, height - 2 * border)
        self.width = min(side, width - 2 * border)
        self.tops = _list_starts(height, self.height, border)
        self.lefts = _list_starts(width, self.width, border)

    def average(
        self, values: NDArray[Any], every: int = 1, first: int = 0
    ) -> NDArray[np.float64]:
        """The mean of what lies in each window, (tops, lefts).

        Args:
            values: Of every `every`-th pixel of the picture from row and column
                `first` on; each window holds at least one.
            every: See `values`.
            first: See `values`.
        """
        total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        np.cumsum(values, axis=0, out=total[1:, 1:])
        np.cumsum(total, axis=1, out=total)

        def count(edges: NDArray[np.intp]) -> NDArray[np.intp]:
            """How many values lie before a pixel."""
            return np.maximum(-((first - edges) // every), 0)

        top, bottom = count(self.tops), count(self.tops + self.height)
        left, right = count(self.lefts), count(self.lefts + self.width)
        rows = total[bottom] - total[top]
        counts = np.outer(bottom - top, right - left)
        means: NDArray[np.float64] = (rows[:, right] - rows[:, left]) / counts
        return means

    def choose(
        self,
        scores: NDArray[np.float64],
        count: int,
        *,
        spread: float = 0.0,
        taken: Iterable[Box] = (),
    ) -> list[Box]:
        """The windows of the highest scores, the best first; no two overlap.

        Args:
            scores: Of each window; -inf where one may not be chosen.
            count: How many at most.
            spread: Pixels between the corners of two windows below which the score,
                then at least 0, of the second one counts for less.
            taken: Windows of the grid that are chosen already.
        """
        free = scores > -math.inf
        for window in taken:
            free &= ~self._overlap(window)
        weights = np.ones_like(scores)
        chosen: list[Box] = []
        while len(chosen) < count and free.any():
            weighted = scores * weights if spread else scores
            best = np.where(free, weighted, -math.inf).argmax()
            row, column = np.unravel_index(best, scores.shape)
            top, left = int(self.tops[row]), int(self.lefts[column])
            chosen.append(Box(top, left, top + self.height, left + self.width))
            free &= ~self._overlap(chosen[-1])
            if spread:
                distance = np.hypot((self.tops - top)[:, None], self.lefts - left)
                np.minimum(weights, distance / spread, out=weights)
        return chosen

    def _overlap(self, window: Box) -> NDArray[np.bool_]:
        """Whether each window shares a pixel with one of the grid."""
        down = np.abs(self.tops - window.top) < self.height
        across = np.abs(self.lefts - window.left) < self.width
        return down[:, None] & across


def find_differences(before: View, after: View, side: int, count: int) -> list[Box]:
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
    grid = Grid(height, width, side)
    every = min(_choose_step(height * width), grid.height, grid.width)
    first = every // 2
    rows, columns = (np.arange(first, length, every) for length in after.size)
    difference = np.empty((len(rows), len(columns)), np.float32)
    for top in range(0, len(rows), _SAMPLED_ROWS):
        band = slice(top, top + _SAMPLED_ROWS)
        ours, theirs = (view.part(rows[band], columns) for view in (after, before))
        difference[band] = _difference(ours, theirs)
    scores = grid.average(difference, every, first)
    # The smallest number keeps windows apart also where nothing differs.
    scores += np.finfo(np.float64).tiny
    chosen = grid.choose(scores, count, spread=0.3 * math.hypot(height, width))
    return sorted(chosen, key=lambda window: (window.top, window.left))


def _difference(
    ours: NDArray[np.uint8], theirs: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Mean difference of the colour of every pixel, (h, w), weighted with opacity."""
    transparent = ours.shape[2] in (2, 4)
    colours = [
        each[:, :, : ours.shape[2] - transparent].astype(np.float32)
        for each in (ours, theirs)
    ]
    difference: NDArray[np.float32] = np.abs(colours[0] - colours[1]).mean(axis=2)
    if transparent:
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


def _list_starts(length: int, side: int, border: int) -> NDArray[np.intp]:
    """Where windows begin along a picture's side, the last one at its far end."""
    last = length - border - side
    starts = np.arange(border, last + 1, max(1, side // _STEPS))
    return np.append(starts, last) if starts[-1] != last else starts
