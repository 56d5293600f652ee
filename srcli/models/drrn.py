"""DRRN: deep recursive residual network (Tai et al., CVPR 2017).

Source: "Image Super-Resolution via Deep Recursive Residual Network", the text in
section 3, the settings in section 4.2; normalisation as in the authors' published
network definition (github.com/tyshiwo/DRRN_CVPR17). The counts that the paper prints
are met (tests/models/test_drrn.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError, unknown
from srcli.imaging.resize import imresize_torch
from srcli.models.base import ModelConfig, SRModel, find_hr_radius, recomputed
from srcli.models.layers import Affine


@dataclass(frozen=True, slots=True, kw_only=True)
class DRRNConfig(ModelConfig):
    """DRRN's sizes; the defaults are B1U25, the best network of Table 2."""

    blocks: int = 1  # B, recursive blocks, each with weights of its own
    units: int = 25  # U, residual units in a block; none makes it VDSR (section 3.3)
    width: int = 128  # channels of every feature map
    shared: bool = True  # a block's units share their convolutions; else DRRN_NS
    path: Literal["multi", "chain"] = (
        "multi"  # identity from the block's start, or from the unit: DRRN_C
    )
    norm: Literal["affine", "batch"] = (
        "affine"  # learned scale and shift; "batch": the paper's, with BN
    )

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if min(self.blocks, self.width) < 1 or self.units < 0:
            raise UsageError("blocks and width must be at least 1, units at least 0")
        if self.path not in ("multi", "chain"):
            raise unknown("path", self.path, ("multi", "chain"))
        if self.norm not in ("affine", "batch"):
            raise unknown("norm", self.norm, ("affine", "batch"))

    @property
    def depth(self) -> int:
        """d, the convolutional layers that the picture passes; equation 7."""
        return (1 + 2 * self.units) * self.blocks + 1

    def expected_square(self, units: int) -> int:
        """Mean square of a state after `units` units when the network is new.

        Counted with the block's first state as one. He's initialisation keeps the mean
        square of what it is given, and a sum of independent terms adds theirs.
        """
        if self.path == "chain":
            return 1 + units
        return 2 if units else 1


def _normalization(config: DRRNConfig, channels: int, square: int = 1) -> nn.Module:
    """One application's own normalisation of values with that expected mean square."""
    if config.norm == "batch":
        return nn.BatchNorm2d(channels)
    return Affine(channels, square**-0.5)


