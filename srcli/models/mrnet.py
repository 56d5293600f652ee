"""MRNet: memory recursive network.

Source: Liu, Zou, Tang and Wu, "Memory Recursive Network for Single Image
Super-Resolution", ACM Multimedia 2020: section 3 for the structure, 4.1 for the sizes.
The counts of Tables 1, 2 and 3 are met exactly (tests/models/test_mrnet.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.models.base import ModelConfig, SRModel, recomputed
from srcli.models.layers import JointConv, ResidualBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class MRNetConfig(ModelConfig):
    """MRNet's sizes; the defaults are the multi-scale network of Table 3."""

    recursions: tuple[int, int, int] = (4, 6, 8)  # T at x2, x3 and x4
    width: int = 64  # c0, channels of every feature map
    blocks: int = 10  # residual blocks in the shared convolution block
    # Table 1 and Figure 5: how a recursion's input is made from what came before.
    recursion: Literal[
        "mrm", "input-encoder", "memory-updater", "residual", "baseline"
    ] = "mrm"
    fusion: Literal["shuffle", "conv"] = "shuffle"  # Table 2; conv is its baseline
    fusion_kernel: int = 1  # 3 fits the counts of Table 2's sweep, 1 those of Table 3

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if min(self.width, *self.recursions) < 1 or self.blocks < 0:
            raise UsageError("width and recursions must be at least 1, blocks 0")
        if self.fusion_kernel < 1 or self.fusion_kernel % 2 == 0:
            raise UsageError(f"fusion_kernel must be odd, not {self.fusion_kernel}")

    def steps(self, scale: int) -> int:
        """T, the number of recursions at `scale`."""
        return self.recursions[scale - 2]


