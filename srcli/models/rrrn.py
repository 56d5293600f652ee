"""RRRN: recurrent residual refinement network.

Source: the RRRN paper (citation in evaluation/published.json), section 2 for
the structure (equations 3 to 10), section 3.1 for g and t. The paper gives no count of
parameters; what it leaves open is decided in docs/models.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.models.base import Color, ModelConfig, SRModel, recomputed
from srcli.models.layers import Convolution, JointConv, JointConvOfSums, keep_variance

# Of D and D*: with kernel = stride + 2 * padding both grids are exact at every size.
_PADDING = 2
_SLOPE = 0.25  # of PReLU below zero, at first


@dataclass(frozen=True, slots=True, kw_only=True)
class RRRNConfig(ModelConfig):
    """RRRN's sizes; the defaults are the network of Tables 1 and 2."""

    scales: tuple[int, ...] = (2,)  # the one scale it is trained for
    sub_networks: int = 4  # g, with the same weights (section 3.1)
    iterations: int = 8  # t, of the residual learning block (section 3.1)
    width: int = 64  # channels of LR and HR features
    extract_layers: int = 6  # 3x3 convolutions of the feature extraction
    extract_ratio: int = 4  # their channels are this many times `width`: 256
    shared_transitions: bool = False  # one D and one D* for all iterations
    reconstruct_kernel: int = 3  # of the last convolution, to the picture
    color: Color = "rgb"  # of the pictures that it works on

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        self.check_single_scale()
        counts = (self.sub_networks, self.iterations, self.extract_layers)
        if min(*counts, self.width, self.extract_ratio) < 1:
            least = "one sub-network, iteration, layer and channel"
            raise UsageError(f"rrrn needs at least {least}")
        if self.reconstruct_kernel % 2 == 0:
            raise UsageError("reconstruct_kernel must be odd")


class _Projection(nn.Module):
    """RP, equations 3 and 4: X to Y^0 and delta^0, PReLU after every layer."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.up = _upsampler(width, scale, activated=True)
        self.restore = _pointwise(width, width)
        self.degrade = _pointwise(width, width)
        self.down = _downsampler(width, scale)

    @recomputed
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.restore(self.up(x))
        return y, x - self.down(self.degrade(y))


class _Iteration(nn.Module):
    """The layers C, H* and H of RL's iteration j, whose inputs grow."""

    def __init__(self, width: int, j: int) -> None:
        super().__init__()
        self.merge = _layer(JointConv(j * width, width), activated=False)
        self.restore = _layer(JointConv(j * width, width), activated=False)
        self.degrade = _layer(JointConvOfSums((j + 1) * width, width), activated=True)


class _Learning(nn.Module):
    """RL: t rounds up to HR size and down again, densely connected.

    "To preserve the negative residual" nothing is activated from the deltas up to zeta.
    """

    def __init__(self, config: RRRNConfig, scale: int) -> None:
        super().__init__()
        width = config.width
        rounds = range(1, config.iterations + 1)
        own = 1 if config.shared_transitions else config.iterations
        self.iterations = nn.ModuleList(_Iteration(width, j) for j in rounds)
        self.ups = nn.ModuleList(
            _upsampler(width, scale, activated=False) for _ in range(own)
        )
        self.downs = nn.ModuleList(_downsampler(width, scale) for _ in range(own))

    @recomputed
    def forward(
        self,
        index: int,
        y: Tensor,
        deltas: tuple[Tensor, ...],
        zetas: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor]:
        """zeta^{j-1}, and D(H([Y^0 ... Y^j])), from all that came before; j - 1 given.

        By equation 6 Y^j is Y^0 and all zetas before it added up.
        """
        layers = cast("_Iteration", self.iterations[index])
        own = min(index, len(self.ups) - 1)
        zeta = layers.restore((*zetas, self.ups[own](layers.merge(deltas))))  # 5
        return zeta, self.downs[own](layers.degrade((y, *zetas, zeta)))  # 7


