"""Layers between LR and HR size: strided convolutions, and their way to other scales.

RRRN's D and D* and DSRN's f_down and f_up have kernels that grow with the scale. A
network for x3 or x4 can still start from one for x2: that it pays was measured
(docs/models.md); none of the papers says anything of it.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

Convolution = nn.Conv2d | nn.ConvTranspose2d


def resample_transitions(target: nn.Module, source: nn.Module) -> dict[str, Tensor]:
    """The kernels of a network's strided layers, made from another scale's, by name.

    Args:
        target: The network that will start from them; it is not changed.
        source: One with layers of the same names. Those of other channels are left
            out.
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
    # In taps; the one at the middle lies on the LR pixel.
    places = (taps - _find_middle(target)) * before / after + _find_middle(source)
    shares = (1.0 - (places[:, None] - known).abs()).clamp_min(0.0)
    weight = source.weight.detach()
    resampled = shares @ weight.cpu().double() @ shares.T
    if not source.transposed:
        resampled = resampled * (before / after) ** 2
    return resampled.to(weight)


def _find_middle(layer: Convolution) -> float:
    """Where among a layer's taps its LR pixel's centre lies, from the first tap's."""
    return float(layer.padding[0]) + (layer.stride[0] - 1) / 2
