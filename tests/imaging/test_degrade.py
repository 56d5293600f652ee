"""Degradations: against scipy's filters, and the statistics of the noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from srcli.errors import InputError, UsageError
from srcli.imaging.degrade import crop_to_multiple, degrade
from srcli.imaging.resize import imresize


def blur_with_scipy(hr):
    """A two-dimensional 7x7 Gaussian of sigma 1.6, edges replicated, rounded."""
    y, x = np.mgrid[-3:4, -3:4]
    kernel = np.exp(-(x * x + y * y) / (2 * 1.6 * 1.6))
    kernel /= kernel.sum()
    planes = hr.reshape(*hr.shape[:2], -1).astype(np.float64)
    blurred = [
        ndimage.correlate(planes[:, :, c], kernel, mode="nearest")
        for c in range(planes.shape[2])
    ]
    return np.floor(np.stack(blurred, axis=2) + 0.5).astype(np.uint8).reshape(hr.shape)


@pytest.fixture(params=["grey", "colour"])
def hr(request, picture):
    colour = picture(24, 36)
    return colour[:, :, 0] if request.param == "grey" else colour


@pytest.mark.parametrize("scale", [1, 4])
def test_bi_is_the_bicubic_reduction(hr, scale):
    np.testing.assert_array_equal(degrade(hr, scale), imresize(hr, 1 / scale))


def test_bd_blurs_and_keeps_the_middle_of_every_block(hr):
    expected = blur_with_scipy(hr)[1::3, 1::3]
    result = degrade(hr, 3, "bd")
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("scale", [2])
def test_bd_bicubic_blurs_before_the_bicubic_reduction(hr, scale):
    expected = imresize(blur_with_scipy(hr), 1 / scale)
    np.testing.assert_array_equal(degrade(hr, scale, "bd-bicubic"), expected)


class TestNoise:
    def test_its_strength_is_thirty_levels_without_bias(self):
        noise = degrade(np.full((600, 600, 3), 128, np.uint8), 3, "dn") - 128.0
        assert noise.std() == pytest.approx(30, abs=0.4)
        assert noise.mean() == pytest.approx(0, abs=0.4)
        correlations = np.corrcoef(noise.reshape(-1, 3), rowvar=False)
        assert np.abs(correlations - np.eye(3)).max() < 0.02

    def test_it_is_clipped_not_wrapped(self):
        noisy = degrade(np.zeros((90, 90), np.uint8), 3, "dn")
        assert np.mean(noisy == 0) == pytest.approx(0.5, abs=0.07)
        assert noisy.max() < 180

    def test_a_seed_repeats_it(self, picture):
        first, again, other = (degrade(picture(), 2, "dn", seed) for seed in (4, 4, 5))
        np.testing.assert_array_equal(first, again)
        assert np.mean(first != other) > 0.9


class TestRefusals:
    def test_an_unknown_kind_names_the_nearest(self, picture):
        with pytest.raises(UsageError, match="did you mean bd-bicubic"):
            degrade(picture(), 2, "bd-bicubik")

    @pytest.mark.parametrize("size", [(24, 32), (2, 3)], ids=str)
    def test_pictures_must_be_cropped_first(self, picture, size):
        with pytest.raises(InputError, match="crop"):
            degrade(picture(*size), 3)


class TestCrop:
    def test_the_top_left_part_stays(self):
        hr = np.random.default_rng(0).integers(0, 256, (11, 14, 3))
        np.testing.assert_array_equal(crop_to_multiple(hr, 4), hr[:8, :12])
        np.testing.assert_array_equal(crop_to_multiple(hr, 1), hr)

    def test_nothing_left_is_an_error(self):
        with pytest.raises(InputError, match="too small"):
            crop_to_multiple(np.zeros((3, 9)), 4)
