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


def test_psnr_is_that_of_the_mean_square():
    black, white = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
    assert psnr(black + 1, black) == pytest.approx(20 * math.log10(255))
    expected = 10 * math.log10(255**2 / (25 / 4))
    picture = np.array([[3.0, 0.0], [0.0, 4.0]])
    assert psnr(picture, np.zeros((2, 2))) == pytest.approx(expected)
    assert psnr(black, white) == psnr(white, black) == 0.0  # nothing wraps around
    assert psnr(picture, picture) == math.inf


@pytest.mark.parametrize(("metric", "side"), [(psnr, 12), (ssim, 30), (ifc, 90)])
def test_the_border_does_not_count(metric, side):
    if metric is ifc:
        pytest.importorskip("pyrtools")
    first, second = texture(side, side + 3), texture(side, side + 3, seed=1)
    expected = metric(first[3:-3, 3:-3], second[3:-3, 3:-3])
    assert metric(first, second, 3) == expected


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


# Heights around the strips of 64 rows in which the program works.
@pytest.mark.parametrize("shape", [(11, 11), (74, 30), (75, 17)], ids=str)
def test_ssim_equals_the_definition(shape):
    first, second = texture(*shape), texture(*shape, seed=1)
    for other in (second, blurred(first, 1.0)):
        expected = ssim_with_scipy(first, other)
        assert ssim(first, other) == pytest.approx(expected, abs=1e-12)


def ifc_block_by_block(picture, reference):
    """The criterion with scipy's filters and a loop over the blocks.

    Of pyrtools only the filter taps are used.
    """
    from pyrtools.pyramids.filters import named_filter

    taps = named_filter("sp5_filters")

    def sub_bands(image):
        low = ndimage.correlate(
            image.astype(np.float64), taps["lo0filt"], mode="mirror"
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
    bands = zip(sub_bands(reference), sub_bands(picture), strict=True)
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


@pytest.mark.parametrize("shape", [(72, 72), (101, 90)], ids=str)
def test_ifc_equals_a_plain_implementation(shape):
    pytest.importorskip("pyrtools")
    reference = texture(*shape)
    noisy = texture(*shape, seed=1) * 0.2 + reference * 0.8
    for picture in (blurred(reference, 1.5), noisy):
        expected = ifc_block_by_block(picture, reference)
        assert expected > 0.1
        assert ifc(picture, reference) == pytest.approx(expected, rel=1e-6)


def test_ifc_of_pictures_without_a_signal_and_without_a_difference():
    pytest.importorskip("pyrtools")
    flat, other = np.full((80, 80), 90, np.uint8), texture(80, 80)
    assert ifc(flat, flat) == ifc(other, flat) == 0.0
    assert ifc(flat, other) == pytest.approx(0.0, abs=1e-6)
    assert 3 * ifc(blurred(other, 0.7), other) < ifc(other, other) < math.inf


def test_a_missing_pyrtools_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrtools", None)
    monkeypatch.setitem(sys.modules, "pyrtools.pyramids.SteerablePyramidSpace", None)
    with pytest.raises(UsageError, match=r"srcli\[ifc\]"):
        ifc(texture(80, 80), texture(80, 80))


@pytest.mark.parametrize(("metric", "side"), [(psnr, 1), (ssim, 11), (ifc, 72)])
def test_what_cannot_be_compared_is_refused(metric, side):
    large = np.zeros((100, 120))
    for first, second, border in (
        (large, large.T, 0),
        (np.zeros((90, 90, 3)), np.zeros((90, 90, 3)), 0),
        (large, large, (102 - side) // 2),
        (large, large, -1),
        (large[: side - 1], large[: side - 1], 0),
    ):
        with pytest.raises(InputError, match=metric.__name__.upper()):
            metric(first, second, border)
