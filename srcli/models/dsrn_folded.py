"""DSRN for inference: sums and PReLUs inside the convolutions where they can be."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from srcli.imaging.resize import imresize_torch
from srcli.models.dsrn_layers import pick
from srcli.models.folded import (
    FoldedModel,
    Transition,
    choose_dtype,
    fuse_layer,
    project,
)
from srcli.models.fused import align_channels, rectify, without_autocast
from srcli.models.residual import ResidualBlock

if TYPE_CHECKING:
    from srcli.models.dsrn import DSRN


class _Residual(nn.Module):
    """Two 3x3 convolutions, to whose result a sum is added before it is rectified."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        block = cast(ResidualBlock, block)
        self.inner = fuse_layer(block.conv1)
        self.outer = fuse_layer(block.conv2)

    def forward(self, x: Tensor, add: Tensor, slope: float) -> Tensor:
        return self.outer(self.inner(x, slope=0.0), add=add, slope=slope)


class FoldedDSRN(FoldedModel):
    """A DSRN of two states that only infers."""

    def __init__(self, source: DSRN) -> None:
        """Take over a network.

        Args:
            source: It is not changed; `dual` is true. Steps that its limit leaves out
                are left out.
        """
        super().__init__(source)
        self.steps = source.limited(source.config.steps)
        self.enter = copy.deepcopy(source.enter).requires_grad_(False)
        self.low = nn.ModuleList(map(_Residual, source.low))
        self.high = nn.ModuleList(map(_Residual, source.high))
        self.up = nn.ModuleList(map(Transition, source.up))
        self.down = nn.ModuleList(map(Transition, source.down))
        self.leave = fuse_layer(source.leave)
        self.slopes = [source.find_slopes(step) for step in range(self.steps)]

    @torch.no_grad()
    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The one estimate."""
        scale = self.resolve_scale(scale)
        bicubic = imresize_torch(lr, float(scale))
        with without_autocast(lr):
            low = align_channels(self.enter(align_channels(lr)))
        total = self._add_states(low.to(choose_dtype(lr)))
        residual = project(self.leave, total.div_(self.steps), bicubic.dtype)
        return (bicubic + residual,)

    def _add_states(self, low: Tensor) -> Tensor:
        """s_h^1 to s_h^T of equation 2, added up."""
        low = self._update_low(low, None, 0)
        total = high = rectify(pick(self.up, 0)(low), self.slopes[0][1])
        for step in range(1, self.steps):
            low = self._update_low(low, high, step)
            raised = pick(self.up, step)(low).add_(high)
            block = cast(_Residual, pick(self.high, step - 1))
            high = block(high, raised, self.slopes[step][1])
            total = total + high if step == 1 else total.add_(high)
        return total

    def _update_low(self, low: Tensor, high: Tensor | None, step: int) -> Tensor:
        add = low
        if high is not None and len(self.down):
            add = pick(self.down, step - 1)(high).add_(low)
        return pick(self.low, step)(low, add, self.slopes[step][0])
