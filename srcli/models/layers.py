"""Layers that several networks are made of, and weights that they start from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Convolution = nn.Conv2d | nn.ConvTranspose2d


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

    Concatenated, they would be copied for every dense layer, and the copies be most of
    a network's memory. Features that are not given, of those it has weights for, are
    zero.
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

    A feature is multiplied by the sum of the matrices of all sums that it is part of.
    """

    def blocks(self, width: int) -> tuple[Tensor, ...]:
        """The (outputs, width) matrix that each feature is multiplied by."""
        blocks = torch.stack(super().blocks(width))
        return blocks.flip(0).cumsum(0).flip(0).unbind()


def keeps_size(layer: nn.Conv2d) -> bool:
    """Whether a convolution gives a map of the size that it is given."""
    side = layer.kernel_size[0]
    return (
        layer.kernel_size == (side, side)
        and side % 2 == 1
        and layer.padding in ("same", (side // 2, side // 2))
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


def make_he_conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution as He et al. start it (ICCV 2015) before a ReLU."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def keep_variance(layer: Convolution, slope: float = 1.0) -> None:
    """Start a layer without bias, and so that its output varies as much as its input.

    `slope` is that of the PReLU that follows, below zero; 1 where nothing follows.
    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2.
    """
    inputs = layer.in_channels * math.prod(layer.kernel_size)
    if layer.transposed:  # each output pixel sees one tap in stride^2
        inputs //= math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (1.0 + slope**2) / inputs))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def start_with_details(kernels: Tensor) -> None:
    """Let a network's first kernels sum to zero, four times as large.

    Its states then begin with details, not with the brightness that the interpolated
    picture has right; the gain was measured (docs/models.md).
    """
    kernels.sub_(kernels.mean(dim=(1, 2, 3), keepdim=True)).mul_(4.0)


def resample_transitions(target: nn.Module, source: nn.Module) -> dict[str, Tensor]:
    """The kernels of a network's strided layers, made from another scale's, by name.

    RRRN's D and D* and DSRN's f_down and f_up grow with the scale; that it pays to
    start x3 and x4 from x2 was measured (docs/models.md), and is ours. Layers of other
    channels are left out.
    """
    others = dict(source.named_modules())
    made = {}
    for name, layer in target.named_modules():
        other = others.get(name)
        if _is_transition(layer) and _is_transition(other):
            weight = _resample(other, layer)
            if weight.shape == layer.weight.shape:
                made[f"{name}.weight"] = weight
    return made


def _is_transition(layer: nn.Module | None) -> TypeGuard[Convolution]:
    return isinstance(layer, Convolution) and layer.stride[0] > 1


def _resample(source: Convolution, target: Convolution) -> Tensor:
    """One layer's kernel as that of another stride.

    Both are read as functions of the distance, in LR pixels, from the pixel that they
    belong to: linear between their samples and zero beyond the last. What a transposed
    layer adds to an HR pixel then keeps its size; a strided one sums over (s' / s)^2
    times as many pixels.
    """
    before, after = source.stride[0], target.stride[0]
    known = torch.arange(source.kernel_size[0], dtype=torch.float64)
    taps = torch.arange(target.kernel_size[0], dtype=torch.float64)
    # In taps, from the first; those in the middle lie on the LR pixel's centre.
    middles = [
        each.padding[0] + (each.stride[0] - 1) / 2  # type: ignore[operator]
        for each in (source, target)
    ]
    places = (taps - middles[1]) * before / after + middles[0]
    shares = (1.0 - (places[:, None] - known).abs()).clamp_min(0.0)
    weight = source.weight.detach()
    resampled = shares @ weight.cpu().double() @ shares.T
    if not source.transposed:
        resampled = resampled * (before / after) ** 2
    return resampled.to(weight)
