"""BT.601 studio-range colour, as MATLAB's `rgb2ycbcr` and the papers use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# ITU-R BT.601: full-range R'G'B' in [0, 255] to Y in [16, 235], Cb and Cr in [16, 240].
_LEVELS = [
    [65.481, 128.553, 24.966],
    [-37.797, -74.203, 112.0],
    [112.0, -93.786, -18.214],
]
RGB_TO_YCBCR = np.array(_LEVELS) / 255.0
YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])
YCBCR_TO_RGB = np.linalg.inv(RGB_TO_YCBCR)


def rgb_to_y(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Luma, (H, W) in [16, 235], of RGB, (H, W, 3) in [0, 255]; never rounded."""
    return rgb.astype(np.float64) @ RGB_TO_YCBCR[0] + YCBCR_OFFSET[0]


def rgb_to_y_uint8(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma, (H, W), of RGB, (H, W, 3), rounded as MATLAB's `rgb2ycbcr` gives it."""
    return np.floor(rgb_to_y(rgb) + 0.5).astype(np.uint8)


def rgb_to_ycbcr_torch(rgb: Tensor) -> Tensor:
    """Studio-range YCbCr of RGB, both (N, 3, H, W) in [0, 1] of the same dtype."""
    matrix = torch.as_tensor(RGB_TO_YCBCR).to(rgb)
    offset = torch.as_tensor(YCBCR_OFFSET / 255.0).to(rgb).view(1, 3, 1, 1)
    return torch.einsum("dc,nchw->ndhw", matrix, rgb) + offset


def ycbcr_to_rgb_torch(ycbcr: Tensor) -> Tensor:
    """`rgb_to_ycbcr_torch` backwards; not clamped."""
    matrix = torch.as_tensor(YCBCR_TO_RGB).to(ycbcr)
    offset = torch.as_tensor(YCBCR_OFFSET / 255.0).to(ycbcr).view(1, 3, 1, 1)
    return torch.einsum("dc,nchw->ndhw", matrix, ycbcr - offset)
