"""Full-reference quality of luma pictures: PSNR, SSIM and IFC, as the papers use them.

All three take two (H, W) arrays in [0, 255], uint8 or floating point, cut `border`
pixels from every edge (the papers cut the scale) and compute in float64. They raise
`InputError` where the shapes differ, are not (H, W), or too little is left.
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

_Array = NDArray[np.float64]


def psnr(picture: NDArray[Any], reference: NDArray[Any], border: int = 0) -> float:
    """Peak signal-to-noise ratio in dB, peak 255; infinite for equal pictures."""
    first, second = _prepare(picture, reference, border, 1, "PSNR")
    error = float(np.mean(np.square(first - second)))
    return 10.0 * math.log10(PEAK**2 / error) if error > 0.0 else math.inf


def ssim(picture: NDArray[Any], reference: NDArray[Any], border: int = 0) -> float:
    """Mean structural similarity, at most 1.

    Source: Wang et al., IEEE TIP 2004, with its constants: an 11x11 Gaussian window of
    sigma 1.5, K1 0.01, K2 0.03; only windows that fit wholly inside count; the picture
    is not reduced first.
    """
    first, second = _prepare(picture, reference, border, SSIM_WINDOW, "SSIM")
    total = 0.0
    rows, columns = (side - SSIM_WINDOW + 1 for side in first.shape)
    for start in range(0, rows, _SSIM_BAND):
        band = slice(start, min(start + _SSIM_BAND, rows) + SSIM_WINDOW - 1)
        total += float(_map_similarity(first[band], second[band]).sum())
    return total / (rows * columns)


def ifc(picture: NDArray[Any], reference: NDArray[Any], border: int = 0) -> float:
    """Information fidelity criterion in bits per pixel; higher is better.

    Source and settings: `srcli.evaluation.ifc`. The papers' figures come from pictures
    with the border cut, as for PSNR and SSIM: bicubic x2 on Set5 has a mean of 6.084
    then (printed: 6.083) and of 6.090 uncut. Without a difference between the pictures
    the value is large but means nothing: there is no noise to divide by.

    Raises:
        UsageError: If pyrtools, the optional dependency for the pyramid, is missing.
    """
    first, second = _prepare(picture, reference, border, MIN_SIDE, "IFC")
    return measure_information(second, first)


def _prepare(
    picture: NDArray[Any], reference: NDArray[Any], border: int, side: int, metric: str
) -> tuple[_Array, _Array]:
    """Both pictures in float64 without their border, at least `side` px each way."""
    if picture.shape != reference.shape or picture.ndim != 2:
        raise InputError(
            f"{metric} compares luma of one size, not arrays of shape {picture.shape}"
            f" and {reference.shape}: convert the pictures to Y and to one size first"
        )
    height, width = picture.shape
    if border < 0 or min(height, width) - 2 * border < side:
        raise InputError(
            f"a picture of {width}x{height} pixels is too small for {metric}: it needs"
            f" {side}x{side} after {border} px are cut from every edge"
        )
    inside = (slice(border, height - border), slice(border, width - border))
    return picture[inside].astype(np.float64), reference[inside].astype(np.float64)


def _map_similarity(first: _Array, second: _Array) -> _Array:
    """The similarity of every window of two strips, equation 13 of the paper."""
    mean_1, mean_2 = _blur(first), _blur(second)
    squares = mean_1 * mean_1 + mean_2 * mean_2
    product = mean_1 * mean_2
    variances = _blur(first * first + second * second) - squares
    covariance = _blur(first * second) - product
    luminance = (2.0 * product + SSIM_C1) / (squares + SSIM_C1)
    similarity: _Array = luminance * (
        (2.0 * covariance + SSIM_C2) / (variances + SSIM_C2)
    )
    return similarity


def _blur(image: _Array) -> _Array:
    """`image` under the Gaussian window, where that fits wholly inside."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-(offsets**2) / (2.0 * SSIM_SIGMA**2))
    window /= window.sum()
    for _ in range(2):  # along the first axis, which is then the second
        rows = image.shape[0] - SSIM_WINDOW + 1
        parts = (tap * image[n : n + rows] for n, tap in enumerate(window))
        image = sum(parts, np.zeros((rows, image.shape[1]))).T
    return image
