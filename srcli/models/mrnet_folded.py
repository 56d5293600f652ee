"""MRNet for inference: no concatenations, sums and ReLUs inside the convolutions.

A 1x1 convolution of two joined features is the sum of one of each. With x_0 the shallow
features, all that the input encoder makes of x_0 is the same in every recursion. Output
x_i of a recursion is x_0 + r_i. Only r_i is kept, which the memory updater reads; the
fusion, which is linear, gets x_0 as one more of the features, with the sum of their
weights. r_i is small: rounded, it costs less than x_i.

What comes after the recursions has s*s times the pixels and is made strip by strip.
MRNet adds no picture to what it computes, so that the last layers' rounding is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.folded import (
    FoldedModel,
    choose_dtype,
    cut_strips,
    fuse_layer,
)
from srcli.models.fused import (
    FusedConv,
    align_channels,
    convolve_plainly,
    keep_buffers,
)
from srcli.models.residual import ResidualBlock

if TYPE_CHECKING:
    from srcli.models.mrnet import MRNet, _Head, _MemoryRecursiveModule, _ShuffleConv


def _split(layer: nn.Module, biased: int) -> list[FusedConv]:
    """A 1x1 convolution of two joined features, as one of each.

    Args:
        layer: The convolution.
        biased: Which one gets the bias.
    """
    weight = layer.get_parameter("weight").detach()
    bias = layer.get_parameter("bias").detach()
    return [
        FusedConv(part, bias if index == biased else torch.zeros_like(bias), weight)
        for index, part in enumerate(weight.chunk(2, dim=1))
    ]


class _Body(nn.Module):
    """The shared convolution block: to the residual, plus what is added."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        *blocks, last = layers
        pairs = [cast(ResidualBlock, block) for block in blocks]
        self.inner = nn.ModuleList(fuse_layer(pair.conv1) for pair in pairs)
        self.outer = nn.ModuleList(fuse_layer(pair.conv2) for pair in pairs)
        self.last = fuse_layer(last)

    def forward(self, x: Tensor) -> Tensor:
        """The residual; `x` is left as it is."""
        given = x
        for inner, outer in zip(self.inner, self.outer, strict=True):
            hidden = inner(x, slope=0.0)
            if x is given:
                x = outer(hidden, add=x)
            else:
                x = cast(FusedConv, outer).add_to(x, hidden)
        return self.last(x)


class _Recursion(nn.Module):
    """Equations 8 to 11, and the ablations of Table 1."""

    def __init__(self, module: _MemoryRecursiveModule) -> None:
        super().__init__()
        self.kind = module.kind
        self.body = _Body(module.body)
        if self.kind in ("mrm", "input-encoder"):
            self.encode_shallow, self.encode_memory = _split(module.encode, 0)
        if self.kind in ("mrm", "memory-updater"):
            self.update_residual, self.update_memory = _split(module.update, 0)

    def forward(self, shallow: Tensor, steps: int) -> list[Tensor]:
        """r_1 to r_T."""
        encodes = self.kind in ("mrm", "input-encoder")
        constant = self.encode_shallow(shallow) if encodes else None
        memory, residuals = shallow, []
        for step in range(steps):
            state = self.encode_memory(memory, add=constant) if encodes else memory
            residual = self.body(state)
            residuals.append(residual)
            if step == steps - 1:
                break
            if self.kind in ("mrm", "memory-updater"):
                memory = self.update_memory(memory)
                memory = self.update_residual.add_to(memory, residual)
            else:
                memory = residual if self.kind == "baseline" else residual + shallow
        return residuals


class _Shuffle(nn.Module):
    """Section 3.3, to rows of the enlarged features; 1x1 kernels."""

    weight: Tensor
    bias: Tensor

    def __init__(self, fusion: _ShuffleConv, share: float) -> None:
        """Take over a fusion.

        Args:
            fusion: It is not changed.
            share: Of x_0 in every x_i, 1 or 0.
        """
        super().__init__()
        self.scale, self.share = fusion.scale, share
        own = fusion.weight.detach()
        keep_buffers(self, own, weight=own, bias=fusion.bias.detach())

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """r_1 to r_T and x_0, (N, width, h, w) each, to (N, width, s*h, s*w)."""
        batch, width, height, columns = features[0].shape
        steps, dtype = len(features), features[0].dtype
        # A channel's features side by side; torch.stack takes ten times as long.
        stacked = features[0].new_empty(batch, height, columns, width, steps)
        for step, feature in enumerate(features):
            stacked[..., step] = feature.permute(0, 2, 3, 1)
        weight = self.weight[:, : steps - 1]
        weight = torch.cat((weight, self.share * weight.sum(dim=1, keepdim=True)), 1)
        fused = convolve_plainly(
            stacked.flatten(3).permute(0, 3, 1, 2),
            weight.to(dtype),
            self.bias.to(dtype),
            groups=width,
        )
        return align_channels(F.pixel_shuffle(fused.relu_(), self.scale))


class FoldedMRNet(FoldedModel):
    """An MRNet that only infers; see the top of this file."""

    def __init__(self, source: MRNet) -> None:
        """Take over a network.

        Args:
            source: It is not changed; its fusion is "shuffle" with a 1x1 kernel.
        """
        super().__init__(source)
        self.steps = {
            scale: source.limited(source.config.steps(scale))
            for scale in source.config.scales
        }
        self.recurse = _Recursion(source.recurse)
        share = 0.0 if source.config.recursion == "baseline" else 1.0
        self.heads = nn.ModuleDict()
        for scale in source.config.scales:
            head = cast("_Head", source.heads[str(scale)])
            layers = (*list(head.extract)[::2], *list(head.reconstruct)[::2])
            fusion = cast("_ShuffleConv", head.fusion)
            self.heads[str(scale)] = nn.ModuleList(
                (*map(fuse_layer, layers), _Shuffle(fusion, share))
            )

    @torch.no_grad()
    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The one estimate."""
        scale = self.resolve_scale(scale)
        dtype = choose_dtype(lr)
        head = cast(nn.ModuleList, self.heads[str(scale)])
        first, second, hidden, last, fusion = head
        # Rounded, the picture itself would be seen in the result.
        shallow = second(first(align_channels(lr), slope=0.0))
        features = [*self.recurse(shallow.to(dtype), self.steps[scale]), shallow]
        height = lr.shape[2]
        strips = []
        for top, bottom in cut_strips(features[0], times=scale * scale):
            # Two 3x3 convolutions at HR size read two rows above and below.
            above, below = max(0, top - 1), min(height, bottom + 1)
            # At x2 the picture has the least left to gain, and rounding shows most.
            precise = lr.dtype if scale == 2 else dtype
            some = [feature[:, :, above:below].to(precise) for feature in features]
            x = hidden(fusion(some), slope=0.0)
            # The sum is rounded to the precision of what is left of the picture.
            nearest = lr[:, :, above:below].to(x.dtype)
            nearest = align_channels(F.interpolate(nearest, scale_factor=float(scale)))
            sr = last(x, add=-nearest).to(lr.dtype) + nearest
            strips.append(sr[:, :, (top - above) * scale : (bottom - above) * scale])
        return (torch.cat(strips, dim=2),)
