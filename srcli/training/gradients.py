"""Loss and gradients of a step; on CUDA recorded once and replayed as a graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srcli.inference.device import keep_freed_memory
from srcli.models import winograd_gradient
from srcli.models.base import SRModel
from srcli.training.losses import Norm, supervised_loss
from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)

_WARM_UP = 3  # eager steps before a recording, so that every library has settled


# Recursion limit; scale, shape and weight of each part.
_Key = tuple[int | None, tuple[tuple[int, tuple[int, ...], float], ...]]


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops of one scale in a step.

    Attributes:
        scale: Enlargement.
        lr: (N, C, k, k) in [0, 1].
        hr: (N, C, s*k, s*k) in [0, 1].
        weight: Of their mean loss in the loss of the step; all weights add up to 1.
    """

    scale: int
    lr: Tensor
    hr: Tensor
    weight: float


class Gradients:
    """Computes the loss of a step and leaves its gradients in the network.

    Small kernels of small networks wait for the processor that launches them; a CUDA
    graph launches a whole forward and backward pass at once. There is one for each
    combination of scales, crop counts and recursion limit.

    Args:
        model: The network, on its device.
        recipe: Its loss and supervision.
        precision: dtype of the forward pass under autocast; float32 turns it off.
    """

    def __init__(
        self, model: SRModel, recipe: Recipe, precision: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.precision = precision
        device = next(model.parameters()).device
        self.records = device.type == "cuda"
        if device.type == "cpu":
            keep_freed_memory()
        self._recordings: dict[_Key, _Recording] = {}
        # The graphs' memory, which they share as long as they share their stream.
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def compute(self, crops: Sequence[Crops], alpha: float) -> Tensor:
        """The loss, a detached scalar on the device; gradients replace earlier ones.

        Args:
            crops: Of every scale of the step.
            alpha: Weight of the intermediate predictions, for DRCN's loss.
        """
        if self.records and crops:
            return self._replay(crops, alpha)
        return self._differentiate(crops, alpha)

    def _differentiate(self, crops: Sequence[Crops], alpha: float | Tensor) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        total: Tensor | None = None
        with winograd_gradient.used_by(self.model):
            for each in crops:
                loss = self._loss(each, alpha) * each.weight
                loss.backward()  # type: ignore[no-untyped-call]
                total = loss.detach() if total is None else total + loss.detach()
        if total is None:  # a device without a crop in this step
            return torch.zeros((), device=next(self.model.parameters()).device)
        return total

    def _loss(self, crops: Crops, alpha: float | Tensor) -> Tensor:
        autocast = torch.autocast(
            crops.lr.device.type,
            dtype=self.precision,
            enabled=self.precision != torch.float32,
        )
        with autocast:
            if self.recipe.supervision == "final":
                predictions: tuple[Tensor, ...] = (self.model(crops.lr, crops.scale),)
            else:
                predictions = self.model.predictions(crops.lr, crops.scale)
        return supervised_loss(
            predictions,
            crops.hr,
            Norm(self.recipe.loss, self.recipe.reduction),
            self.recipe.supervision,
            alpha,
        )

    def _replay(self, crops: Sequence[Crops], alpha: float) -> Tensor:
        parts = tuple((each.scale, tuple(each.lr.shape), each.weight) for each in crops)
        key = (self.model.recursion_limit, parts)
        if key not in self._recordings and not self._record(key, crops):
            torch.cuda.empty_cache()
            return self._differentiate(crops, alpha)
        return self._recordings[key].replay(crops, alpha)

    def _record(self, key: _Key, crops: Sequence[Crops]) -> bool:
        """Whether there is a recording of such crops now; without one steps run singly.

        Recordings of another depth go: it changes once in a long while.
        """
        if any(known[0] != key[0] for known in self._recordings):
            self._forget()
        device = crops[0].lr.device
        # What batch normalisation counts must not see the warm-up.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        # Streams and graphs are the current device's. A recording that fails leaves its
        # own stream behind as the current one; the outer context takes that back.
        with (
            torch.cuda.device(device),
            torch.cuda.stream(torch.cuda.current_stream(device)),
        ):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            try:
                self._recordings[key] = _Recording(
                    self.model,
                    self._differentiate,
                    crops,
                    self._pool,
                    self._stream,
                )
            except RuntimeError as error:
                reason = str(error.__context__ or error).partition("\n")[0]
                log.warning("no CUDA graph here (%s): steps run one by one", reason)
            finally:
                for buffer, value in buffers:
                    buffer.copy_(value)
        if key in self._recordings:
            return True
        self.records = False
        self._forget()
        return False

    def _forget(self) -> None:
        """Drop all recordings, and their memory's handle, which ends with the last."""
        self._recordings.clear()
        self._pool = None


class _Recording:
    """A forward and backward pass as a CUDA graph, with inputs of its own.

    Source: the notes on CUDA graphs in PyTorch's documentation ("CUDA semantics").
    """

    def __init__(
        self,
        model: SRModel,
        differentiate: Callable[[Sequence[Crops], Tensor], Tensor],
        crops: Sequence[Crops],
        pool: Any,  # noqa: ANN401 - torch names no public type
        stream: torch.cuda.Stream,
    ) -> None:
        self._crops = [
            Crops(c.scale, c.lr.clone(), c.hr.clone(), c.weight) for c in crops
        ]
        self._alpha = torch.zeros((), device=crops[0].lr.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                differentiate(self._crops, self._alpha)
        torch.cuda.current_stream().wait_stream(stream)
        model.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        # Of this thread alone: NCCL's own looks after its work meanwhile.
        # On the warm-up's stream, whose workspaces are then no part of the pool.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._loss = differentiate(self._crops, self._alpha)
        self._gradients = [
            (parameter, parameter.grad) for parameter in model.parameters()
        ]

    def replay(self, crops: Sequence[Crops], alpha: float) -> Tensor:
        """Run it on other crops of the same shapes."""
        for own, new in zip(self._crops, crops, strict=True):
            own.lr.copy_(new.lr)
            own.hr.copy_(new.hr)
        self._alpha.fill_(alpha)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        # The recordings share their memory: the next one may write over this loss.
        return self._loss.clone()
