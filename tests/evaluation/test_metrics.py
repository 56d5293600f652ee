"""PSNR and SSIM by hand and by scipy; IFC by a second, plain implementation."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy import ndimage, signal

from srcli.errors import InputError, UsageError
from srcli.evaluation.metrics import ifc, psnr, ssim


def texture(height, width, seed=0):
    """Noise with detail at every size, uint8."""
    rng = np.random.default_rng(seed)
    layers = [
        ndimage.gaussian_filter(rng.standard_normal((height, width)), sigma) * sigma
        for sigma in (0.5, 1, 2, 4, 8)
    ]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


def blurred(picture, sigma):
    return ndimage.gaussian_filter(picture.astype(np.float64), sigma)


class TestPsnr:
    def test_one_level_everywhere(self):
        flat = np.full((4, 5), 100, np.uint8)
        assert psnr(flat + 1, flat) == pytest.approx(20 * math.log10(255))

    def test_the_mean_is_taken_of_squares(self):
        estimate = np.array([[3.0, 0.0], [0.0, 4.0]])
        expected = 10 * math.log10(255**2 / (25 / 4))
        assert psnr(estimate, np.zeros((2, 2))) == pytest.approx(expected)

    def test_uint8_pictures_do_not_wrap_around(self):
        black, white = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
        assert psnr(black, white) == psnr(white, black) == 0.0

    def test_equal_pictures_are_infinitely_good(self):
        picture = texture(8, 9)
        assert psnr(picture, picture.astype(np.float64)) == math.inf

    def test_the_border_does_not_count(self):
        reference = texture(12, 14)
        estimate = reference.copy()
        estimate[2:-2, 2:-2] ^= 1
        expected = psnr(estimate[2:-2, 2:-2], reference[2:-2, 2:-2])
        estimate[:2], estimate[-2:], estimate[:, :2], estimate[:, -2:] = 0, 0, 0, 0
        assert psnr(estimate, reference, 2) == expected == pytest.approx(48.1308036)


def ssim_with_scipy(first, second):
    """The definition, window by window in two dimensions."""
    y, x = np.mgrid[-5:6, -5:6]
    window = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    window /= window.sum()
    first, second = first.astype(np.float64), second.astype(np.float64)

    def mean(values):
        return signal.convolve2d(values, window, mode="valid")

    mu_1, mu_2 = mean(first), mean(second)
    var_1, var_2 = mean(first**2) - mu_1**2, mean(second**2) - mu_2**2
    cov = mean(first * second) - mu_1 * mu_2
    c1, c2 = 6.5025, 58.5225
    luminance = (2 * mu_1 * mu_2 + c1) / (mu_1**2 + mu_2**2 + c1)
    return np.mean(luminance * (2 * cov + c2) / (var_1 + var_2 + c2))


class TestSsim:
    # Heights around the strips of 64 rows in which the program works.
    @pytest.mark.parametrize(
        "shape", [(11, 11), (74, 30), (75, 17), (150, 60)], ids=str
    )
    def test_it_equals_the_definition(self, shape):
        first, second = texture(*shape), texture(*shape, seed=1)
        for other in (second, blurred(first, 1.0)):
            expected = ssim_with_scipy(first, other)
            assert ssim(first, other) == pytest.approx(expected, abs=1e-12)

    def test_flat_pictures_differ_by_their_means_alone(self):
        dark, light = np.full((20, 20), 100, np.uint8), np.full((20, 20), 200, np.uint8)
        expected = (2 * 100 * 200 + 6.5025) / (100**2 + 200**2 + 6.5025)
        assert ssim(dark, light) == pytest.approx(expected, abs=1e-9)

    def test_it_is_one_for_equal_pictures_and_less_for_others(self):
        picture = texture(40, 50)
        assert ssim(picture, picture) == 1.0
        assert ssim(255 - picture, picture) < 0.5
        scores = [ssim(blurred(picture, sigma), picture) for sigma in (0.5, 1, 2)]
        assert scores == sorted(scores, reverse=True)

    def test_it_is_symmetric(self):
        first, second = texture(30, 30), texture(30, 30, seed=1)
        assert ssim(first, second) == ssim(second, first)

    def test_the_border_does_not_count(self):
        first, second = texture(30, 33), texture(30, 33, seed=1)
        expected = ssim(first[3:-3, 3:-3], second[3:-3, 3:-3])
        assert ssim(first, second, 3) == expected


def ifc_block_by_block(estimate, reference):
    """The criterion with scipy's filters and a loop over the blocks.

    Of pyrtools only the filter taps are used.
    """
    from pyrtools.pyramids.filters import named_filter

    taps = named_filter("sp5_filters")

    def sub_bands(picture):
        low = ndimage.correlate(
            picture.astype(np.float64), taps["lo0filt"], mode="mirror"
        )
        for level in range(4):
            for orientation in (0, 3):
                oriented = taps["bfilts"][:, orientation].reshape(7, 7).T
                yield (
                    2 ** (4 - level) + 1,
                    ndimage.correlate(low, oriented, mode="mirror"),
                )
            low = ndimage.correlate(low, taps["lofilt"], mode="mirror")[::2, ::2]

    bits = 0.0
    bands = zip(sub_bands(reference), sub_bands(estimate), strict=True)
    for (window, sent), (_, received) in bands:
        rows, columns = sent.shape[0] // 3 * 3, sent.shape[1] // 3 * 3
        sent, received = sent[:rows, :columns], received[:rows, :columns]
        patches = [
            sent[r : r + 3, c : c + 3].ravel()
            for r in range(rows - 2)
            for c in range(columns - 2)
        ]
        covariance = np.cov(np.array(patches).T, bias=True)
        inverse, values = np.linalg.inv(covariance), np.linalg.eigvalsh(covariance)
        half = window // 2
        margin = math.ceil(half / 3)
        for r in range(margin, rows // 3 - margin):
            for c in range(margin, columns // 3 - margin):
                block = sent[3 * r : 3 * r + 3, 3 * c : 3 * c + 3].ravel()
                around = (
                    slice(3 * r + 1 - half, 3 * r + 2 + half),
                    slice(3 * c + 1 - half, 3 * c + 2 + half),
                )
                moments = np.cov(
                    sent[around].ravel(), received[around].ravel(), bias=True
                )
                gain = moments[0, 1] / moments[0, 0]
                if gain > 0:
                    noise = moments[1, 1] - gain * moments[0, 1]
                    signal_power = gain**2 * (block @ inverse @ block / 9) * values
                    bits += np.log2(1 + signal_power / noise).sum()
    return bits / reference.size


class TestIfc:
    @pytest.fixture(autouse=True)
    def _needs_pyrtools(self):
        pytest.importorskip("pyrtools")

    @pytest.mark.parametrize("shape", [(72, 72), (101, 90)], ids=str)
    def test_it_equals_a_plain_implementation(self, shape):
        reference = texture(*shape)
        noisy = texture(*shape, seed=1) * 0.2 + reference * 0.8
        for estimate in (blurred(reference, 1.5), noisy):
            expected = ifc_block_by_block(estimate, reference)
            assert expected > 0.1
            assert ifc(estimate, reference) == pytest.approx(expected, rel=1e-6)

    def test_it_falls_with_blur_and_is_largest_without(self):
        picture = texture(96, 96)
        scores = [ifc(blurred(picture, sigma), picture) for sigma in (0, 0.7, 1.2, 2)]
        assert np.all(np.isfinite(scores))
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 3 * scores[1]

    def test_pictures_without_a_signal_carry_nothing(self):
        flat, other = np.full((80, 80), 90, np.uint8), texture(80, 80)
        assert ifc(flat, flat) == ifc(other, flat) == 0.0
        assert ifc(flat, other) == pytest.approx(0.0, abs=1e-6)

    def test_the_border_does_not_count(self):
        reference = texture(90, 88)
        estimate = blurred(reference, 1)
        expected = ifc(estimate[4:-4, 4:-4], reference[4:-4, 4:-4])
        assert ifc(estimate, reference, 4) == expected

    def test_a_picture_too_small_for_the_pyramid_is_refused(self):
        picture = texture(71, 90)
        with pytest.raises(InputError, match="too small for IFC: it needs 72x72"):
            ifc(picture, picture)


def test_a_missing_pyrtools_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrtools", None)
    monkeypatch.setitem(sys.modules, "pyrtools.pyramids.SteerablePyramidSpace", None)
    with pytest.raises(UsageError, match=r"srcli\[ifc\]"):
        ifc(texture(80, 80), texture(80, 80))


@pytest.mark.parametrize("metric", [psnr, ssim, ifc])
class TestRefusals:
    def test_different_sizes(self, metric):
        with pytest.raises(InputError, match="20x10 and 20x12 pixels"):
            metric(np.zeros((10, 20)), np.zeros((12, 20)))

    def test_colour(self, metric):
        with pytest.raises(InputError, match="convert the pictures to Y"):
            metric(np.zeros((90, 90, 3)), np.zeros((90, 90, 3)))

    def test_a_border_that_leaves_nothing(self, metric):
        with pytest.raises(InputError, match="50 px are cut"):
            metric(np.zeros((100, 120)), np.zeros((100, 120)), 50)

    def test_a_negative_border(self, metric):
        with pytest.raises(InputError, match="not -1"):
            metric(np.zeros((90, 90)), np.zeros((90, 90)), -1)


def test_a_picture_smaller_than_the_window_is_refused():
    with pytest.raises(InputError, match="too small for SSIM: it needs 11x11"):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)))
