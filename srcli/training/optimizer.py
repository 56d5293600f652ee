"""The recipes' optimisers and gradient clipping."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from srcli.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all weights of the network."""
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.momentum, recipe.beta2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    # Not fused: torch 2.13's fails on a weight whose first gradient comes later, as
    # those of a scale that the first step did not draw.
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what an optimiser of the same kind has gathered, not its settings."""
    own = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)


def clip_gradients(model: nn.Module, recipe: Recipe, rate: float) -> None:
    """Limit the gradients as the recipe asks; `rate` is the step's learning rate."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    if recipe.clip == "norm":
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_at)
    elif recipe.clip == "value":
        torch.nn.utils.clip_grad_value_(parameters, recipe.clip_at)
    elif recipe.clip == "adjustable":
        # DRRN section 4.2: the tighter, the larger the rate. Printed as a range of each
        # gradient; the authors' solver (Caffe's clip_gradients) limits the norm of all.
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_at / rate)
