"""The residual block of MRNet and DSRN.

Source: Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution",
CVPR Workshops 2017, section 3.1: no normalisation, nothing after the sum.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Conv, ReLU, conv, plus the input; 3x3, as many channels out as in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        return x + self.conv2(F.relu(self.conv1(x)))
