"""1x1 convolutions of joined features, which are never joined.

A dense layer reads all earlier features. Concatenated, they are copied for every such
layer; together these copies would be most of a network's memory. The sum of what each
feature gives is the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class JointConv(nn.Conv2d):
    """`nn.Conv2d(inputs, outputs, 1)` of features that are given one by one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """(N, outputs, h, w) from features of (N, c, h, w), all of one width c."""
        first, *others = (feature.permute(0, 2, 3, 1) for feature in features)
        *shape, width = first.shape
        block, *blocks = self.blocks(width)
        total = F.linear(first.reshape(-1, width), block, self.bias)
        for feature, block in zip(others, blocks, strict=True):
            total.addmm_(feature.reshape(-1, width), block.mT.to(total.dtype))
        return total.view(*shape, -1).permute(0, 3, 1, 2)

    def blocks(self, width: int) -> tuple[Tensor, ...]:
        """The (outputs, width) matrix that each feature is multiplied by."""
        return torch.split(self.weight.flatten(1), width, dim=1)


class JointConvOfSums(JointConv):
    """The same of the running sums of the features: f_0, f_0 + f_1, ...

    The sums are not formed either: a feature is part of its own and of all later ones,
    so it is multiplied by the sum of their matrices.
    """

    def blocks(self, width: int) -> tuple[Tensor, ...]:
        """The (outputs, width) matrix that each feature is multiplied by."""
        blocks = torch.stack(super().blocks(width))
        return blocks.flip(0).cumsum(0).flip(0).unbind()
