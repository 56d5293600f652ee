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
from srcli.models.base import ModelConfig, SRModel
from srcli.models.mrnet_folded import FoldedMRNet
from srcli.models.residual import ResidualBlock

# Table 1 and Figure 5: how one recursion's input is made from what came before.
Recursion = Literal["mrm", "input-encoder", "memory-updater", "residual", "baseline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MRNetConfig(ModelConfig):
    """MRNet's sizes; the defaults are the multi-scale network of Table 3."""

    recursions: tuple[int, int, int] = (4, 6, 8)  # T at x2, x3 and x4
    width: int = 64  # c0, channels of every feature map
    blocks: int = 10  # residual blocks in the shared convolution block
    recursion: Recursion = "mrm"  # Table 1
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
        width = config.width
        kind = config.recursion
        self.kind = kind
        self.body = nn.Sequential(
            *(ResidualBlock(width) for _ in range(config.blocks)),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.encode = (
            nn.Conv2d(2 * width, width, 1)
            if kind in ("mrm", "input-encoder")
            else nn.Identity()
        )
        self.update = (
            nn.Conv2d(2 * width, width, 1)
            if kind in ("mrm", "memory-updater")
            else nn.Identity()
        )

    def forward(self, x0: Tensor, memory: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """One recursion: (x0, h_{i-1}) to (x_i, h_i); the last needs no new memory."""
        if self.kind in ("mrm", "input-encoder"):
            encoded = self.encode(torch.cat((x0, memory), dim=1))
        else:
            encoded = memory
        residual = self.body(encoded)
        out = residual if self.kind == "baseline" else residual + x0
        if self.kind not in ("mrm", "memory-updater"):
            return out, out
        if last:
            return out, memory
        return out, self.update(torch.cat((residual, memory), dim=1))


class _ShuffleConv(nn.Module):
    """Section 3.3: channel i of x_1 ... x_T is a group; T to s*s values, ReLU, shuffle.

    `weight` is (64*s*s, T, k, k): group and sub-pixel, then recursion. Fewer than T
    inputs use the weights of the first recursions, as if the others were zero.
    """

    def __init__(self, config: MRNetConfig, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.kernel = config.fusion_kernel
        steps = config.steps(scale)
        self.groups = config.width
        outputs = config.width * scale * scale
        shape = (outputs, steps, self.kernel, self.kernel)
        # Drawn as torch draws a convolution with this fan-in.
        bound = (steps * self.kernel**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        _equalise_subpixels(self.weight, scale)
        _equalise_subpixels(self.bias, scale)

    def forward(self, features: list[Tensor]) -> Tensor:
        if features[0].is_cuda and self.kernel == 1:
            return self._fuse_densely(features)
        stacked = torch.stack(features, dim=2).flatten(1, 2)  # (N, 64*T, h, w)
        fused = F.conv2d(
            stacked,
            self.weight[:, : len(features)],
            self.bias,
            padding=self.kernel // 2,
            groups=self.groups,
        )
        return F.pixel_shuffle(F.relu(fused), self.scale)

    def _fuse_densely(self, features: list[Tensor]) -> Tensor:
        """As `forward`, with zeros between the groups: one product, in channels_last.

        A GPU multiplies by zero faster than it runs 64 groups of a few channels, and
        its pixel_shuffle would leave channels_last.
        """
        steps, s, width = len(features), self.scale, self.groups
        own = self.weight[:, :steps, 0, 0].view(width, s * s, steps)
        dense = torch.diag_embed(own.permute(1, 2, 0), dim1=1, dim2=3)
        dense = dense.reshape(s * s * width, steps * width, 1, 1)
        bias = self.bias.view(width, s * s).t().reshape(-1)
        x = F.relu(F.conv2d(torch.cat(features, dim=1), dense, bias))
        n, _, h, w = x.shape
        x = x.permute(0, 2, 3, 1).reshape(n, h, w, s, s, width)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(n, h * s, w * s, width)
        return x.permute(0, 3, 1, 2)


@torch.no_grad()
def _equalise_subpixels(parameter: Tensor, scale: int) -> None:
    """Give the s*s sub-pixels of a channel one and the same initial value.

    The first enlarged features are then free of a checkerboard, which the convolutions
    after the shuffle would have to unlearn (docs/models.md has the measurement).
    Source: Aitken et al., arXiv 1707.02937, section 2.
    """
    channels = parameter.view(-1, scale * scale, *parameter.shape[1:])
    channels.copy_(channels[:, :1].expand_as(channels).clone())


class _ConvFusion(nn.Module):
    """Table 2's baseline: 1x1 fusion of all recursions, a 3x3 to s*s sub-pixels."""

    def __init__(self, config: MRNetConfig, scale: int) -> None:
        super().__init__()
        self.scale = scale
        width = config.width
        self.fuse = nn.Conv2d(config.steps(scale) * width, width, 1)
        self.expand = nn.Conv2d(width, width * scale * scale, 3, padding=1)
        _equalise_subpixels(self.expand.weight, scale)
        assert self.expand.bias is not None
        _equalise_subpixels(self.expand.bias, scale)

    def forward(self, features: list[Tensor]) -> Tensor:
        stacked = torch.cat(features, dim=1)
        weight = self.fuse.weight[:, : stacked.shape[1]]
        fused = F.conv2d(stacked, weight, self.fuse.bias)
        return F.pixel_shuffle(self.expand(fused), self.scale)


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
        self.fusion: _ShuffleConv | _ConvFusion = (
            _ShuffleConv(config, scale)
            if config.fusion == "shuffle"
            else _ConvFusion(config, scale)
        )
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
        steps = self.limited(self.config.steps(scale))
        shallow = head.extract(lr)
        memory = shallow
        features: list[Tensor] = []
        for step in range(steps):
            last = step == steps - 1
            out, memory = self.run_recursion(self.recurse, shallow, memory, last)
            features.append(out)
        sr: Tensor = head.reconstruct(head.fusion(features))
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

    def folded(self) -> SRModel:
        """Sums and ReLUs inside the convolutions, for all but Table 2's variants."""
        plain = self.config.fusion == "shuffle" and self.config.fusion_kernel == 1
        return FoldedMRNet(self) if plain else self

    def receptive_radius(self, scale: int | None = None) -> int:
        """3 + 1 for the shallow features, 21 a recursion, the tail on the HR grid."""
        scale = self.resolve_scale(scale)
        recursion = 2 * self.config.blocks + 1
        head = 4 + self.config.fusion_kernel // 2
        if self.config.fusion == "conv":
            head = 5
        tail = -(-2 // scale)  # two 3x3 convolutions at HR size
        return head + self.config.steps(scale) * recursion + tail

    def tile_overlap(self, scale: int | None = None) -> int:
        """20 LR pixels: measured, docs/design.md; the exact radius is 89 to 173."""
        return min(20, self.receptive_radius(scale))
