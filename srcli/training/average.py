"""The averaged weights, which are what a run delivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
