"""DRRN: deep recursive residual network (Tai et al., CVPR 2017).

Source: "Image Super-Resolution via Deep Recursive Residual Network", the text in
section 3, the settings in section 4.2; normalisation as in the authors' published
network definition (github.com/tyshiwo/DRRN_CVPR17). The counts that the paper prints
are met (tests/models/test_drrn.py).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.imaging.resize import imresize_torch
from srcli.models.base import ModelConfig, SRModel, find_hr_radius, recomputed
from srcli.models.layers import Affine, make_he_conv, start_with_details


@dataclass(frozen=True, slots=True, kw_only=True)
class DRRNConfig(ModelConfig):
    """DRRN's sizes; the defaults are B1U25, the best network of Table 2."""

    blocks: int = 1  # B, recursive blocks, each with weights of its own
    units: int = 25  # U, residual units in a block; none makes it VDSR (section 3.3)
    width: int = 128  # channels of every feature map
    shared: bool = True  # a block's units share their convolutions; else DRRN_NS
    # Identity from the block's start, or from the unit: DRRN_C.
    path: Literal["multi", "chain"] = "multi"
    # Learned scale and shift, or the paper's batch normalisation.
    norm: Literal["affine", "batch"] = "affine"

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if min(self.blocks, self.width) < 1 or self.units < 0:
            raise UsageError("blocks and width must be at least 1, units at least 0")

    @property
    def depth(self) -> int:
        """d, the convolutional layers that the picture passes; equation 7."""
        return (1 + 2 * self.units) * self.blocks + 1

    def expected_square(self, units: int) -> int:
        """Mean square of a new network's state after `units` units; 1 before them.

        He's initialisation keeps it, and a sum of independent terms adds theirs.
        """
        if self.path == "chain":
            return 1 + units
        return 2 if units else 1


def _normalization(config: DRRNConfig, channels: int, square: int = 1) -> nn.Module:
    """One application's own normalisation of values with that expected mean square."""
    if config.norm == "batch":
        return nn.BatchNorm2d(channels)
    return Affine(channels, square**-0.5)


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
            _normalization(config, inputs, square),
            make_he_conv(inputs, width, bias=False),
        )
        # Each application normalises for itself, whether or not it shares its weights.
        self.norms = nn.ModuleList(
            _normalization(config, width, square)
            for unit in range(config.units)
            for square in (config.expected_square(unit), 1)
        )
        own = min(1, config.units) if config.shared else config.units
        self.convolutions = nn.ModuleList(
            make_he_conv(width, width, bias=False) for _ in range(2 * own)
        )

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
            make_he_conv(config.width, 1),
        )
        if config.norm == "affine":
            # Ours: without batch statistics, the first layer starts blind to plain
            # areas, of which the residual holds nothing, and the output near bicubic.
            first = self.get_parameter("blocks.0.enter.convolution.weight")
            start_with_details(first)
            self.reconstruct.convolution.weight.data *= 0.02

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
        before, each of them several times in turn. This changes the output, but units
        that begin by handing their input on learn next to nothing.
        """
        before = self.limited(self.config.units)
        super().limit_recursions(limit)
        units, shared = self.limited(self.config.units), self.config.shared
        if units > before:
            known = copy.deepcopy(self.state_dict())
            names = {name: _find_start(name, before, units, shared) for name in known}
            self.load_state_dict({name: known[start] for name, start in names.items()})

    def fitting_weights(self, source: SRModel) -> dict[str, Tensor]:
        """As `SRModel.fitting_weights`; other numbers of units as after a raise.

        Weights that fewer units share begin as those of every unit.
        """
        if not isinstance(source, DRRN):
            return super().fitting_weights(source)
        before, units = source.config.units, self.config.units
        if source.limited(before) < before:
            before = units  # a shallow phase is taken over as it is
        known, found = source.state_dict(), {}
        for name, own in self.state_dict().items():
            value = known.get(_find_start(name, before, units, source.config.shared))
            if value is not None and value.shape == own.shape:
                found[name] = value
        return found

    def receptive_radius(self, scale: int | None = None) -> int:
        """One HR pixel for each of the d layers, then what the bicubic reads."""
        return find_hr_radius(self.config.depth, self.resolve_scale(scale))


def _find_start(name: str, before: int, units: int, shared: bool) -> str:
    """The tensor of `before` units that a tensor begins as where `units` run (ours)."""
    parts = name.split(".")
    if parts[0] == "blocks" and parts[2] in ("norms", "convolutions"):
        unit, layer = divmod(int(parts[3]), 2)
        if unit < units:
            unit = unit * before // units
        if shared and parts[2] == "convolutions":
            unit = 0
        parts[3] = str(2 * unit + layer)
    return ".".join(parts)
