"""RRRN for inference: sums and PReLUs inside the convolutions where they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.models.folded import (
    FoldedModel,
    Transition,
    choose_dtype,
    fuse_layer,
    project,
    split_activation,
)
from srcli.models.fused import FusedConv, align_channels
from srcli.models.joint import JointConv

if TYPE_CHECKING:
    from srcli.models.rrrn import RRRN, _Iteration, _Reconstruction


class _Joint(nn.Module):
    """A 1x1 convolution of features that are given one by one, and its PReLU."""

    def __init__(self, module: nn.Module, width: int) -> None:
        super().__init__()
        layer, self.slope = split_activation(module)
        weight = layer.get_parameter("weight").detach()
        bias = layer.get_parameter("bias").detach()
        if isinstance(layer, JointConv):
            blocks = layer.blocks(width)
        else:
            blocks = torch.split(weight.flatten(1), width, dim=1)
        self.parts = nn.ModuleList(
            FusedConv(
                block.detach()[..., None, None],
                torch.zeros_like(bias) if index else bias,
                weight,
            )
            for index, block in enumerate(blocks)
        )

    def forward(self, *features: Tensor) -> Tensor:
        """(N, outputs, h, w) from features of (N, width, h, w)."""
        first, *others = (cast(FusedConv, part) for part in self.parts)
        total = first(features[0], slope=1.0 if others else self.slope)
        for part, feature in zip(others, features[1:], strict=True):
            last = part is others[-1]
            total = part.add_to(total, feature, slope=self.slope if last else 1.0)
        return total


class _Round(nn.Module):
    """Equations 5 to 7 for one j."""

    def __init__(self, iteration: _Iteration, width: int) -> None:
        super().__init__()
        self.merge = _Joint(iteration.merge, width)
        self.restore = _Joint(iteration.restore, width)
        self.degrade = _Joint(iteration.degrade, width)


class _Last(nn.Module):
    """Equation 8."""

    def __init__(self, source: _Reconstruction, width: int) -> None:
        super().__init__()
        self.merge = _Joint(source.merge, width)
        self.up = Transition(source.up)
        self.restore = _Joint(source.restore, width)
        self.to_image = fuse_layer(source.to_image)


class FoldedRRRN(FoldedModel):
    """An RRRN that only infers; in the order of `RRRN`."""

    def __init__(self, source: RRRN) -> None:
        """Take over a network.

        Args:
            source: It is not changed. Sub-networks that its limit leaves out are left
                out.
        """
        super().__init__(source)
        width = source.config.width
        self.width = width
        self.count = source.limited(source.config.sub_networks)
        *layers, last = source.extract
        self.extract = nn.ModuleList()
        self.slopes: list[float] = []
        for module in layers:
            layer, slope = split_activation(module)
            self.extract.append(fuse_layer(layer))
            self.slopes.append(slope)
        self.narrow = _Joint(last, width * source.config.extract_ratio)
        first = source.project
        self.up, self.down = Transition(first.up), Transition(first.down)
        self.restore = _Joint(first.restore, width)
        self.degrade = _Joint(first.degrade, width)
        self.rounds = nn.ModuleList(
            _Round(cast("_Iteration", each), width) for each in source.learn.iterations
        )
        self.ups = nn.ModuleList(map(Transition, source.learn.ups))
        self.downs = nn.ModuleList(map(Transition, source.learn.downs))
        self.reconstruct = _Last(source.reconstruct, width)
        self.fuse = _Joint(source.fuse, width) if self.count > 1 else nn.Identity()

    @torch.no_grad()
    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The last image, I_g; those before are not kept."""
        scale = self.resolve_scale(scale)
        compute = lr if lr.dtype == torch.float64 else lr.float()
        image = F.interpolate(
            compute, scale_factor=float(scale), mode="bilinear", align_corners=False
        )
        x = self._extract(lr)
        for index in range(1, self.count + 1):
            residual, delta = self._refine(x)
            image = image + residual.to(image.dtype) / self.count
            if index < self.count:
                x = self.fuse(x, delta)
        return (image.to(lr.dtype),)

    def _extract(self, lr: Tensor) -> Tensor:
        """FE: the picture to X_1, (N, width, h, w)."""
        dtype = choose_dtype(lr)
        x = align_channels(lr)
        for each, slope in zip(self.extract, self.slopes, strict=True):
            # The first layer computes in the picture's own precision.
            x = cast(FusedConv, each)(x, slope=slope).to(dtype)
        return self.narrow(x)

    def _refine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One sub-network: the residual picture, and delta^t."""
        y = self.restore(self.up(x))
        deltas = [x - self.down(self.degrade(y))]
        zetas: list[Tensor] = []
        for index, each in enumerate(self.rounds):
            part = cast(_Round, each)
            use = min(index, len(self.ups) - 1)
            raised = self.ups[use](part.merge(*deltas))
            zetas.append(part.restore(*zetas, raised))
            lowered = self.downs[use](part.degrade(y, *zetas))
            deltas.append(x - lowered)
        last = self.reconstruct
        raised = last.up(last.merge(*deltas[1:]))
        features = last.restore(*zetas[1:], raised)
        dtype = torch.float32 if x.dtype != torch.float64 else torch.float64
        return project(last.to_image, features, dtype), deltas[-1]
