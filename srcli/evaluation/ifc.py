"""The information fidelity criterion on pyrtools' steerable pyramid.

Source: Sheikh, Bovik and de Veciana, "An information fidelity criterion for image
quality assessment using natural scene statistics", IEEE TIP 14(12), 2005. A sub-band of
the reference is modelled as blocks of 3x3 coefficients with one covariance and a
multiplier per block; the estimate's as the same blocks after a local gain and additive
noise; the criterion is the information that the second carries about the first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from srcli.errors import UsageError

LEVELS = 4
ORDER = 5  # of the steerable filters: order + 1 orientations
ORIENTATIONS = (3, 0)  # of each level: sub-bands 4, 7, 10 ... 25 from the low-pass
BLOCK = 3  # side of a block in coefficients
# Smallest side in px: the coarsest level then has the nine coefficients that its filter
# and one block inside its margin need.
MIN_SIDE = 72
_TINY = 1e-15  # a variance below this counts as none

_Bands = dict[Any, NDArray[np.float64]]


def measure_information(
    reference: NDArray[np.float64], estimate: NDArray[np.float64]
) -> float:
    """Bits per pixel that the estimate tells about the reference.

    The channel is estimated in windows of 17, 9, 5 and 3 coefficients, from the finest
    level to the coarsest. Blocks whose window would overhang the edge do not count, yet
    the sum is divided by all pixels, as in the figures that papers print.

    Args:
        reference: (H, W), sides of `MIN_SIDE` px or more.
        estimate: Same shape.

    Raises:
        UsageError: If pyrtools is not installed.
    """
    build = _load_pyramid()
    bits = 0.0
    for level, sent, received in _paired_bands(build(reference), build(estimate)):
        bits += _mutual_information(sent, received, window=2 ** (LEVELS - level) + 1)
    return bits / reference.size


def _load_pyramid() -> Callable[[NDArray[np.float64]], _Bands]:
    """A function from a picture to its sub-bands by (level, orientation)."""
    try:
        # Late, because it is optional and imports matplotlib: more than a second.
        module = importlib.import_module("pyrtools.pyramids.SteerablePyramidSpace")
    except ImportError as error:
        raise UsageError(
            "IFC needs the package pyrtools: install it with pip install 'srcli[ifc]'"
        ) from error

    def build(picture: NDArray[np.float64]) -> _Bands:
        return module.SteerablePyramidSpace(
            picture, height=LEVELS, order=ORDER, edge_type="reflect1"
        ).pyr_coeffs

    return build


def _paired_bands(
    reference: _Bands, estimate: _Bands
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """Level, reference and estimate of every sub-band used, cut to whole blocks."""
    for level in range(LEVELS):
        for orientation in ORIENTATIONS:
            sent = reference[level, orientation]
            received = estimate[level, orientation]
            height, width = (side - side % BLOCK for side in sent.shape)
            yield level, sent[:height, :width], received[:height, :width]


def _mutual_information(
    sent: NDArray[np.float64], received: NDArray[np.float64], window: int
) -> float:
    """Bits that one sub-band of the estimate tells about the reference's.

    Args:
        sent: Sub-band of the reference, sides multiples of the block.
        received: Sub-band of the estimate, same shape.
        window: Odd side of the windows in which the channel is estimated.
    """
    margin = -(-(window // 2) // BLOCK)  # outer blocks whose windows would overhang
    gain, noise = _estimate_channel(sent, received, window, margin)
    eigenvalues, vectors = _principal_axes(sent)
    if not len(eigenvalues):
        return 0.0
    rows, columns = (side // BLOCK for side in sent.shape)
    blocks = sent.reshape(rows, BLOCK, columns, BLOCK).transpose(0, 2, 1, 3)
    blocks = blocks[margin:-margin, margin:-margin].reshape(*gain.shape, BLOCK**2)
    # Maximum-likelihood multiplier of each block's covariance.
    scale = np.sum(np.square(blocks @ vectors) / eigenvalues, axis=2) / BLOCK**2
    signal = gain * gain * scale / noise
    return sum(float(np.log2(1.0 + signal * value).sum()) for value in eigenvalues)


def _estimate_channel(
    sent: NDArray[np.float64], received: NDArray[np.float64], window: int, margin: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and noise variance around each block, by least squares in its window."""

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return _mean_windows(_mean_windows(values, window, margin).T, window, margin).T

    mean_sent, mean_received = means(sent), means(received)
    variance_sent = means(sent * sent) - mean_sent**2
    variance_received = means(received * received) - mean_received**2
    covariance = means(sent * received) - mean_sent * mean_received
    # A window without signal, or with its signal reversed, carries nothing.
    carries = (variance_sent > _TINY) & (variance_received > _TINY) & (covariance > 0.0)
    gain = np.where(carries, covariance, 0.0) / np.where(carries, variance_sent, 1.0)
    return gain, np.maximum(variance_received - gain * covariance, _TINY)


def _mean_windows(
    values: NDArray[np.float64], window: int, margin: int
) -> NDArray[np.float64]:
    """Means of `window` rows around the middle row of each block inside the margin."""
    blocks = values.shape[0] // BLOCK - 2 * margin
    first = BLOCK * margin + BLOCK // 2 - window // 2
    rows = sliding_window_view(values, window, axis=0)[first::BLOCK][:blocks]
    means: NDArray[np.float64] = rows.mean(axis=-1)
    return means


def _principal_axes(
    band: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and eigenvectors (columns) of the covariance of all 3x3 patches.

    Directions without variance (a flat picture) are left out: they carry no bits.
    """
    patches = sliding_window_view(band, (BLOCK, BLOCK)).reshape(-1, BLOCK**2)
    eigenvalues, vectors = np.linalg.eigh(np.cov(patches, rowvar=False, bias=True))
    kept = eigenvalues > _TINY * max(1.0, float(eigenvalues[-1]))
    return eigenvalues[kept], vectors[:, kept]
