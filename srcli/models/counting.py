"""Counts of a network's parameters and multiply-accumulates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from srcli.models.base import ModelConfig, SRModel

_ATEN = torch.ops.aten


class MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the multiply-accumulates of every learned layer.

    Those run convolutions, or `addmm` where a 1x1 layer is a matrix product. Other
    products are the fixed interpolation of the input, which no paper counts.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own signature
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        if func is _ATEN.convolution.default:
            image, weight, transposed = args[0], args[1], args[6]
            # Weights are (out, in/groups, kh, kw), or (in, out/groups, kh, kw) when
            # transposed: each position of the strided side touches one such slice.
            positions = (image if transposed else out).numel()
            self.macs += positions * weight[0].numel()
        elif func in (_ATEN.addmm.default, _ATEN.addmm_.default):
            self.macs += out.numel() * args[1].shape[1]
        return out


def outline(network: type[SRModel], config: ModelConfig) -> SRModel:
    """A network without values, on the meta device: made at once, for its sizes."""
    with torch.device("meta"):
        empty = network(config)
    return empty.to("meta")


def count_macs(model: SRModel, scale: int, height: int = 720, width: int = 1280) -> int:
    """Multiply-accumulates of all that the paper computes for one output picture.

    Of the recursions, those up to the network's limit count. Measured by running
    `predictions` on the meta device, on a small picture: every layer does the same at
    every pixel, so the count is proportional to the area of `height` times `width` HR
    pixels.
    """
    side = 12
    twin = outline(type(model), model.config)
    twin.recursion_limit = model.recursion_limit
    counter = MacCounter()
    lr = torch.zeros(1, model.channels, side, side, device="meta")
    with torch.no_grad(), counter:
        twin.predictions(lr, scale)
    return round(counter.macs * height * width / (side * scale) ** 2)


def count_parameters(model: nn.Module) -> int:
    """Learned values of the network."""
    return sum(parameter.numel() for parameter in model.parameters())
