"""Tiles cover every pixel once, with as much context as asked and available."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.imaging.box import Box
from srcli.inference.tiling import Tile, plan_tiles

lengths = st.integers(1, 90)
sides = st.integers(3, 120)
overlaps = st.integers(0, 40)


def times_written(tiles: list[Tile], height: int, width: int) -> np.ndarray:
    count = np.zeros((height, width), int)
    for tile in tiles:
        count[tile.core.slices] += 1
    return count


@settings(deadline=None)
@given(lengths, lengths, sides, overlaps)
def test_every_pixel_is_in_one_core(height, width, side, overlap):
    tiles = plan_tiles(Box(0, 0, height, width), side, (height, width), overlap)
    assert (times_written(tiles, height, width) == 1).all()


@settings(deadline=None)
@given(lengths, lengths, sides, overlaps)
def test_context_is_complete_or_ends_with_the_picture(height, width, side, overlap):
    for tile in plan_tiles(Box(0, 0, height, width), side, (height, width), overlap):
        core, padded = tile.core, tile.padded
        assert padded.top == max(0, core.top - overlap)
        assert padded.left == max(0, core.left - overlap)
        assert padded.bottom == min(height, core.bottom + overlap)
        assert padded.right == min(width, core.right + overlap)


@settings(deadline=None)
@given(lengths, lengths, sides, overlaps)
def test_cores_are_balanced_and_no_larger_than_asked(height, width, side, overlap):
    cores = [
        tile.core
        for tile in plan_tiles(Box(0, 0, height, width), side, (height, width), overlap)
    ]
    for sizes in ({core.height for core in cores}, {core.width for core in cores}):
        assert max(sizes) <= side
        assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(lengths, lengths, sides, overlaps, st.data())
def test_splitting_keeps_the_pixels_and_the_rules(height, width, side, overlap, data):
    tiles = plan_tiles(Box(0, 0, height, width), side, (height, width), overlap)
    chosen = data.draw(st.sampled_from(tiles))
    half = -(-chosen.core.side // 2)
    pieces = plan_tiles(chosen.core, half, (height, width), overlap)
    assert 1 <= len(pieces) <= 4
    assert max(piece.core.side for piece in pieces) <= half
    rest = [tile for tile in tiles if tile is not chosen]
    assert (times_written(rest + pieces, height, width) == 1).all()
    for piece in pieces:
        assert piece.padded == piece.core.grown(overlap, height, width)


def test_tile_zero_is_the_whole_picture():
    whole = Box(0, 0, 700, 900)
    assert plan_tiles(whole, 900, whole.size, 16) == [Tile(whole, whole)]


def test_a_picture_a_little_larger_than_a_tile_is_halved_not_slivered():
    cores = [tile.core for tile in plan_tiles(Box(0, 0, 100, 110), 100, (100, 110), 8)]
    assert [(core.height, core.width) for core in cores] == [(100, 55), (100, 55)]


def test_boxes_scale_and_move_with_their_picture():
    core, padded = Box(10, 20, 14, 26), Box(8, 18, 16, 28)
    picture = np.arange(40 * 40).reshape(40, 40)
    large = picture.repeat(3, 0).repeat(3, 1)
    inner = core.within(padded)
    np.testing.assert_array_equal(
        picture[padded.slices][inner.slices], picture[core.slices]
    )
    np.testing.assert_array_equal(
        large[padded.scaled(3).slices][inner.scaled(3).slices],
        large[core.scaled(3).slices],
    )