def _convolution(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution as He et al. start it (section 4.2)."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class _Layer(nn.Module):
    """Normalisation, ReLU, convolution: "pre-activation" (section 3.1)."""

    def __init__(self, norm: nn.Module, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.norm = norm
        self.convolution = convolution

    @recomputed
    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(F.relu(self.norm(x), inplace=True))


class _RecursiveBlock(nn.Module):
    """Figure 4: a layer, then U residual units (equations 5 and 6)."""

    def __init__(self, config: DRRNConfig, inputs: int, square: int) -> None:
        super().__init__()
        width = config.width
        self.enter = _Layer(
            _normalization(config, inputs, square), _convolution(inputs, width)
        )
        # Each application normalises for itself, whether or not it shares its weights.
        self.norms = nn.ModuleList(
            _normalization(config, width, square)
            for unit in range(config.units)
            for square in (config.expected_square(unit), 1)
        )
        own = 1 if config.shared else config.units
        self.convolutions = nn.ModuleList(
            _convolution(width, width) for _ in range(2 * min(own, config.units))
        )

    def spread(self, before: int, units: int) -> None:
        """Let the first `units` units do what the first `before` have learned to do."""
        for index in reversed(range(2 * units)):
            source = _spread(index, before, units)
            for layers in (self.norms, self.convolutions):
                if index < len(layers):
                    layers[index].load_state_dict(layers[source].state_dict())

    @recomputed
    def residual(self, state: Tensor, unit: int) -> Tensor:
        """What a unit adds to its identity: F of equation 4, its two layers."""
        for index in (2 * unit, 2 * unit + 1):
            convolution = self.convolutions[index % len(self.convolutions)]
            state = convolution(F.relu(self.norms[index](state), inplace=True))
        return state


class DRRN(SRModel):
    """Recursive residual units on the bicubic-upsampled Y, one network for all scales.

    Source: CVPR 2017, sections 3.1 to 3.3. Deviations: `norm` is by default a learned
    scale and shift without batch statistics, which starts at what batch normalisation
    would do to He-initialised layers on average; convolutions but the last have no
    bias, since the shift of the normalisation after them does the same.
    """

    arch = "drrn"
    color = "y"
    config_class = DRRNConfig
    multi_scale = True
    variants: ClassVar[Mapping[str, DRRNConfig]] = {
        "drrn": DRRNConfig(),
        "drrn-batch": DRRNConfig(norm="batch"),
        "drrn-b1u9": DRRNConfig(units=9),  # Table 2, 20 layers as VDSR and DRCN
        # Figure 6: one of B and U at 3, the other from 1 to 4; then 52 layers.
        "drrn-b1u3": DRRNConfig(units=3),
        "drrn-b2u3": DRRNConfig(blocks=2, units=3),
        "drrn-b3u3": DRRNConfig(blocks=3, units=3),
        "drrn-b4u3": DRRNConfig(blocks=4, units=3),
        "drrn-b3u1": DRRNConfig(blocks=3, units=1),
        "drrn-b3u2": DRRNConfig(blocks=3, units=2),
        "drrn-b3u4": DRRNConfig(blocks=3, units=4),
        "drrn-b3u8": DRRNConfig(blocks=3, units=8),
        "drrn-b17u1": DRRNConfig(blocks=17, units=1),
        # Figure 8, Table 4: units unshared, chained, both, and VDSR, at three depths.
        "drrn-ns-b3u2": DRRNConfig(blocks=3, units=2, shared=False),
        "drrn-ns-b3u3": DRRNConfig(blocks=3, units=3, shared=False),
        "drrn-ns-b3u4": DRRNConfig(blocks=3, units=4, shared=False),
        "drrn-c-b3u2": DRRNConfig(blocks=3, units=2, path="chain"),
        "drrn-c-b3u3": DRRNConfig(blocks=3, units=3, path="chain"),
        "drrn-c-b3u4": DRRNConfig(blocks=3, units=4, path="chain"),
        "drrn-ns-c-b3u2": DRRNConfig(blocks=3, units=2, shared=False, path="chain"),
        "drrn-ns-c-b3u3": DRRNConfig(blocks=3, units=3, shared=False, path="chain"),
        "drrn-ns-c-b3u4": DRRNConfig(blocks=3, units=4, shared=False, path="chain"),
        "vdsr-d16": DRRNConfig(blocks=15, units=0),
        "vdsr-d22": DRRNConfig(blocks=21, units=0),
        "vdsr-d28": DRRNConfig(blocks=27, units=0),
        # Table 2's VDSR: 20 layers of 64 filters.
        "vdsr": DRRNConfig(blocks=19, units=0, width=64),
    }

    config: DRRNConfig

    def __init__(self, config: DRRNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DRRNConfig()
        square = config.expected_square(config.units)
        given = [(1, 1), *[(config.width, square)] * (config.blocks - 1)]
        self.blocks = nn.ModuleList(_RecursiveBlock(config, *each) for each in given)
        self.reconstruct = _Layer(
            _normalization(config, config.width, square),
            _convolution(config.width, 1, bias=True),
        )
        if config.norm == "affine":
            _start_without_the_mean(self)

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The one estimate that the loss of equation 10 supervises; equation 9."""
        picture = imresize_torch(lr, self.resolve_scale(scale))
        state = picture
        for block in cast("list[_RecursiveBlock]", self.blocks):  # equation 8
            state = identity = block.enter(state)  # H^0
            for unit in range(self.limited(self.config.units)):
                state = block.residual(state, unit) + identity  # equation 5
                if self.config.path == "chain":
                    identity = state
        residual = self.reconstruct(state)
        return (picture + residual.to(picture.dtype),)

    def limit_recursions(self, limit: int | None) -> None:
        """Run at most the first `limit` units of each block.

        When it is raised, all units that run from now on begin as those did that ran
        before, each of them several times in turn (`_spread`). This changes the output,
        but units that begin by handing their input on learn next to nothing.
        """
        before = self.limited(self.config.units)
        super().limit_recursions(limit)
        units = self.limited(self.config.units)
        if units > before:
            for block in self.blocks:
                cast("_RecursiveBlock", block).spread(before, units)

    def fitting_weights(self, source: SRModel) -> dict[str, Tensor]:
        """As `SRModel.fitting_weights`; other numbers of units as after a raise.

        Weights that fewer units share begin as those of every unit.
        """
        if not isinstance(source, DRRN):
            return super().fitting_weights(source)
        own, known = self.state_dict(), source.state_dict()
        found = {name: known.get(self._find(name, source)) for name in own}
        return {
            name: value
            for name, value in found.items()
            if value is not None and value.shape == own[name].shape
        }

    def _find(self, name: str, source: DRRN) -> str:
        """The tensor of `source` that the tensor `name` begins as."""
        parts = name.split(".")
        if parts[0] == "blocks" and parts[2] in ("norms", "convolutions"):
            index, there = int(parts[3]), source.config.units
            if source.limited(there) == there:
                index = _spread(index, there, self.config.units)
            if parts[2] == "convolutions" and source.config.shared:
                index %= 2
            parts[3] = str(index)
        return ".".join(parts)

    def receptive_radius(self, scale: int | None = None) -> int:
        """One HR pixel for each of the d layers, then what the bicubic reads."""
        return find_hr_radius(self.config.depth, self.resolve_scale(scale))


# Where training starts, and goes on from fewer units: ours.

_DETAIL_GAIN = 4.0  # measured, docs/models.md
_RESIDUAL_SHARE = 0.02


@torch.no_grad()
def _start_without_the_mean(model: DRRN) -> None:
    """Let the first layer start blind to plain areas, and the output near bicubic.

    A picture is mostly its local mean, of which the residual holds nothing. Batch
    normalisation takes it out of the features; scale and shift have to learn to.
    """
    first = model.get_parameter("blocks.0.enter.convolution.weight")
    first.sub_(first.mean(dim=(2, 3), keepdim=True)).mul_(_DETAIL_GAIN)
    model.reconstruct.convolution.weight *= _RESIDUAL_SHARE


def _spread(index: int, before: int, units: int) -> int:
    """Which layer of `before` units stands for a layer of `units`, two in each."""
    unit, layer = divmod(index, 2)
    return 2 * (unit * before // units) + layer
