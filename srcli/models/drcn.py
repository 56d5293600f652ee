"""DRCN: deeply-recursive convolutional network (Kim et al., CVPR 2016).

Source: "Deeply-Recursive Convolutional Network for Image Super-Resolution", the text in
section 3, the settings in section 4.2. Parameters and multiply-accumulates are those
that later papers print for it (tests/models/test_drcn.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.imaging.resize import imresize_torch
from srcli.models.base import ModelConfig, SRModel, find_hr_radius, recomputed
from srcli.models.layers import make_he_conv, start_with_details

# Recursions that are recomputed at once: what one hands on is all that its gradient
# needs. The root of their number balances what groups hand on against what one holds.
_TOGETHER = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DRCNConfig(ModelConfig):
    """DRCN's sizes and its two extensions; the defaults are the network of Table 1.

    Only `start` is not the paper's, whose own is "identity".
    """

    scales: tuple[int, ...] = (2,)  # one each in Table 1; several share all weights
    recursions: int = 16  # D
    width: int = 256  # F, channels of every feature map
    skip: bool = True  # add the bicubic picture to every prediction (section 3.2)
    supervision: bool = True  # predict from all recursions, not from the last alone
    # Figure 3: (a) all is shared, (b) all but the reconstruction, (c) nothing.
    sharing: Literal["all", "recursion", "none"] = "all"
    # How the weights begin, no part of what the network is: ours, which sees details
    # first; as in section 4.2; with an ordinary convolution for recursion.
    start: Literal["details", "identity", "he"] = field(
        default="details", compare=False
    )

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        if min(self.recursions, self.width) < 1:
            raise UsageError("recursions and width must be at least 1")
        if self.sharing != "all" and not self.supervision:
            raise UsageError(f"sharing {self.sharing!r} needs supervision")


def _embedding(width: int) -> nn.Sequential:
    """Equations 1 to 3: the picture to the first state H_0."""
    first, second = (make_he_conv(inputs, width) for inputs in (1, width))
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(first, relu, second, relu)


class _Reconstruction(nn.Module):
    """Equations 6 to 8: a state to the residual; linear at the end, see `DRCN`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = make_he_conv(width, width)
        self.output = make_he_conv(width, 1)

    def features(self, state: Tensor) -> Tensor:
        """Equation 6: what the last convolution reads."""
        return F.relu(self.hidden(state), inplace=True)

    def forward(self, state: Tensor) -> Tensor:
        return self.output(self.features(state))


