"""Weights that a network starts from."""

from __future__ import annotations

import math

from torch import nn

from srcli.models.transitions import Convolution


def keep_variance(layer: Convolution, slope: float = 1.0) -> None:
    """Start a layer without bias, and so that its output varies as much as its input.

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2.

    Args:
        layer: A convolution, strided or not, or a transposed one.
        slope: Of the PReLU that follows, below zero; 1 where nothing follows.
    """
    inputs = layer.in_channels * math.prod(layer.kernel_size)
    if layer.transposed:  # each output pixel sees one tap in stride^2
        inputs //= math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (1.0 + slope**2) / inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
