"""Layers that several networks are made of, and weights that they start from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.transitions import Convolution


class ResidualBlock(nn.Module):
    """Conv, ReLU, conv, plus the input; 3x3, as many channels out as in.

    Source: Lim et al., "Enhanced Deep Residual Networks for Single Image
    Super-Resolution", CVPR Workshops 2017, section 3.1: no normalisation, nothing after
    the sum.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) to the same."""
        return x + self.conv2(F.relu(self.conv1(x)))


class Affine(nn.Module):
    """A scale and a shift per channel: batch normalisation without its statistics."""

    reach = 0  # rows around it that a row of the result depends on

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) to the same."""
        weight = self.weight.to(x.dtype).view(-1, 1, 1)
        return torch.addcmul(self.bias.to(x.dtype).view(-1, 1, 1), x, weight)


class JointConv(nn.Conv2d):
    """`nn.Conv2d(inputs, outputs, 1)` of features that are given one by one.

    A dense layer reads all earlier features. Concatenated, they are copied for every
    such layer; together these copies would be most of a network's memory. The sum of
    what each feature gives is the same. If fewer are given than it has weights for, it
    is as if the others were zero.
    """

    reach = 0

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """(N, outputs, h, w) from features of (N, c, h, w), all of one width c."""
        first, *others = (feature.permute(0, 2, 3, 1) for feature in features)
        *shape, width = first.shape
        block, *blocks = self.blocks(width)[: len(features)]
        total = F.linear(first.reshape(-1, width), block, self.bias)
        for feature, block in zip(others, blocks, strict=True):
            total.addmm_(feature.reshape(-1, width), block.mT.to(total.dtype))
        return total.view(*shape, -1).permute(0, 3, 1, 2)

    def blocks(self, width: int) -> tuple[Tensor, ...]:
        """The (outputs, width) matrix that each feature is multiplied by."""
        return torch.split(self.weight.flatten(1), width, dim=1)


class JointConvOfSums(JointConv):
    """The same of the running sums of the features: f_0, f_0 + f_1, ...

    The sums are not formed either: a feature is part of its own and of all later ones,
    so it is multiplied by the sum of their matrices.
    """

    def blocks(self, width: int) -> tuple[Tensor, ...]:
        """The (outputs, width) matrix that each feature is multiplied by."""
        blocks = torch.stack(super().blocks(width))
        return blocks.flip(0).cumsum(0).flip(0).unbind()


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