class _MemoryRecursiveModule(nn.Module):
    """Equations 8 to 11 and the ablations of Table 1; run T times with its weights."""

    def __init__(self, config: MRNetConfig) -> None:
        super().__init__()
        width, kind = config.width, config.recursion
        self.body = nn.Sequential(
            *(ResidualBlock(width) for _ in range(config.blocks)),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.encode = self.update = None
        if kind in ("mrm", "input-encoder"):
            self.encode = nn.Conv2d(2 * width, width, 1)
        if kind in ("mrm", "memory-updater"):
            self.update = nn.Conv2d(2 * width, width, 1)
        self.adds_shallow = kind != "baseline"

    @recomputed
    def forward(self, x0: Tensor, memory: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """x_0 and h_{i-1} to r_i and h_i; the last recursion needs no new memory."""
        state = memory
        if self.encode is not None:
            state = self.encode(torch.cat((x0, memory), dim=1))  # equation 8
        residual = self.body(state)  # equation 9
        if last:
            return residual, memory
        if self.update is not None:
            joined = torch.cat((residual, memory), dim=1)
            return residual, self.update(joined)  # equation 11
        return residual, residual + x0 if self.adds_shallow else residual


class _ShuffleConv(nn.Module):
    """Section 3.3: channel i of x_1 ... x_T is a group; T to s*s values, ReLU, shuffle.

    `weight` is (64*s*s, T, k, k): group and sub-pixel, then recursion. Fewer than T
    inputs use the weights of the first recursions, as if the others were zero.
    """

    def __init__(self, config: MRNetConfig, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.reach = config.fusion_kernel // 2
        self.groups = config.width
        steps, outputs = config.steps(scale), config.width * scale * scale
        shape = (outputs, steps, config.fusion_kernel, config.fusion_kernel)
        # Drawn as torch draws a convolution with this fan-in.
        bound = (steps * config.fusion_kernel**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, residuals: list[Tensor], x0: Tensor | None) -> Tensor:
        """r_1 ... r_T to the enlarged features, (N, width, s*h, s*w).

        Equation 10, x_i = x_0 + r_i, and all up to the ReLU are linear: x_0 is read
        once, with the sum of its weights. In half precision each x_i would be rounded.
        """
        features, weight = residuals, self.weight[:, : len(residuals)]
        if x0 is not None:
            features = [*residuals, x0]
            weight = torch.cat((weight, weight.sum(dim=1, keepdim=True)), dim=1)
        if features[0].is_cuda and self.reach == 0:
            return self._fuse_densely(features, weight)
        last = [feature.permute(0, 2, 3, 1) for feature in features]
        stacked = torch.stack(last, dim=-1).flatten(3)  # (N, h, w, 64*(T+1))
        fused = F.conv2d(
            stacked.permute(0, 3, 1, 2),
            weight,
            self.bias,
            padding=self.reach,
            groups=self.groups,
        )
        return F.pixel_shuffle(F.relu(fused), self.scale)

    def _fuse_densely(self, features: list[Tensor], weight: Tensor) -> Tensor:
        """As `forward`, with zeros between the groups: one product, in channels_last.

        A GPU multiplies by zero faster than it runs 64 groups of a few channels, and
        its pixel_shuffle would leave channels_last.
        """
        steps, s, width = len(features), self.scale, self.groups
        own = weight[:, :, 0, 0].view(width, s * s, steps)
        dense = torch.diag_embed(own.permute(1, 2, 0), dim1=1, dim2=3)
        dense = dense.reshape(s * s * width, steps * width, 1, 1)
        bias = self.bias.view(width, s * s).t().reshape(-1)
        x = F.relu(F.conv2d(torch.cat(features, dim=1), dense, bias))
        n, _, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(n, h, w, s, s, width)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(n, h * s, w * s, width)
        return x.permute(0, 3, 1, 2)


class _ConvFusion(nn.Module):
    """Table 2's baseline: 1x1 fusion of all recursions, a 3x3 to s*s sub-pixels."""

    def __init__(self, config: MRNetConfig, scale: int) -> None:
        super().__init__()
        self.scale = scale
        width = config.width
        self.fuse = JointConv(config.steps(scale) * width, width)
        self.expand = nn.Conv2d(width, width * scale * scale, 3, padding=1)

    def forward(self, residuals: list[Tensor], x0: Tensor | None) -> Tensor:
        features = residuals
        if x0 is not None:
            features = [x0 + residual for residual in residuals]  # equation 10
        return F.pixel_shuffle(self.expand(self.fuse(features)), self.scale)


class _Head(nn.Module):
    """What is a scale's own: shallow features, fusion, reconstruction."""

    def __init__(self, config: MRNetConfig, scale: int) -> None:
        super().__init__()
        width = config.width
        self.extract = nn.Sequential(
            nn.Conv2d(3, width, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        fusion = _ShuffleConv if config.fusion == "shuffle" else _ConvFusion
        self.fusion = fusion(config, scale)
        # The s*s sub-pixels of a channel begin with the same values: the first enlarged
        # features are then free of a checkerboard (docs/models.md has the measurement).
        # Source: Aitken et al., arXiv 1707.02937, section 2.
        own = self.fusion
        last = own.expand if isinstance(own, _ConvFusion) else own
        for parameter in last.parameters():
            channels = parameter.data.view(-1, scale**2, *parameter.shape[1:])
            channels.copy_(channels[:, :1].expand_as(channels).clone())
        self.reconstruct = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 3, 3, padding=1),
        )


class MRNet(SRModel):
    """Memory recursive network on RGB, at LR size until a pixel shuffle.

    Source: ACM MM 2020, sections 3.1 to 3.3. No picture is added to the output. The
    multi-scale network (Table 3, "MRNet") has one head per scale and one shared
    recursive module; a single-scale config is "MRNet-S".
    """

    arch = "mrnet"
    color = "rgb"
    config_class = MRNetConfig
    multi_scale = True
    measured_overlap = 20
    variants: ClassVar[Mapping[str, MRNetConfig]] = {
        "mrnet": MRNetConfig(),
        "mrnet-s": MRNetConfig(scales=(4,)),  # Table 3; any one scale
        # Table 1, at x2.
        "mrnet-baseline": MRNetConfig(scales=(2,), recursion="baseline"),
        "mrnet-residual": MRNetConfig(scales=(2,), recursion="residual"),
        "mrnet-input-encoder": MRNetConfig(scales=(2,), recursion="input-encoder"),
        "mrnet-memory-updater": MRNetConfig(scales=(2,), recursion="memory-updater"),
        # Table 2, at x2; `recursions` takes the sweep's 2, 4, 6, 8 and 10.
        "mrnet-conv-fusion": MRNetConfig(scales=(2,), fusion="conv"),
        "mrnet-shuffle3x3": MRNetConfig(scales=(2,), fusion_kernel=3),
    }

    config: MRNetConfig

    def __init__(self, config: MRNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or MRNetConfig()
        self.recurse = _MemoryRecursiveModule(self.config)
        self.heads = nn.ModuleDict(
            {str(scale): _Head(self.config, scale) for scale in self.config.scales}
        )

    def _head(self, scale: int) -> _Head:
        return cast(_Head, self.heads[str(scale)])

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The one estimate that the L1 loss of section 4.1 supervises."""
        scale = self.resolve_scale(scale)
        head = self._head(scale)
        memory = shallow = head.extract(lr)  # x_0 and h_0
        residuals = []
        steps = self.limited(self.config.steps(scale))
        for step in range(1, steps + 1):
            residual, memory = self.recurse(shallow, memory, step == steps)
            residuals.append(residual)
        added = shallow if self.recurse.adds_shallow else None
        sr: Tensor = head.reconstruct(head.fusion(residuals, added))
        return (sr.to(lr.dtype),)  # autocast computes in half precision

    def limit_recursions(self, limit: int | None) -> None:
        """Run at most `limit` recursions; the fusion weights beyond it become zero.

        So a later, higher limit leaves the output as it was, and the new recursions
        learn their part from nothing.
        """
        super().limit_recursions(limit)
        if limit is None:
            return
        with torch.no_grad():
            for scale in self.config.scales:
                head = self._head(scale)
                if isinstance(head.fusion, _ShuffleConv):
                    head.fusion.weight[:, limit:] = 0.0
                else:
                    head.fusion.fuse.weight[:, limit * self.config.width :] = 0.0

    def receptive_radius(self, scale: int | None = None) -> int:
        """3 + 1 for the shallow features, 21 a recursion, the tail on the HR grid."""
        scale = self.resolve_scale(scale)
        recursion = 2 * self.config.blocks + 1
        head = 4 + self.config.fusion_kernel // 2
        if self.config.fusion == "conv":
            head = 5
        tail = -(-2 // scale)  # two 3x3 convolutions at HR size
        return head + self.config.steps(scale) * recursion + tail
