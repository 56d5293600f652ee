"""BT.601 studio-range colour, as MATLAB's `rgb2ycbcr` and the papers use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# ITU-R BT.601: full-range R'G'B' in [0, 255] to Y in [16, 235], Cb and Cr in [16, 240].
RGB_TO_YCBCR = (
    np.array(
        [
            [65.481, 128.553, 24.966],
            [-37.797, -74.203, 112.0],
            [112.0, -93.786, -18.214],
        ]
    )
    / 255.0
)
YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])
YCBCR_TO_RGB = np.linalg.inv(RGB_TO_YCBCR)


def rgb_to_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Luma in [16, 235] of an RGB picture in [0, 255], never rounded.

    Args:
        rgb: (H, W, 3), any real dtype.

    Returns:
        (H, W) float64.
    """
    return rgb.astype(np.float64) @ RGB_TO_YCBCR[0] + YCBCR_OFFSET[0]


def rgb_to_y_uint8(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of a uint8 RGB picture rounded to uint8, as MATLAB's `rgb2ycbcr` gives it.

    Args:
        rgb: (H, W, 3).

    Returns:
        (H, W) uint8.
    """
    return np.floor(rgb_to_y(rgb) + 0.5).astype(np.uint8)


def rgb_to_ycbcr_torch(rgb: Tensor) -> Tensor:
    """Studio-range YCbCr in [0, 1] of RGB in [0, 1].

    Args:
        rgb: (N, 3, H, W), floating.

    Returns:
        (N, 3, H, W), same dtype and device: Y, Cb, Cr divided by 255.
    """
    matrix = torch.as_tensor(RGB_TO_YCBCR, dtype=rgb.dtype, device=rgb.device)
    offset = torch.as_tensor(YCBCR_OFFSET / 255.0, dtype=rgb.dtype, device=rgb.device)
    return torch.einsum("dc,nchw->ndhw", matrix, rgb) + offset.view(1, 3, 1, 1)


def ycbcr_to_rgb_torch(ycbcr: Tensor) -> Tensor:
    """RGB in [0, 1] (not clamped) of studio-range YCbCr in [0, 1].

    Args:
        ycbcr: (N, 3, H, W), floating.

    Returns:
        (N, 3, H, W), same dtype and device.
    """
    matrix = torch.as_tensor(YCBCR_TO_RGB, dtype=ycbcr.dtype, device=ycbcr.device)
    offset = torch.as_tensor(
        YCBCR_OFFSET / 255.0, dtype=ycbcr.dtype, device=ycbcr.device
    )
    return torch.einsum("dc,nchw->ndhw", matrix, ycbcr - offset.view(1, 3, 1, 1))
