"""Networks joined for inference: fewer passes over memory, the same function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.models.base import SRModel
from srcli.models.fused import (
    FusedConv,
    align_channels,
    keep_buffers,
    rectify,
    without_autocast,
)

# Values of a feature map that are computed at once: what stays in a CPU's cache, and
# what keeps a GPU busy.
_STRIP = 1 << 23
_GPU_STRIP = 1 << 26
_thin: list[None] = []
# What a network's class says of it.
_CLASS_VALUES = (
    "arch",
    "color",
    "config_class",
    "variants",
    "multi_scale",
    "stage",
    "combination",
)


class FoldedModel(SRModel):
    """What `SRModel.folded` returns where there is something to join.

    A subclass keeps its tensors as buffers that are not persistent, and gives
    `predictions`. Everything that can be asked of the network is answered as by the
    network it came from. It can neither be trained nor saved.
    """

    def __init__(self, source: SRModel) -> None:
        """Take over what `source` is.

        Args:
            source: The network that is folded; it is not changed.
        """
        super().__init__()
        for name in _CLASS_VALUES:
            setattr(self, name, getattr(source, name))
        self.config = source.config
        self.recursion_limit = source.recursion_limit
        self._reach = {
            scale: (source.receptive_radius(scale), source.tile_overlap(scale))
            for scale in source.config.scales
        }
        self.eval()

    def receptive_radius(self, scale: int | None = None) -> int:
        """The source's."""
        return self._reach[self.resolve_scale(scale)][0]

    def tile_overlap(self, scale: int | None = None) -> int:
        """The source's."""
        return self._reach[self.resolve_scale(scale)][1]

    def train(self, mode: bool = True) -> Self:
        """Only `eval()` is possible.

        Raises:
            UsageError: If `mode` is true.
        """
        if mode:
            self._refuse("trained")
        return super().train(mode)

    def limit_recursions(self, limit: int | None) -> NoReturn:  # noqa: ARG002
        """Not possible: what does not run is left out.

        Raises:
            UsageError: Always.
        """
        self._refuse("given another limit")

    def state_dict(self, *_args: Any, **_options: Any) -> NoReturn:  # noqa: ANN401
        """Not possible.

        Raises:
            UsageError: Always.
        """
        self._refuse("saved")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"a folded {self.arch} cannot be {what}: use the network it came from"
        )


def choose_dtype(x: Tensor) -> torch.dtype:
    """What a layer computes in that is given `x`: autocast's choice, or that of `x`."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


@dataclass(frozen=True, slots=True)
class Scaling:
    """scale * x + shift, per channel; both (channels,) in float64 on the CPU."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def read(cls, norm: nn.Module) -> Scaling:
        """What a normalisation does in evaluation.

        Args:
            norm: `nn.BatchNorm2d`, or a learned `weight` and `bias` without statistics.
        """
        state = {name: each.cpu().double() for name, each in norm.state_dict().items()}
        scale, shift = state["weight"], state["bias"]
        if isinstance(norm, nn.BatchNorm2d):
            scale = scale / torch.sqrt(state["running_var"] + norm.eps)
            shift = shift - scale * state["running_mean"]
        return cls(scale, shift)


def fuse_layer(layer: nn.Module) -> FusedConv:
    """A convolution as it is."""
    weight = layer.get_parameter("weight").detach()
    return FusedConv(weight, layer.get_parameter("bias").detach(), weight)


def join_layer(layer: nn.Module, gain: Tensor, then: Scaling) -> FusedConv:
    """A convolution with the scalings before and after it, joined in float64.

    Args:
        layer: The convolution; if it has a bias, that is in `then`.
        gain: What each input is still to be multiplied by, (inputs,).
        then: What follows.
    """
    own = layer.get_parameter("weight").detach()
    weight = own.cpu().double() * gain.view(-1, 1, 1)
    return FusedConv(weight * then.scale.view(-1, 1, 1, 1), then.shift, own)


def split_activation(module: nn.Module) -> tuple[nn.Module, float]:
    """A layer and the slope below zero of the PReLU after it; 1 if there is none."""
    if not isinstance(module, nn.Sequential):
        return module, 1.0
    layer, activation = module
    return layer, float(activation.get_parameter("weight").detach())


class Transition(nn.Module):
    """A strided or transposed convolution and its PReLU, in the dtype of its input."""

    weight: Tensor
    bias: Tensor

    def __init__(self, module: nn.Module) -> None:
        """Take over a layer, or one with a PReLU of one slope after it."""
        super().__init__()
        layer, self.slope = split_activation(module)
        layer = cast("nn.Conv2d | nn.ConvTranspose2d", layer)
        values = {name: each.detach() for name, each in layer.named_parameters()}
        keep_buffers(self, values["weight"], **values)
        self.place: dict[str, Any] = {"stride": layer.stride, "padding": layer.padding}
        self.convolve: Callable[..., Tensor] = F.conv2d
        if isinstance(layer, nn.ConvTranspose2d):
            self.place["output_padding"] = layer.output_padding
            self.convolve = F.conv_transpose2d

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, h', w')."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        with without_autocast(x):
            out = self.convolve(x, weight, bias, **self.place)
        return align_channels(rectify(out, self.slope))


def project(layer: FusedConv, features: Tensor, dtype: torch.dtype) -> Tensor:
    """A network's last 3x3 convolution, to the few channels of a picture.

    Args:
        layer: Computes in `dtype`: what it rounds is seen in the picture.
        features: (N, inputs, h, w) of any dtype; turned into `dtype` strip by strip,
            since as a whole that would be the largest tensor of all.
        dtype: As a rule the picture's.
    """
    if features.dtype == dtype:
        return layer(features)
    height = features.shape[2]
    strips = []
    for top, bottom in cut_strips(features):
        above, below = max(0, top - 1), min(height, bottom + 1)
        strip = layer(features[:, :, above:below].to(dtype))
        strips.append(strip[:, :, top - above : bottom - above])
    return torch.cat(strips, dim=2)


@contextmanager
def thin_strips() -> Iterator[None]:
    """Strips of one row for a while.

    So small pictures have strips, too, and tell what large ones need beside them.
    """
    _thin.append(None)
    try:
        yield
    finally:
        _thin.pop()


def cut_strips(
    features: Tensor, *, multiple: int = 1, times: int = 1
) -> Iterator[tuple[int, int]]:
    """Strips of rows, from top to bottom: where they begin and end.

    Args:
        features: (N, channels, h, w).
        multiple: Of which the height of a strip is one, where it can be.
        times: How often as large the largest tensor is that is made of them.
    """
    height = features.shape[2]
    most = _GPU_STRIP if features.device.type in ("cuda", "mps") else _STRIP
    rows = 1 if _thin else max(1, most // (times * features.numel() // height))
    if rows > multiple:
        rows -= rows % multiple
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
