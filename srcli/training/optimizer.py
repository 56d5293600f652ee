"""The recipes' optimisers and gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from srcli.training.recipe import Recipe

_COLOURS = 3  # of a picture, at most


class Muon:
    """Muon for the kernels between feature maps, Adam for all other weights.

    Muon makes all singular values of a kernel's step alike, so that a direction in
    which gradients are small is learned as fast as the others. Its step is scaled to
    the size of Adam's, so that one learning rate serves both.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
    2024 (kellerjordan.github.io/posts/muon), for kernels as matrices of a row per
    output; Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, section
    2.2, for the size.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        """Divide the network's weights.

        Args:
            model: Its four-dimensional weights are channels_last.
            recipe: Its rate, momentum and beta2 (Adam's), weight_decay.
        """
        weights = list(model.parameters())
        self._kernels = [
            w for w in weights if w.dim() == 4 and min(w.shape[:2]) > _COLOURS
        ]
        # They share the kernels' memory, and so change them.
        self._matrices = [nn.Parameter(_flatten(w.detach())) for w in self._kernels]
        known = set(map(id, self._kernels))
        others = [w for w in weights if id(w) not in known]
        decay = recipe.weight_decay
        self._muon = torch.optim.Muon(
            self._matrices,
            lr=recipe.learning_rate,
            weight_decay=decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = _make_adam(others, recipe)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Settings, as every optimiser has them."""
        return [*self._muon.param_groups, *self._adam.param_groups]

    def step(self) -> None:
        """Change all weights that have a gradient."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _flatten(kernel.grad)
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What both have gathered."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


Optimizer = torch.optim.Optimizer | Muon


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser over all weights of the network.

    Args:
        model: On its device; its four-dimensional weights are channels_last.
        recipe: Which, and its settings.
    """
    if recipe.optimizer == "muon":
        return Muon(model, recipe)
    if recipe.optimizer == "adam":
        return _make_adam(model.parameters(), recipe)
    # Not fused: torch 2.13's fails on a weight whose first gradient comes later, as
    # those of a scale that the first step did not draw.
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )


def _make_adam(weights: Iterable[Tensor], recipe: Recipe) -> torch.optim.Adam:
    return torch.optim.Adam(
        weights,
        lr=recipe.learning_rate,
        betas=(recipe.momentum, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _flatten(kernel: Tensor) -> Tensor:
    """A channels_last kernel as a matrix with a row per output, without a copy."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
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
