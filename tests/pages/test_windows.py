"""Windows: where they may lie, what is in them, and which are chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srcli.pages.windows import Grid


@pytest.mark.parametrize(
    ("height", "width", "border"), [(40, 70, 0), (16, 16, 0), (5, 90, 2), (1, 1, 0)]
)
def test_windows_reach_every_edge_and_none_over_it(height, width, border):
    grid = Grid(height, width, 16, border)
    inner = height - 2 * border, width - 2 * border
    assert (grid.height, grid.width) == (min(16, inner[0]), min(16, inner[1]))
    assert (grid.tops[0], grid.lefts[0]) == (border, border)
    assert grid.tops[-1] + grid.height == height - border
    assert grid.lefts[-1] + grid.width == width - border


@pytest.mark.parametrize(("every", "first"), [(1, 0), (5, 2), (7, 3)])
def test_mean_of_a_window_is_that_of_the_pixels_in_it(every, first):
    picture = np.random.default_rng(2).random((61, 83))
    grid = Grid(61, 83, 16)
    means = grid.average(picture[first::every, first::every], every, first)
    seen = np.zeros(picture.shape, bool)
    seen[first::every, first::every] = True
    for row, top in enumerate(grid.tops):
        for column, left in enumerate(grid.lefts):
            part = (slice(top, top + 16), slice(left, left + 16))
            expected = picture[part][seen[part]].mean()
            assert means[row, column] == pytest.approx(expected)


def test_the_best_windows_are_chosen_and_share_no_pixel():
    grid = Grid(200, 200, 40)
    scores = np.random.default_rng(3).random((len(grid.tops), len(grid.lefts)))
    chosen = grid.choose(scores, 5)
    assert len(chosen) == 5
    seen = np.zeros((200, 200), int)
    for window in chosen:
        seen[window.slices] += 1
    assert seen.max() == 1
    best = np.unravel_index(scores.argmax(), scores.shape)
    assert (chosen[0].top, chosen[0].left) == (grid.tops[best[0]], grid.lefts[best[1]])


def test_spreading_passes_neighbours_over_for_what_is_far_and_nearly_as_good():
    grid = Grid(100, 1000, 100)
    scores = np.zeros((1, len(grid.lefts)))
    by_left = dict(zip(grid.lefts.tolist(), range(len(grid.lefts)), strict=True))
    for left, score in {0: 10.0, 100: 9.0, 800: 8.0}.items():
        scores[0, by_left[left]] = score
    assert [w.left for w in grid.choose(scores, 2)] == [0, 100]
    assert [w.left for w in grid.choose(scores, 2, spread=400)] == [0, 800]


def test_no_more_windows_than_fit_and_are_allowed():
    grid = Grid(30, 30, 20)
    scores = np.ones((len(grid.tops), len(grid.lefts)))
    assert len(grid.choose(scores, 6)) == 1
    assert grid.choose(np.full_like(scores, -math.inf), 6) == []
    assert len(grid.choose(np.full_like(scores, math.inf), 6)) == 1
