"""Windows of a picture that are worth a look, apart from each other."""

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
_SPREAD = 0.3  # of the diagonal: windows less far apart count for less


class Grid:
    """Where windows of one size may lie in a picture: some steps apart, edge to edge.

    Args:
        size: Height and width of the picture.
        side: Of the windows, which are smaller where there is no room.
        border: Pixels along the picture's edges that no window covers.
    """

    def __init__(self, size: tuple[int, int], side: int, border: int = 0) -> None:
        self.height, self.width = (min(side, length - 2 * border) for length in size)
        self.tops = _list_starts(size[0], self.height, border)
        self.lefts = _list_starts(size[1], self.width, border)

    def average(self, values: NDArray[Any], every: int = 1) -> NDArray[np.float64]:
        """The mean of what lies in each window, (tops, lefts).

        Args:
            values: Of every `every`-th pixel of the picture, from row and column
                `every // 2` on; each window holds at least one.
            every: See `values`.
        """
        total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
        np.cumsum(values, axis=0, out=total[1:, 1:])
        np.cumsum(total, axis=1, out=total)

        def count(edges: NDArray[np.intp]) -> NDArray[np.intp]:
            """How many values lie before a pixel."""
            return np.maximum(-((every // 2 - edges) // every), 0)

        top, bottom = count(self.tops), count(self.tops + self.height)
        left, right = count(self.lefts), count(self.lefts + self.width)
        rows = total[bottom] - total[top]
        counts = np.outer(bottom - top, right - left)
        means: NDArray[np.float64] = (rows[:, right] - rows[:, left]) / counts
        return means

    def find_best(self, scores: NDArray[Any], taken: Iterable[Box]) -> Box | None:
        """The window of the highest score that shares no pixel with those taken.

        A score of -inf is none.
        """
        scores = scores.copy()
        for window in taken:
            down = np.abs(self.tops - window.top) < self.height
            across = np.abs(self.lefts - window.left) < self.width
            scores[down[:, None] & across] = -math.inf
        row, column = np.unravel_index(scores.argmax(), scores.shape)
        if scores[row, column] == -math.inf:
            return None
        top, left = int(self.tops[row]), int(self.lefts[column])
        return Box(top, left, top + self.height, left + self.width)


def find_differences(before: View, after: View, side: int, count: int) -> list[Box]:
    """The windows where two views of one size differ most, spread over the picture.

    At most `count`, from top to bottom, fewer where no more fit beside each other.
    Where `after` is transparent a difference counts for less.
    """
    grid = Grid(after.size, side)
    every = min(_choose_step(after.size), grid.height, grid.width)
    rows, columns = (np.arange(every // 2, length, every) for length in after.size)
    difference = np.concatenate(
        [
            _compare(
                *(
                    view.part(rows[top : top + _SAMPLED_ROWS], columns)
                    for view in (after, before)
                )
            )
            for top in range(0, len(rows), _SAMPLED_ROWS)
        ]
    )
    # The smallest number keeps windows apart also where nothing differs.
    scores = grid.average(difference, every) + np.finfo(np.float64).tiny
    spread = _SPREAD * math.hypot(*after.size)
    weights = np.ones_like(scores)
    chosen: list[Box] = []
    while len(chosen) < count:
        best = grid.find_best(scores * weights, chosen)
        if best is None:
            break
        chosen.append(best)
        distances = np.hypot((grid.tops - best.top)[:, None], grid.lefts - best.left)
        np.minimum(weights, distances / spread, out=weights)
    return sorted(chosen, key=lambda window: (window.top, window.left))


def _compare(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean difference of the colour of every pixel, (h, w), weighted with opacity."""
    transparent = ours.shape[2] in (2, 4)
    colours = slice(ours.shape[2] - transparent)
    difference = ours[:, :, colours].astype(np.float32) - theirs[:, :, colours]
    mean: NDArray[np.float32] = np.abs(difference).mean(axis=2)
    if transparent:
        mean *= ours[:, :, -1] / np.float32(255)
    return mean


def _choose_step(size: tuple[int, int]) -> int:
    """Every which row and column to compare, so that enough are left.

    A step that shares a divisor with a scale would see always the same of the places
    that a pixel can have between those of the source, where bicubic is better or worse.
    """
    step = max(1, math.ceil(math.sqrt(math.prod(size) / _SAMPLES)))
    while math.gcd(step, 6) > 1:
        step += 1
    return step


def _list_starts(length: int, side: int, border: int) -> NDArray[np.intp]:
    """Where windows begin along a picture's side, the last one at its far end."""
    last = length - border - side
    return np.unique(np.append(np.arange(border, last, max(1, side // _STEPS)), last))