class _Reconstruction(nn.Module):
    """RR, equation 8: the residual picture, without the first delta and zeta."""

    def __init__(self, config: RRRNConfig, scale: int, channels: int) -> None:
        super().__init__()
        width, kernel = config.width, config.reconstruct_kernel
        dense = config.iterations * width
        self.merge = _layer(JointConv(dense, width), activated=False)
        self.up = _upsampler(width, scale, activated=False)
        self.restore = _layer(JointConv(dense, width), activated=True)
        self.to_image = nn.Conv2d(width, channels, kernel, padding=kernel // 2)
        # All sub-networks add nearly the same at first; start near the bilinear one.
        with torch.no_grad():
            keep_variance(self.to_image)
            self.to_image.weight.mul_(0.01)

    @recomputed
    def forward(self, deltas: tuple[Tensor, ...], zetas: tuple[Tensor, ...]) -> Tensor:
        raised = self.up(self.merge(deltas[1:]))
        return self.to_image(self.restore((*zetas[1:], raised)))


class RRRN(SRModel):
    """Recurrent residual refinement network.

    Source: sections 2.1 to 2.3. I_0 is the bilinear picture; sub-network i adds the
    residual that I_{i-1} still lacks, I_i = I_{i-1} + RR(RL(RP(X_i))) / g (equation 9),
    and hands on the LR feature X_{i+1} = RF(X_i, delta_i^t). All sub-networks have the
    same weights; X_1 comes from the feature extraction. The division by g is ours.
    """

    arch = "rrrn"
    stage = "sub-network"
    config_class = RRRNConfig
    multi_scale = False
    # The exact radius is 80, 79 and 43 at x2, x3 and x4 (docs/models.md).
    measured_overlap = 16
    variants: ClassVar[Mapping[str, RRRNConfig]] = {
        "rrrn": RRRNConfig(),
        # No table varies the network; these are its two free numbers, g and t, and
        # the one sharing that equations 5 and 7 leave open.
        **{f"rrrn-g{g}": RRRNConfig(sub_networks=g) for g in (1, 2, 3)},
        **{f"rrrn-t{t}": RRRNConfig(iterations=t) for t in range(1, 8)},
        "rrrn-shared": RRRNConfig(shared_transitions=True),
        "rrrn-1x1": RRRNConfig(reconstruct_kernel=1),
        "rrrn-y": RRRNConfig(color="y"),
    }

    config: RRRNConfig

    def __init__(self, config: RRRNConfig | None = None) -> None:
        super().__init__()
        self.config = config or RRRNConfig()
        self.color = self.config.color
        width, scale = self.config.width, self.config.scales[0]
        # FE: 3x3 convolutions and a 1x1 to `width` channels, PReLU after each.
        wide, layers = self.config.extract_ratio * width, self.config.extract_layers
        self.extract = nn.Sequential(
            *(
                _layer(nn.Conv2d(inputs, wide, 3, padding=1), activated=True)
                for inputs in (self.channels, *[wide] * (layers - 1))
            ),
            _pointwise(wide, width),
        )
        self.project = _Projection(width, scale)
        self.learn = _Learning(self.config, scale)
        self.reconstruct = _Reconstruction(self.config, scale, self.channels)
        self.fuse: nn.Module = nn.Identity()
        if self.config.sub_networks > 1:  # a single one has no successor to fuse for
            # RF: Conv(128, 1, 1); at first it hands on X as it is.
            layer = nn.Conv2d(2 * width, width, 1)
            keep_variance(layer)
            nn.init.dirac_(layer.weight)
            self.fuse = nn.Sequential(layer, nn.PReLU(init=1.0))

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """I_1 ... I_g, which the mean L1 loss of equation 10 supervises alike.

        Each residual is divided by how many there are, so that a higher recursion limit
        leaves the last image as it was, as long as RF hands on X.
        """
        scale = self.resolve_scale(scale)
        image = F.interpolate(lr, scale_factor=float(scale), mode="bilinear")  # I_0
        x = self.extract(lr)
        images: list[Tensor] = []
        last = self.limited(self.config.sub_networks)
        for index in range(1, last + 1):
            residual, delta = self._refine(x)
            image = image + residual.to(lr.dtype) / last  # equation 9
            images.append(image)
            if index < last:
                x = self.fuse(torch.cat((x, delta), dim=1))
        return tuple(images)

    def _refine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One sub-network: the residual picture, and delta^t for the next.

        RP, each iteration of RL, and RR are recomputed by themselves: the features of
        all iterations, there at once, are more than what all of them hand on.
        """
        y, delta = self.project(x)
        deltas: tuple[Tensor, ...] = (delta,)
        zetas: tuple[Tensor, ...] = ()
        for index in range(self.config.iterations):
            zeta, lowered = self.learn(index, y, deltas, zetas)
            zetas = (*zetas, zeta)
            deltas = (*deltas, x - lowered)  # equation 7
        return self.reconstruct(deltas, zetas), deltas[-1]

    def receptive_radius(self, scale: int | None = None) -> int:
        """One for each 3x3 of the extraction, and t + 1 rounds a sub-network that runs.

        A round, D after D*, reaches 1 + floor(3 / s) LR pixels: D reads its own s by s
        pixels and 2 more all around, and D* fills the outer of these from 2 further.
        The last way up adds 1 + floor((1 + r) / s), r the last convolution's radius.
        """
        scale = self.resolve_scale(scale)
        config = self.config
        rounds = self.limited(config.sub_networks) * (config.iterations + 1)
        reach = 1 + (2 * _PADDING - 1) // scale
        last = 1 + (config.reconstruct_kernel // 2 + _PADDING - 1) // scale
        return config.extract_layers + rounds * reach + last


def _pointwise(inputs: int, outputs: int) -> nn.Module:
    """The end of FE, and RP's H* and H: Conv(64, 1, 1) of one feature."""
    return _layer(nn.Conv2d(inputs, outputs, 1), activated=True)


def _upsampler(width: int, scale: int, *, activated: bool) -> nn.Module:
    """D*: Deconv(64, k, s)."""
    kernel = scale + 2 * _PADDING
    conv = nn.ConvTranspose2d(width, width, kernel, scale, _PADDING)
    return _layer(conv, activated=activated)


def _downsampler(width: int, scale: int) -> nn.Module:
    """D: Conv(64, k, s)."""
    kernel = scale + 2 * _PADDING
    return _layer(nn.Conv2d(width, width, kernel, scale, _PADDING), activated=True)


def _layer(conv: Convolution, *, activated: bool) -> nn.Module:
    """The convolution, with its PReLU of one slope if activated."""
    keep_variance(conv, _SLOPE if activated else 1.0)
    return nn.Sequential(conv, nn.PReLU(init=_SLOPE)) if activated else conv
