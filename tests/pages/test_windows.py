"""Windows: where they may lie, what is in them, and which are chosen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srcli.imaging.picture import Picture
from srcli.pages import windows
from srcli.pages.view import view_pair
from srcli.pages.windows import Grid, find_differences


@pytest.mark.parametrize(
    ("size", "border"), [((40, 70), 0), ((16, 16), 0), ((5, 90), 2), ((1, 1), 0)]
)
def test_windows_reach_every_edge_and_none_over_it(size, border):
    grid = Grid(size, 16, border)
    inner = tuple(side - 2 * border for side in size)
    assert (grid.height, grid.width) == (min(16, inner[0]), min(16, inner[1]))
    assert (grid.tops[0], grid.lefts[0]) == (border, border)
    assert grid.tops[-1] + grid.height == size[0] - border
    assert grid.lefts[-1] + grid.width == size[1] - border


@pytest.mark.parametrize("every", [1, 5, 7])
def test_mean_of_a_window_is_that_of_the_pixels_in_it(every):
    picture = np.random.default_rng(2).random((61, 83))
    first = every // 2
    grid = Grid((61, 83), 16)
    means = grid.average(picture[first::every, first::every], every)
    seen = np.zeros(picture.shape, bool)
    seen[first::every, first::every] = True
    for row, top in enumerate(grid.tops):
        for column, left in enumerate(grid.lefts):
            part = (slice(top, top + 16), slice(left, left + 16))
            expected = picture[part][seen[part]].mean()
            assert means[row, column] == pytest.approx(expected)


def test_the_best_window_that_is_left_is_found_until_none_is():
    grid = Grid((200, 200), 40)
    scores = np.random.default_rng(3).random((len(grid.tops), len(grid.lefts)))
    scores[0] = -math.inf
    seen, chosen = np.zeros((200, 200), int), []
    while window := grid.find_best(scores, chosen):
        chosen.append(window)
        seen[window.slices] += 1
    assert len(chosen) > 5
    assert seen.max() == 1
    assert min(window.top for window in chosen) > 0
    row, column = np.unravel_index(scores.argmax(), scores.shape)
    assert (chosen[0].top, chosen[0].left) == (grid.tops[row], grid.lefts[column])


def test_differences_are_found_in_samples_and_spread_over_the_picture(monkeypatch):
    monkeypatch.setattr(windows, "_SAMPLES", 20_000)  # as for a much larger picture
    source = Picture(np.zeros((100, 500, 3), np.uint8))
    larger = np.zeros((200, 1000, 3), np.uint8)
    for left, level in ((0, 100), (200, 90), (800, 80)):
        larger[:, left : left + 200] = level
    views = view_pair(source, Picture(larger))
    found = find_differences(*views, 200, 2)
    assert [window.left for window in found] == [0, 800]
    assert 3 <= len(find_differences(*views, 200, 9)) <= 5  # no more fit


def test_a_hidden_difference_does_not_count():
    opacity = np.full((100, 200), 255, np.uint8)
    opacity[:, 100:] = 0
    larger = np.zeros((200, 400, 3), np.uint8)
    larger[100:120, 100:120] = 50
    larger[100:180, 300:380] = 255
    source = Picture(np.zeros((100, 200, 3), np.uint8), opacity)
    result = Picture(larger, opacity.repeat(2, 0).repeat(2, 1))
    (window,) = find_differences(*view_pair(source, result), 64, 1)
    assert window.top < 120 < window.bottom + 20
    assert window.left < 120 < window.right + 20
