"""Parts of bicubic pictures are those of the whole, and reduced ones nearly so."""

from __future__ import annotations

import numpy as np
import pytest

from srcli.imaging.resize import imresize
from srcli.pages import resample
from srcli.pages.resample import fit, resize_window


def noise(shape, dtype):
    values = np.random.default_rng(1).random(shape)
    if np.issubdtype(dtype, np.integer):
        return (values * np.iinfo(dtype).max).astype(dtype)
    return (3 * values - 1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "size",
    [(46, 62), (69, 93), (92, 124), (58, 78), (23, 31), (11, 13), (90, 20), (12, 100)],
    ids=str,
)
def test_a_part_is_the_whole_ones_to_the_last_bit(dtype, size):
    image = noise((23, 31, 3), dtype)
    whole = imresize(image, size=size)
    height, width = size
    for rows, columns in (
        (np.arange(height), np.arange(width)),
        (np.arange(3), np.arange(width - 4, width)),
        (np.arange(height // 2, height), np.arange(width // 3, width // 2)),
        (np.arange(2, height, 5), np.arange(1, width, 7)),
        (np.array([height - 1]), np.array([0])),
    ):
        part = resize_window(image, size, rows, columns)
        assert part.dtype == dtype
        assert np.array_equal(part, whole[np.ix_(rows, columns)])


def test_a_single_pixel_has_parts_too():
    image = noise((1, 1, 1), np.uint8)
    part = resize_window(image, (4, 6), np.array([3]), np.array([0, 5]))
    assert (part == image[0, 0, 0]).all()


@pytest.mark.parametrize("size", [(40, 37), (7, 9), (150, 61), (100, 100)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_fitted_picture_is_the_resized_one_before_rounding(size, dtype, monkeypatch):
    monkeypatch.setattr(resample, "_BLOCK", 500)  # several blocks a strip
    image = noise((100, 100, 3), dtype)
    expected = imresize(image.astype(np.float64), size=size)
    reach = np.abs(image.astype(float)).max()
    assert np.abs(fit(image, size) - expected).max() < 1e-5 * reach
