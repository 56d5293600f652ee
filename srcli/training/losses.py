"""The papers' losses over a network's predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srcli.training.recipe import Loss, Supervision


def pixel_loss(sr: Tensor, hr: Tensor, kind: Loss) -> Tensor:
    """Mean absolute error ("l1"), or half the mean squared error ("l2"), in float32.

    The half is the papers' own (DRCN Eq. 11, DRRN Eq. 10, DSRN Eq. 6).

    Args:
        sr: Estimate, (N, C, H, W).
        hr: Reference, same shape.
        kind: Which norm.
    """
    difference = sr.float() - hr.float()
    if kind == "l1":
        return difference.abs().mean()
    return 0.5 * difference.square().mean()


def supervised_loss(
    predictions: Sequence[Tensor],
    hr: Tensor,
    kind: Loss,
    supervision: Supervision,
    alpha: float = 0.0,
) -> Tensor:
    """The loss that a recipe asks for.

    Args:
        predictions: What `SRModel.predictions` returned, the final estimate last.
        hr: Reference, (N, C, H, W).
        kind: Norm of every term.
        supervision: "final" takes the last prediction; "mean" averages the loss of all
            (RRRN Eq. 10); "recursive" is DRCN Eq. 13: alpha times the mean loss of the
            intermediate predictions plus (1 - alpha) times the final one's.
        alpha: The weight for "recursive".
    """
    if supervision == "final":
        return pixel_loss(predictions[-1], hr, kind)
    if supervision == "mean":
        return torch.stack([pixel_loss(sr, hr, kind) for sr in predictions]).mean()
    final = pixel_loss(predictions[-1], hr, kind)
    if alpha == 0.0 or len(predictions) == 1:
        return final
    stages = torch.stack([pixel_loss(sr, hr, kind) for sr in predictions[:-1]])
    return alpha * stages.mean() + (1.0 - alpha) * final
