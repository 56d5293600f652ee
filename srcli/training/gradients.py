"""The papers' losses and their gradients; on CUDA recorded once and replayed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from srcli.inference.device import keep_freed_memory
from srcli.models import winograd
from srcli.models.base import SRModel
from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)

_WARM_UP = 3  # eager steps before a recording, so that every library has settled


# Recursion limit; scale, shape and weight of each part.
_Key = tuple[int | None, tuple[tuple[int, tuple[int, ...], float], ...]]


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops of one scale in a step."""

    scale: int
    lr: Tensor  # (N, C, k, k) in [0, 1]
    hr: Tensor  # (N, C, s*k, s*k) in [0, 1]
    weight: float  # of their mean loss in the step's; all weights add up to 1


def supervised_loss(
    recipe: Recipe,
    predictions: Sequence[Tensor],
    hr: Tensor,
    alpha: float | Tensor = 0.0,
) -> Tensor:
    """The loss that a recipe asks for, a scalar in float32.

    A picture's loss is "l1", of absolute differences, or "l2", of half the squared ones
    (the half is the papers' own: DRCN Eq. 11, DRRN Eq. 10, DSRN Eq. 6); it is their
    mean, or their sum for each crop, as DRRN's Eq. 10 is written.

    Args:
        recipe: `supervision` "final" takes the last prediction; "mean" averages the
            loss of all (RRRN Eq. 10); "recursive" is DRCN Eq. 13: alpha times the mean
            loss of the intermediate ones plus (1 - alpha) times the final one's.
        predictions: What `SRModel.predictions` returned, the final estimate last.
        hr: Reference, (N, C, H, W).
        alpha: The weight for "recursive".
    """

    def compare(sr: Tensor) -> Tensor:
        error = sr.float() - hr.float()
        values = error.abs() if recipe.loss == "l1" else 0.5 * error.square()
        return values.mean() if recipe.reduction == "mean" else values.sum() / len(sr)

    if recipe.supervision == "mean":
        return torch.stack([compare(sr) for sr in predictions]).mean()
    final = compare(predictions[-1])
    if recipe.supervision == "final" or len(predictions) == 1:
        return final
    if isinstance(alpha, float) and alpha == 0.0:  # a tensor would have to be read
        return final
    stages = torch.stack([compare(sr) for sr in predictions[:-1]])
    return alpha * stages.mean() + (1.0 - alpha) * final


class Gradients:
    """The loss of a step, whose gradients it leaves in the network.

    Small kernels of small networks wait for the processor that launches them; a CUDA
    graph launches a whole forward and backward pass at once. There is one for each
    combination of scales, crop counts and recursion limit. Under autocast the forward
    pass is in `precision`; float32 turns it off.
    """

    def __init__(
        self, model: SRModel, recipe: Recipe, precision: torch.dtype = torch.float32
    ) -> None:
        self.model, self.recipe, self.precision = model, recipe, precision
        self.device = next(model.parameters()).device
        self.records = self.device.type == "cuda"
        if self.device.type == "cpu":
            keep_freed_memory()
        self._recordings: dict[_Key, _Recording] = {}
        # The graphs' memory, which they share as long as they share their stream.
        self._pool: Any = None
        self._stream: torch.cuda.Stream | None = None

    def compute(self, crops: Sequence[Crops], alpha: float) -> Tensor:
        """The loss, a detached scalar on the device; gradients replace earlier ones.

        `crops` are of every scale of the step; `alpha` is for DRCN's loss.
        """
        if self.records and crops:
            return self._replay(crops, alpha)
        return self._differentiate(crops, alpha)

    def _differentiate(self, crops: Sequence[Crops], alpha: float | Tensor) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        # A device without a crop in this step has no loss.
        total = torch.zeros((), device=self.device)
        low = self.precision != torch.float32
        cast = torch.autocast(self.device.type, dtype=self.precision, enabled=low)
        with winograd.used_by(self.model):
            for each in crops:
                with cast:
                    if self.recipe.supervision == "final":
                        found: tuple[Tensor, ...] = (self.model(each.lr, each.scale),)
                    else:
                        found = self.model.predictions(each.lr, each.scale)
                loss = supervised_loss(self.recipe, found, each.hr, alpha) * each.weight
                loss.backward()  # type: ignore[no-untyped-call]
                total = total + loss.detach()
        return total

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
        # What batch normalisation counts must not see the warm-up.
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        # Streams and graphs are the current device's. A recording that fails leaves its
        # own stream behind as the current one; the outer context takes that back.
        with (
            torch.cuda.device(self.device),
            torch.cuda.stream(torch.cuda.current_stream(self.device)),
        ):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._stream = self._stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
            try:
                self._recordings[key] = _Recording(
                    self.model, self._differentiate, crops, self._pool, self._stream
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
