"""Networks joined for inference: fewer passes over memory, the same function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from srcli.errors import UsageError
from srcli.models.base import SRModel
from srcli.models.fused import convolve

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


def keep_buffers(module: nn.Module, like: Tensor, **values: Tensor) -> None:
    """Give a module tensors that no weight file is to hold.

    Args:
        module: Gets them as buffers.
        like: Has the dtype and the device that they get.
        values: The tensors, by name.
    """
    for name, value in values.items():
        kept = value.to(like.dtype).to(like.device)
        module.register_buffer(name, kept, persistent=False)


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


class FoldedConv(nn.Module):
    """A 3x3 convolution with the scalings before and after it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Module, gain: Tensor, then: Scaling) -> None:
        """Join them in float64.

        Args:
            layer: The convolution; if it has a bias, that is in `then`.
            gain: What each input is still to be multiplied by, (inputs,).
            then: What follows.
        """
        super().__init__()
        own = layer.get_parameter("weight").detach()
        weight = own.cpu().double() * gain.view(-1, 1, 1)
        weight = weight * then.scale.view(-1, 1, 1, 1)
        keep_buffers(self, own, weight=weight, bias=then.shift)

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """The convolution of `x` in its dtype, and its ReLU if wanted."""
        return convolve(x, *self.cast(x.dtype), relu=relu)

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight and bias."""
        return self.weight.to(dtype), self.bias.to(dtype)
