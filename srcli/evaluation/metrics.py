"""Full-reference quality of luma pictures: PSNR, SSIM and IFC, as the papers use them.

All three take (H, W) arrays in [0, 255], uint8 or floating point, and compute in
float64. `border` pixels are cut from every edge first; the papers cut the scale.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.evaluation.ifc import MIN_SIDE, measure_information

PEAK = 255.0  # dynamic range L of 8-bit pictures

# Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility
# to structural similarity", IEEE TIP 13(4), 2004, section III.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * PEAK) ** 2
SSIM_C2 = (0.03 * PEAK) ** 2
_SSIM_BAND = 64  # output rows worked on at once, so that they stay in the CPU's cache


def psnr(estimate: NDArray[Any], reference: NDArray[Any], border: int = 0) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, infinite for equal pictures.

    Args:
        estimate: (H, W) in [0, 255].
        reference: Same shape and range.
        border: Pixels cut from every edge.

    Raises:
        InputError: If the shapes differ, are not (H, W), or the border leaves nothing.
    """
    first, second = _prepare(estimate, reference, border)
    error = float(np.mean(np.square(first - second)))
    return 10.0 * math.log10(PEAK**2 / error) if error > 0.0 else math.inf


def ssim(estimate: NDArray[Any], reference: NDArray[Any], border: int = 0) -> float:
    """Mean structural similarity, at most 1.

    Source: Wang et al., IEEE TIP 2004, with its constants: an 11x11 Gaussian window of
    sigma 1.5, K1 0.01, K2 0.03; only windows that fit wholly inside count; the picture
    is not reduced first.

    Args:
        estimate: (H, W) in [0, 255].
        reference: Same shape and range.
        border: Pixels cut from every edge.

    Raises:
        InputError: If the shapes differ, are not (H, W), or less than one window is
            left.
    """
    first, second = _prepare(estimate, reference, border, SSIM_WINDOW, "SSIM")
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-(offsets**2) / (2.0 * SSIM_SIGMA**2))
    window /= window.sum()
    rows = first.shape[0] - SSIM_WINDOW + 1
    total, count = 0.0, 0
    for start in range(0, rows, _SSIM_BAND):
        band = slice(start, min(start + _SSIM_BAND, rows) + SSIM_WINDOW - 1)
        similarity = _ssim_map(first[band], second[band], window)
        total += float(similarity.sum())
        count += similarity.size
    return total / count


def ifc(estimate: NDArray[Any], reference: NDArray[Any], border: int = 0) -> float:
    """Information fidelity criterion in bits per pixel; higher is better.

    Source and settings: `srcli.evaluation.ifc`. The papers' figures come from pictures
    with the border cut, as for PSNR and SSIM: bicubic x2 on Set5 has a mean of 6.084
    then (printed: 6.083) and of 6.090 uncut. Without a difference between the pictures
    the value is large but means nothing: there is no noise to divide by.

    Args:
        estimate: (H, W) in [0, 255].
        reference: Same shape and range.
        border: Pixels cut from every edge.

    Raises:
        InputError: If the shapes differ, are not (H, W), or a side of less than 72 px
            is left.
        UsageError: If pyrtools, the optional dependency for the pyramid, is missing.
    """
    first, second = _prepare(estimate, reference, border, MIN_SIDE, "IFC")
    return measure_information(second, first)


def _prepare(
    estimate: NDArray[Any],
    reference: NDArray[Any],
    border: int,
    side: int = 1,
    metric: str = "PSNR",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both pictures in float64 without their border, at least `side` px each way."""
    if estimate.shape != reference.shape:
        raise InputError(
            f"pictures of {_size_text(estimate)} and {_size_text(reference)} pixels"
            " cannot be compared: make them the same size"
        )
    if estimate.ndim != 2:
        raise InputError(
            f"{metric} compares luma, not an array of shape {estimate.shape}:"
            " convert the pictures to Y first"
        )
    if border < 0:
        raise InputError(f"the border to cut must be 0 or more pixels, not {border}")
    height, width = estimate.shape
    if min(height, width) - 2 * border < side:
        cut = f" after {border} px are cut from every edge" if border else ""
        raise InputError(
            f"a picture of {width}x{height} pixels is too small for {metric}:"
            f" it needs {side}x{side}{cut}"
        )
    inside = (slice(border, height - border), slice(border, width - border))
    return estimate[inside].astype(np.float64), reference[inside].astype(np.float64)


def _size_text(picture: NDArray[Any]) -> str:
    """The size as users know it, width first; the bare shape if it is no picture."""
    if picture.ndim < 2:
        return str(picture.shape)
    height, width, *channels = picture.shape
    return "x".join(str(length) for length in (width, height, *channels))


def _ssim_map(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    window: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The similarity of every window of two strips, equation 13 of the paper."""
    mean_1 = _filter_valid(first, window)
    mean_2 = _filter_valid(second, window)
    squares = mean_1 * mean_1 + mean_2 * mean_2
    product = mean_1 * mean_2
    variances = _filter_valid(first * first + second * second, window) - squares
    covariance = _filter_valid(first * second, window) - product
    result: NDArray[np.float64] = (2.0 * product + SSIM_C1) / (squares + SSIM_C1)
    result *= (2.0 * covariance + SSIM_C2) / (variances + SSIM_C2)
    return result


def _filter_valid(
    image: NDArray[np.float64], window: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`image` filtered with a symmetric odd window along both axes, valid part only."""
    return _filter_rows(_filter_rows(image, window).T, window).T


def _filter_rows(
    image: NDArray[np.float64], window: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`image` filtered along its first axis, valid part only."""
    rows, middle = image.shape[0] - len(window) + 1, len(window) // 2
    result = image[middle : middle + rows] * window[middle]
    for tap in range(middle):
        last = len(window) - 1 - tap
        result += window[tap] * (image[tap : tap + rows] + image[last : last + rows])
    return result
