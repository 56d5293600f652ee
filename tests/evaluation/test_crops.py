"""Crops of a benchmark: where a network gains most and least, and how many are kept."""

from __future__ import annotations

import itertools
import math
import weakref

import numpy as np
import pytest

from srcli.evaluation.crops import SIDE, CropRanking
from srcli.evaluation.metrics import psnr
from srcli.evaluation.protocol import Reconstruction, Task, reconstruct
from srcli.imaging.color import rgb_to_y
from srcli.imaging.degrade import crop_to_multiple

TASK = Task("rgb", 2)
BETTER = (slice(10, 160), slice(10, 160), 0.8)
WORSE = (slice(200, 350), slice(300, 450), -0.5)
WHOLE = (slice(None), slice(None))


def grain(height, width, channels=3):
    """A picture on which bicubic errs everywhere alike."""
    values = np.random.default_rng(5).integers(60, 196, (height, width, channels))
    return values.astype(np.uint8)


def made_of(hr, task, *changes):
    """Bicubic's enlargement, in some places mixed with the original by a share."""
    hr = crop_to_multiple(hr, task.scale)
    (bicubic,) = reconstruct(hr, task)
    picture = bicubic.picture.astype(float)
    original = bicubic.reference if task.protocol == "y" else hr
    for rows, columns, share in changes:
        part = (rows, columns)
        picture[part] += share * (original[part].astype(float) - picture[part])
    picture = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    luma = picture if picture.ndim == 2 else rgb_to_y(picture)
    return Reconstruction(picture, luma, bicubic.reference, 0.0)


def drawn(hr, task, *changes):
    """The crops of one picture, and what was made of it."""
    ranking, made = CropRanking(), made_of(hr, task, *changes)
    ranking.offer("name", hr, task, made)
    return *ranking.draw(), made


@pytest.mark.parametrize("task", [Task("y", 3), Task("rgb", 3, "dn", seed=4)])
def test_best_and_worst_crops_are_found_and_measured(task):
    hr = grain(390, 481)
    (best, *_), (worst, *_), made = drawn(hr, task, BETTER, WORSE)
    assert best.gain > 5
    assert worst.gain < -1
    assert best.window.top < 160 > best.window.left
    assert worst.window.top > 120 < worst.window.left
    (bicubic,) = reconstruct(crop_to_multiple(hr, task.scale), task)
    for crop in (best, worst):
        part = crop.window.slices
        assert np.array_equal(crop.ours, made.picture[part])
        assert np.array_equal(crop.bicubic, bicubic.picture[part])
        original = made.reference if task.protocol == "y" else hr
        assert np.array_equal(crop.original, original[part])
        assert crop.original.shape[:2] == (SIDE, SIDE)
        assert crop.psnr == psnr(made.luma[part], made.reference[part])
        assert crop.bicubic_psnr == psnr(bicubic.luma[part], made.reference[part])
        assert crop.gain == pytest.approx(crop.psnr - crop.bicubic_psnr)


def test_crops_keep_clear_of_the_border_that_is_not_measured():
    edge = (slice(0, 3), slice(None), 1.0)
    most, least, _ = drawn(grain(200, 300), Task("rgb", 3), edge)
    for crop in itertools.chain(most, least):
        assert crop.gain == 0
        assert crop.window.top >= 3 <= crop.window.left
        assert crop.window.bottom <= 195
        assert crop.window.right <= 297


def test_parts_where_hardly_anything_can_go_wrong_are_left_out():
    hr = grain(400, 400)
    hr[:, 200:] = 100
    hr[::8, 200::8] = 102  # bicubic's error is small here
    flat = (slice(None), slice(230, None), 0.99)
    detail = (slice(0, 200), slice(0, 200), 0.2)
    most, least, _ = drawn(hr, TASK, flat, detail)
    assert all(crop.window.left < 200 for crop in (*most, *least))
    assert 0 < most[0].gain < 5


def test_only_crops_that_can_still_win_are_kept():
    ranking, pictures = CropRanking(), []
    for number, share in enumerate([0.1, 0.5, 0.3, 0.7, 0.2, 0.6]):
        hr = grain(300, 420)
        made = made_of(hr, TASK, (*WHOLE, share))
        pictures += [weakref.ref(hr), weakref.ref(made.picture)]
        ranking.offer(str(number), hr, TASK, made)
        del hr, made
    assert not any(picture() is not None for picture in pictures)
    most, least = ranking.draw()
    assert [crop.image for crop in most] == ["3", "3", "5"]
    assert [crop.image for crop in least] == ["0", "0", "4"]
    seen = np.zeros((300, 420), int)
    for crop in most[:2]:
        seen[crop.window.slices] += 1
    assert seen.max() == 1
    assert [c.gain for c in most] == sorted((c.gain for c in most), reverse=True)
    assert [c.gain for c in least] == sorted(c.gain for c in least)


@pytest.mark.parametrize(
    ("shape", "protocol"),
    [((16, 16, 1), "y"), ((300, 20, 3), "y"), ((16, 18, 3), "rgb")],
)
def test_pictures_smaller_than_a_crop_are_one(shape, protocol):
    hr = grain(*shape)
    hr = hr[:, :, 0] if shape[2] == 1 else hr
    (first, *_), least, _ = drawn(hr, Task(protocol, 2))
    assert first.ours.shape[:2] == tuple(min(side - 4, SIDE) for side in shape[:2])
    assert first.gain == 0
    if max(shape[:2]) < SIDE:
        assert least == ()  # it would be the same


def test_perfect_pictures_gain_without_end():
    assert drawn(grain(100, 100), TASK, (*WHOLE, 1.0))[0][0].gain == math.inf
    flat = np.full((100, 100, 3), 80, np.uint8)
    assert drawn(flat, TASK)[0][0].gain == 0
