"""The papers' losses over a network's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from srcli.training.recipe import Loss, Reduction, Supervision


@dataclass(frozen=True, slots=True)
class Norm:
    """How one estimate is compared with the reference.

    Attributes:
        kind: "l1": absolute differences; "l2": half the squared ones. The half is the
            papers' own (DRCN Eq. 11, DRRN Eq. 10, DSRN Eq. 6).
        reduction: "mean" over all values, or "sum" over those of a crop and the mean
            over the crops, as the squared norm of DRRN's Eq. 10 is written.
    """

    kind: Loss = "l1"
    reduction: Reduction = "mean"

    def __call__(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The scalar loss in float32 of an estimate (N, C, H, W)."""
        difference = sr.float() - hr.float()
        l1 = self.kind == "l1"
        values = difference.abs() if l1 else 0.5 * difference.square()
        return values.mean() if self.reduction == "mean" else values.sum() / len(sr)


def supervised_loss(
    predictions: Sequence[Tensor],
    hr: Tensor,
    norm: Norm,
    supervision: Supervision,
    alpha: float | Tensor = 0.0,
) -> Tensor:
    """The loss that a recipe asks for.

    Args:
        predictions: What `SRModel.predictions` returned, the final estimate last.
        hr: Reference, (N, C, H, W).
        norm: Of every term.
        supervision: "final" takes the last prediction; "mean" averages the loss of all
            (RRRN Eq. 10); "recursive" is DRCN Eq. 13: alpha times the mean loss of the
            intermediate predictions plus (1 - alpha) times the final one's.
        alpha: The weight for "recursive".
    """
    final = norm(predictions[-1], hr)
    if supervision == "final":
        return final
    if supervision == "mean":
        return torch.stack([norm(sr, hr) for sr in predictions]).mean()
    # A tensor's value would have to be waited for.
    if len(predictions) == 1 or (isinstance(alpha, float) and alpha == 0.0):
        return final
    stages = torch.stack([norm(sr, hr) for sr in predictions[:-1]])
    return alpha * stages.mean() + (1.0 - alpha) * final
