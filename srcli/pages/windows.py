"""Which parts of a picture are worth a look: windows that stand out, apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEPS = 4  # windows tried per side of one


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows of the picture that it covers."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """The columns of the picture that it covers."""
        return slice(self.left, self.left + self.width)

    def overlaps(self, other: Window) -> bool:
        """Whether the two share a pixel."""
        down, right = other.top - self.top, other.left - self.left
        return -other.height < down < self.height and -other.width < right < self.width

    def moved(self, down: int, right: int) -> Window:
        """The window so many pixels further."""
        return Window(self.top + down, self.left + right, self.height, self.width)


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where windows of one size may lie in a picture: some steps apart, edge to edge.

    Attributes:
        tops: The rows, (m,), at which one may begin.
        lefts: The columns, (n,).
        height: Of every window.
        width: Of every window.
    """

    tops: NDArray[np.intp]
    lefts: NDArray[np.intp]
    height: int
    width: int

    @classmethod
    def lay(cls, height: int, width: int, side: int) -> Grid:
        """The grid of a picture, of windows of `side` pixels or as many as there are.

        Args:
            height: Of the picture.
            width: Of the picture.
            side: Of the windows.
        """
        tops, lefts = (_list_starts(length, side) for length in (height, width))
        return cls(tops, lefts, min(side, height), min(side, width))

    def average(
        self, values: NDArray[Any], every: int = 1, first: int = 0
    ) -> NDArray[np.float64]:
        """The mean of what lies in each window, (m, n).

        Args:
            values: Of every `every`-th pixel of the picture from row and column
                `first` on; each window holds at least one.
            every: See `values`.
            first: See `values`.
        """
        total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        np.cumsum(values, axis=0, out=total[1:, 1:])
        np.cumsum(total, axis=1, out=total)
        bounds = []
        for starts, side in ((self.tops, self.height), (self.lefts, self.width)):
            # The number of values that lie before a pixel.
            before, behind = (
                np.maximum(-((first - edge) // every), 0)
                for edge in (starts, starts + side)
            )
            bounds.append((before, behind))
        (top, bottom), (left, right) = bounds
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
        taken: Iterable[Window] = (),
    ) -> list[Window]:
        """The windows of the highest scores, the best first; no two overlap.

        Args:
            scores: Of each window, (m, n); -inf where one may not be chosen.
            count: How many at most.
            spread: Pixels between the corners of two windows below which the score,
                then at least 0, of the second one counts for less.
            taken: Windows of the grid that are chosen already.
        """
        free = scores > -math.inf
        for window in taken:
            free &= ~self._overlap(window)
        weights = np.ones_like(scores)
        chosen: list[Window] = []
        while len(chosen) < count and free.any():
            weighted = scores * weights if spread else scores
            best = np.where(free, weighted, -math.inf).argmax()
            row, column = np.unravel_index(best, scores.shape)
            top, left = int(self.tops[row]), int(self.lefts[column])
            chosen.append(Window(top, left, self.height, self.width))
            free &= ~self._overlap(chosen[-1])
            if spread:
                distance = np.hypot((self.tops - top)[:, None], self.lefts - left)
                np.minimum(weights, distance / spread, out=weights)
        return chosen

    def _overlap(self, window: Window) -> NDArray[np.bool_]:
        """Whether each window, (m, n), shares a pixel with one of the grid."""
        down = np.abs(self.tops - window.top) < self.height
        across = np.abs(self.lefts - window.left) < self.width
        return down[:, None] & across


def _list_starts(length: int, side: int) -> NDArray[np.intp]:
    """Where windows begin along a picture's side, the last one at its far end."""
    last = max(0, length - side)
    starts = np.arange(0, last + 1, max(1, side // _STEPS))
    return np.append(starts, last) if starts[-1] != last else starts
