"""Training on several devices: one process each, which step together.

Every process holds the whole network and the same random numbers, and takes its share
of each step's crops. After the backward pass the gradients are summed, so that all of
them take the step of the whole batch (Goyal et al., arXiv 1706.02677, section 3).

One sum over one flat buffer stands in for PyTorch's DistributedDataParallel: networks
of several scales leave the heads of the other scales without gradients, a step may
have several backward passes, and these networks are far too small for an overlap of
sum and backward pass to pay.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from srcli.errors import DeviceError, UsageError
from srcli.training.recipe import Recipe

T = TypeVar("T")

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PeerLostError(DeviceError):
    """The process of another device has ended; what it said is the reason."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes that take each step together; one alone unless `join_world` says.

    Every process must make the same calls in the same order. All of them raise
    PeerLostError where another process has ended.

    Attributes:
        rank: Number of this process, from 0; 0 is the main one, which alone writes.
        size: Number of processes.
        local_rank: Number of this process on its machine.
        local_size: Number of processes on its machine.
        device: What this process computes on.
        control: The group that agrees through the processors' memory, so that no GPU
            has to stand still for it.
        launcher: Process id of the one that started this; 0: nobody to watch.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: distributed.ProcessGroup | None = None
    launcher: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and prints."""
        return self.rank == 0

    def check_divisible(self, model: nn.Module, recipe: Recipe) -> None:
        """See to it that a step means the same on several devices as on one.

        Raises:
            UsageError: If a device would be left without a crop, or if the network
                normalises by the statistics of a batch, of which it saw a share only.
        """
        if self.size == 1:
            return
        if any(isinstance(part, _BATCH_NORMS) for part in model.modules()):
            raise UsageError(
                f"{recipe.model} normalises over the batch, of which each of several "
                "devices would see only a share: train it on one"
            )
        together = recipe.scales if recipe.scale_mode == "all" else recipe.scales[:1]
        crops = max(recipe.divide_batch(together).values())
        if crops < self.size:
            raise UsageError(
                f"{self.size} devices cannot share {crops} crops of a scale: fewer "
                f"devices, or a larger batch (--set batch={self.size * len(together)})"
            )

    @torch.no_grad()
    def copy_weights(self, model: nn.Module) -> None:
        """Give every process the main one's weights and buffers."""
        if self.size == 1:
            return
        self.barrier()
        for value in model.state_dict().values():
            sent = value.contiguous()
            with self.peers():
                distributed.broadcast(sent, src=0)
            value.copy_(sent)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in place.

        A weight that has none on any process keeps none; where only some processes
        have one, it gets their sum on all. Which those are is agreed on apart from the
        sum: reading it out of a GPU's buffer would make the processor wait.

        Args:
            parameters: The same weights in the same order on every process.
        """
        weights = list(parameters)
        if self.size == 1 or not weights:
            return
        here = torch.tensor([w.grad is not None for w in weights], dtype=torch.int32)
        self._agree(here)
        summed = [w for w, found in zip(weights, here.tolist(), strict=True) if found]
        if not summed:
            return
        flat = torch.cat([_flatten(weight) for weight in summed])
        with self.peers():
            distributed.all_reduce(flat)
        parts = torch.split(flat, [weight.numel() for weight in summed])
        for weight, part in zip(summed, parts, strict=True):
            if weight.grad is None:
                weight.grad = torch.empty_like(weight)
            weight.grad.copy_(part.view(weight.shape))

    def sum_scalar(self, value: Tensor) -> Tensor:
        """The sum over all processes of a tensor on `device`; nothing waits for it."""
        total = value.detach().clone()
        if self.size > 1:
            with self.peers():
                distributed.all_reduce(total)
        return total

    def any_signal(self, number: int | None) -> int | None:
        """The signal that any process has received, so that all stop at one step.

        SIGTERM goes before SIGINT. Where the launcher is gone, nobody can pass signals
        on any more, and the run ends as if by SIGTERM.

        Args:
            number: What this process has received. Do not write the result over it: a
                signal that comes meanwhile would be lost.
        """
        if self.launcher and os.getppid() != self.launcher:
            number = signal.SIGTERM
        if self.size == 1:
            return number
        highest = torch.tensor([number or 0], dtype=torch.int32)
        self._agree(highest)
        return int(highest) or None

    def share(self, value: T) -> T:
        """The main process's value, on all; that of the others does not count.

        Args:
            value: Of plain types.
        """
        if self.size == 1:
            return value
        box = [value]
        with self.peers():
            distributed.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their numbers, on all.

        Args:
            value: Small, of plain types.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self.peers():
            distributed.all_gather_object(values, value, group=self.control)
        return values

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            self._agree(torch.zeros(1, dtype=torch.int32))

    def _agree(self, values: Tensor) -> None:
        """Replace each of the values, int32 on the CPU, by the largest of any process.

        Gloo tells at once when a process has ended, which NCCL does not.
        """
        with self.peers():
            distributed.all_reduce(values, distributed.ReduceOp.MAX, group=self.control)

    @contextmanager
    def peers(self) -> Iterator[None]:
        """What a call fails with when another process has ended, as one sentence.

        Raises:
            PeerLostError: If another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            known = isinstance(error, distributed.DistError) or "gloo" in str(error)
            if not known:  # what a GPU failed at before may come to light here too
                raise
            raise PeerLostError(
                "the process of another device has ended: the last checkpoint stays"
            ) from error


ALONE = World()


def _flatten(weight: nn.Parameter) -> Tensor:
    """The gradient as one row of float32; zeros where there is none."""
    values = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return values.reshape(-1).float()
