"""The information fidelity criterion on pyrtools' steerable pyramid.

Source: Sheikh, Bovik and de Veciana, "An information fidelity criterion for image
quality assessment using natural scene statistics", IEEE TIP 14(12), 2005. A sub-band of
the reference is modelled as blocks of 3x3 coefficients with one covariance and a
multiplier per block; the other picture's as the same blocks after a local gain and
additive noise; the criterion is the information that it carries about the reference.
"""

from __future__ import annotations

import importlib

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

_Array = NDArray[np.float64]


def measure_information(reference: _Array, picture: _Array) -> float:
    """Bits per pixel that a picture tells about the reference.

    The channel is estimated in windows of 17, 9, 5 and 3 coefficients, from the finest
    level to the coarsest. Blocks whose window would overhang the edge do not count, yet
    the sum is divided by all pixels, as in the figures that papers print.

    Args:
        reference: (H, W), sides of `MIN_SIDE` px or more.
        picture: Same shape.

    Raises:
        UsageError: If pyrtools is not installed.
    """
    try:
        # Late, because it is optional and imports matplotlib: more than a second.
        module = importlib.import_module("pyrtools.pyramids.SteerablePyramidSpace")
    except ImportError as error:
        raise UsageError(
            "IFC needs the package pyrtools: install it with pip install 'srcli[ifc]'"
        ) from error
    sent, received = (
        module.SteerablePyramidSpace(
            each, height=LEVELS, order=ORDER, edge_type="reflect1"
        ).pyr_coeffs
        for each in (reference, picture)
    )
    bits = 0.0
    for level in range(LEVELS):
        for band in ((level, orientation) for orientation in ORIENTATIONS):
            height, width = (side - side % BLOCK for side in sent[band].shape)
            whole = (slice(height), slice(width))  # blocks
            window = 2 ** (LEVELS - level) + 1
            bits += _count_bits(sent[band][whole], received[band][whole], window)
    return bits / reference.size


def _count_bits(sent: _Array, received: _Array, window: int) -> float:
    """Bits that one sub-band of a picture tells about the reference's.

    Args:
        sent: Sub-band of the reference, sides multiples of the block.
        received: That of the picture, same shape.
        window: Odd side of the windows in which the channel is estimated.
    """
    margin = -(-(window // 2) // BLOCK)  # outer blocks whose windows would overhang
    gain, noise = _estimate_channel(sent, received, window, margin)
    # Principal axes of all 3x3 patches. Directions without variance carry no bits.
    patches = sliding_window_view(sent, (BLOCK, BLOCK)).reshape(-1, BLOCK**2)
    eigenvalues, vectors = np.linalg.eigh(np.cov(patches, rowvar=False, bias=True))
    kept = eigenvalues > _TINY * max(1.0, float(eigenvalues[-1]))
    eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
    rows, columns = (side // BLOCK for side in sent.shape)
    blocks = sent.reshape(rows, BLOCK, columns, BLOCK).transpose(0, 2, 1, 3)
    blocks = blocks[margin:-margin, margin:-margin].reshape(*gain.shape, BLOCK**2)
    # Maximum-likelihood multiplier of each block's covariance.
    scale = np.sum(np.square(blocks @ vectors) / eigenvalues, axis=2) / BLOCK**2
    signal = gain * gain * scale / noise
    return sum(float(np.log2(1.0 + signal * value).sum()) for value in eigenvalues)


def _estimate_channel(
    sent: _Array, received: _Array, window: int, margin: int
) -> tuple[_Array, _Array]:
    """Gain and noise variance around each block, by least squares in its window."""

    def mean(values: _Array) -> _Array:
        """Means of the windows around the middles of the blocks inside the margin."""
        first = BLOCK * margin + BLOCK // 2 - window // 2
        for _ in range(2):  # along the first axis, which is then the second
            blocks = values.shape[0] // BLOCK - 2 * margin
            windows = sliding_window_view(values, window, axis=0)[first::BLOCK]
            values = windows[:blocks].mean(axis=-1).T
        return values

    mean_sent, mean_received = mean(sent), mean(received)
    variance_sent = mean(sent * sent) - mean_sent**2
    variance_received = mean(received * received) - mean_received**2
    covariance = mean(sent * received) - mean_sent * mean_received
    # A window without signal, or with its signal reversed, carries nothing.
    carries = (variance_sent > _TINY) & (variance_received > _TINY) & (covariance > 0.0)
    gain = np.where(carries, covariance, 0.0) / np.where(carries, variance_sent, 1.0)
    return gain, np.maximum(variance_received - gain * covariance, _TINY)
