"""Optimisers, clipping of gradients, averages of weights, the plateau of the rate."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)

_COLOURS = 3  # of a picture, at most


class Muon:
    """Muon for the kernels between feature maps, Adam for all other weights.

    Muon makes all singular values of a kernel's step alike, so that a direction in
    which gradients are small is learned as fast as the others. Its step is scaled to
    the size of Adam's, so that one learning rate serves both. A kernel, which is
    channels_last, is a matrix of a row per output.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
    2024 (kellerjordan.github.io/posts/muon); Liu et al., "Muon is Scalable for LLM
    Training", arXiv 2502.16982, section 2.2, for the size of a step.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        def is_kernel(weight: Tensor) -> bool:
            return weight.dim() == 4 and min(weight.shape[:2]) > _COLOURS

        weights = list(model.parameters())
        self._kernels = [weight for weight in weights if is_kernel(weight)]
        # They share the kernels' memory, and so change them.
        self._matrices = [nn.Parameter(_flatten(w.detach())) for w in self._kernels]
        self._muon = torch.optim.Muon(
            self._matrices,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adam = _make_adam([w for w in weights if not is_kernel(w)], recipe)

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
    """The recipe's optimiser over all weights of a network that is on its device."""
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


class Average:
    """Exponential moving average of a network's weights.

    The decay grows with the number of updates, so that the first weights, which are
    random, are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        # The network's own tensors, which no later step or load replaces.
        self._live = model.state_dict()
        self.values = {name: value.clone() for name, value in self._live.items()}
        floating = [n for n, v in self._live.items() if v.is_floating_point()]
        self._counted = [n for n in self._live if n not in set(floating)]
        self._mine = [self.values[name] for name in floating]
        self._theirs = [self._live[name] for name in floating]

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the network's present weights."""
        self.updates = 0
        for name, value in self._live.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's present weights."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        torch._foreach_lerp_(self._mine, self._theirs, 1.0 - decay)
        for name in self._counted:
            self.values[name].copy_(self._live[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The network with the averaged weights, for as long as the context lasts."""
        own = {name: value.clone() for name, value in model.state_dict().items()}
        training = model.training
        model.load_state_dict(self.values)
        model.eval()
        try:
            yield
        finally:
            model.load_state_dict(own)
            model.train(training)


class Plateau:
    """Watches the validations at the recipe's own steps.

    Others are not told to it, so that a run that was stopped in between goes on as if
    it had not been.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.factor = 1.0  # what it has taken off the learning rate
        self.step = 0  # when it last did, or when the best came
        self.best = -math.inf  # mean PSNR in dB

    def watch(self, step: int, psnr: float) -> None:
        """Cut the rate if validation has not improved for long enough."""
        recipe = self.recipe
        if psnr > self.best:
            self.best, self.step = psnr, step
        elif recipe.schedule == "plateau" and step - self.step >= recipe.decay_every:
            self.factor *= recipe.decay_factor
            self.step = step
            log.info("no better: the learning rate is now %.3g times", self.factor)

    @property
    def is_over(self) -> bool:
        """Whether the rate has fallen so far that the run ends."""
        recipe = self.recipe
        rate = recipe.learning_rate * recipe.rate_for_batch * self.factor
        return recipe.schedule == "plateau" and rate < recipe.min_rate
