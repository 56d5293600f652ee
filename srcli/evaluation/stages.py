"""The stages of a network: every prediction it makes on the way to the last one.

RRRN predicts after each of its sub-networks, DRCN after each recursion, and then from
all of them; the others make one prediction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srcli.models import MODELS
from srcli.models.base import SRModel
from srcli.models.counting import outline

_SIDE = 8  # LR pixels; any number would do


class Staged(SRModel):
    """A network whose output is all of its predictions, joined along the channels.

    It runs wherever the network itself would: in tiles, on any device. The network is
    not copied.
    """

    def __init__(self, network: SRModel) -> None:
        super().__init__()
        self.network = network
        self.config = network.config
        self.color = network.color
        self.arch = network.arch  # type: ignore[misc] # fixed for any other network

    def predictions(self, lr: Tensor, scale: int | None = None) -> tuple[Tensor, ...]:
        """The network's own."""
        return self.network.predictions(lr, scale)

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """All n predictions, (N, n*C, s*h, s*w), the final one last."""
        return torch.cat(self.predictions(lr, scale), dim=1)

    def receptive_radius(self, scale: int | None = None) -> int:
        """The network's own."""
        return self.network.receptive_radius(scale)

    def tile_overlap(self, scale: int | None = None) -> int:
        """The network's own."""
        return self.network.tile_overlap(scale)


def name_stages(network: SRModel, scale: int) -> tuple[str, ...]:
    """What the network's predictions are called; nothing if it makes only one.

    Counted on the meta device, which computes nothing; the network is not changed.
    """
    if network.stage is None:
        return ()
    twin = outline(type(network), network.config)
    twin.recursion_limit = network.recursion_limit
    lr = torch.zeros(1, network.channels, _SIDE, _SIDE, device="meta")
    with torch.no_grad():
        count = len(twin.predictions(lr, scale))
    if count == 1:
        return ()
    names = [f"{network.stage} {number}" for number in range(1, count + 1)]
    return (*names[:-1], network.combination or names[-1])


def weigh_stages(network: SRModel) -> tuple[float, ...]:
    """The weight of each of the network's stages, if any; the last one's is the sum."""
    if network.stage_weights is None:
        return ()
    weights = network.stage_weights.tolist()
    return (*weights, sum(weights))


def list_staged() -> list[str]:
    """The networks that have stages."""
    return [name for name, model in MODELS.items() if model.stage]