class _Chain(nn.Module):
    """Figure 3(c): a network of its own for the prediction after `depth` layers."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embed = _embedding(width)
        self.layers = nn.ModuleList(make_he_conv(width, width) for _ in range(depth))
        self.reconstruct = _Reconstruction(width)

    @recomputed
    def forward(self, picture: Tensor) -> Tensor:
        state = self.embed(picture)
        for layer in self.layers:
            state = F.relu(layer(state), inplace=True)
        return self.reconstruct(state)


class DRCN(SRModel):
    """Deeply-recursive network on the bicubic-upsampled Y.

    Source: CVPR 2016, sections 3.1 and 3.2. Deviations: the last layer is linear, where
    equation 7 prints a ReLU; with the skip-connection it yields a residual, which has
    both signs. The weights of equation 10 are divided by their sum, since the result is
    to be their average. Training starts from other weights than section 4.2's unless
    `start` says so. `forward` moves the average of equation 10 before the last layer,
    so that one convolution replaces D of them.
    """

    arch = "drcn"
    color = "y"
    stage = "recursion"
    combination = "ensemble"  # equation 10
    config_class = DRCNConfig
    multi_scale = False
    variants: ClassVar[Mapping[str, DRCNConfig]] = {
        "drcn": DRCNConfig(),
        # Figure 8; its fourth point, D = 16, is "drcn".
        "drcn-d1": DRCNConfig(recursions=1),
        "drcn-d6": DRCNConfig(recursions=6),
        "drcn-d11": DRCNConfig(recursions=11),
        # Section 3.1, and either extension of section 3.2 taken back alone.
        "drcn-basic": DRCNConfig(skip=False, supervision=False),
        "drcn-no-skip": DRCNConfig(skip=False),
        "drcn-no-supervision": DRCNConfig(supervision=False),
        # Figure 3(b) and 3(c).
        "drcn-deep-supervision": DRCNConfig(sharing="recursion"),
        "drcn-unshared": DRCNConfig(sharing="none"),
        # Not the paper's: one network for all scales, as VDSR and DRRN are.
        "drcn-joint": DRCNConfig(scales=(2, 3, 4)),
    }

    config: DRCNConfig

    def __init__(self, config: DRCNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DRCNConfig()
        depth, width = config.recursions, config.width
        if config.sharing == "none":
            self.chains = nn.ModuleList(_Chain(width, d + 1) for d in range(depth))
        else:
            self.embed = _embedding(width)
            self.recurse = make_he_conv(width, width)
            networks = depth if config.sharing == "recursion" else 1
            self.reconstruct = nn.ModuleList(
                _Reconstruction(width) for _ in range(networks)
            )
        self.weights = None
        if config.supervision:
            # w_d of equation 10; the paper does not say how they start: as the mean.
            self.weights = nn.Parameter(torch.full((depth,), 1 / depth))
        _initialise(self)

    @property
    def stage_weights(self) -> Tensor | None:
        """What each recursion adds, `_shares`; None without supervision."""
        return None if self.weights is None else self._shares().detach()

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """Equation 9's D estimates and equation 10's; without supervision the last."""
        picture = imresize_torch(lr, self.resolve_scale(scale))
        residuals = [each.to(lr.dtype) for each in self._residuals(picture)]
        skip = self.config.skip
        estimates = [picture + each if skip else each for each in residuals]
        if self.weights is None:
            return tuple(estimates)
        parts = map(torch.mul, self._shares(), estimates)
        return (*estimates, reduce(torch.add, parts))

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """Equation 10 with one last convolution for all recursions.

        It is linear and shared: its average is its value at its inputs' average.
        """
        if self.weights is None or self.config.sharing != "all":
            return self.predictions(lr, scale)[-1]
        picture = imresize_torch(lr, self.resolve_scale(scale))
        state = self.embed(picture)
        features = torch.zeros_like(state)
        for shares in torch.split(self._shares(), _TOGETHER):
            state, features = self._gather(state, features, shares)
        network = cast(_Reconstruction, self.reconstruct[0])
        sr: Tensor = network.output(features).to(lr.dtype)
        return sr + picture if self.config.skip else sr

    def _shares(self) -> Tensor:
        """The w_d of equation 10, of the recursions that run: they add up to one.

        Else their gradients would hold little but the noise of the picture's
        brightness, which is in every prediction (docs/models.md).
        """
        assert self.weights is not None  # with supervision
        weights = self.weights[: self.limited(self.config.recursions)]
        return weights / weights.sum()

    def _residuals(self, picture: Tensor) -> list[Tensor]:
        """f3 of every recursion that is predicted from, (N, 1, H, W) each."""
        steps = self.limited(self.config.recursions)
        if self.config.sharing == "none":
            return [chain(picture) for chain in self.chains[:steps]]
        state = self.embed(picture)
        residuals: list[Tensor] = []
        for first in range(0, steps, _TOGETHER):
            some = range(first, min(first + _TOGETHER, steps))
            state, *fresh = self._predict(state, some, steps - 1)
            residuals += fresh
        return residuals

    @recomputed
    def _predict(self, state: Tensor, some: range, last: int) -> tuple[Tensor, ...]:
        """The state after `some` recursions, and what is predicted on the way."""
        residuals = []
        for step in some:
            state = F.relu(self.recurse(state), inplace=True)  # equation 4
            if self.config.supervision or step == last:
                network = self.reconstruct[step % len(self.reconstruct)]
                residuals.append(network(state))
        return state, *residuals

    @recomputed
    def _gather(
        self, state: Tensor, features: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state after a recursion for each share, and their features added up."""
        network = cast(_Reconstruction, self.reconstruct[0])
        for share in shares:
            state = F.relu(self.recurse(state), inplace=True)  # equation 4
            fresh = network.features(state)
            features = torch.addcmul(features, fresh, share)
        return state, features

    def limit_recursions(self, limit: int | None) -> None:
        """Run at most `limit` recursions; their weights take over the others' sum.

        The weights beyond become zero, so that a later, higher limit leaves the output
        as it was and the new recursions earn their part.
        """
        super().limit_recursions(limit)
        if limit is None or self.weights is None:
            return
        with torch.no_grad():
            self.weights[:limit] += self.weights[limit:].sum() / limit
            self.weights[limit:] = 0.0

    def receptive_radius(self, scale: int | None = None) -> int:
        """D + 4 layers on the HR grid (20: 41x41, section 4.2), then the bicubic's."""
        return find_hr_radius(self.config.recursions + 4, self.resolve_scale(scale))


def _initialise(model: DRCN) -> None:
    """Change He's weights as `start` says; ours, but for "identity" (section 4.2).

    Recursions begin as the identity. For "details" the first kernels see no brightness,
    and the last one is a twentieth: the network begins near the bicubic picture.
    Without the skip-connection brightness is needed, and "details" is the identity.
    """
    if model.config.start == "he":
        return
    for name, layer in model.named_modules():
        if name.endswith("recurse") or "layers." in name:
            nn.init.dirac_(cast(nn.Conv2d, layer).weight)
    if model.config.start == "identity" or not model.config.skip:
        return
    for name, weight in model.named_parameters():
        if name.endswith("embed.0.weight"):
            start_with_details(weight)
        elif name.endswith("output.weight"):
            weight.data.mul_(0.05)
