"""What a process does that was started for one of several devices: join the others."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from srcli.errors import DeviceError, ExitCode, OutputError, SrcliError, UsageError
from srcli.training.distributed import PeerLostError, World
from srcli.training.loop import TrainingStoppedError
from srcli.training.meeting import meet
from srcli.writing import write_whole

log = logging.getLogger("srcli")

# In a worker's environment: the process id of what started it.
LAUNCHER = "SRCLI_LAUNCHER"
# What every process of a group finds in its environment, also under torchrun.
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What torchrun alone says.
_JOB = "TORCHELASTIC_RUN_ID"
# How long the others wait while the main process validates or writes.
_PATIENCE = timedelta(hours=12)
_BACKENDS: Mapping[str, str] = MappingProxyType({"cuda": "nccl", "cpu": "gloo"})


def is_worker() -> bool:
    """Whether this process is one of a group that `launch` or torchrun started."""
    return all(name in os.environ for name in _ENVIRONMENT)


def is_restartable() -> bool:
    """Whether torchrun started this process, which may start it again when it fails."""
    return is_worker() and _JOB in os.environ and LAUNCHER not in os.environ


def is_main_process() -> bool:
    """Whether this process is the one that prints; outside a group it always is."""
    return not is_worker() or os.environ["RANK"] == "0"


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """The group that this process was started in, left again when the block ends.

    `launch` and torchrun say by environment variables what the group is; without them
    the process is alone. The block ends at the same time in all processes, unless one
    of them fails.

    Args:
        device: Of the kind to train on; a process on a GPU takes the one of its number.

    Raises:
        DeviceError: If there are more processes than GPUs.
        UsageError: If there are several processes on a device that is the only one.
        PeerLostError: If another process has ended.
    """
    if not is_worker():
        yield World(device=device)
        return
    rank, size, local_rank = (int(os.environ[name]) for name in _ENVIRONMENT[:3])
    with ExitStack() as stack:
        stack.callback(_leave)
        stack.push(_report)
        stack.enter_context(_quieted(rank))
        stack.enter_context(_threads_shared())
        place = _choose_place(device, size, local_rank)
        # Without the one that started it, nobody would end this process.
        started_by = os.getppid() if is_restartable() else 0
        launcher = int(os.environ.get(LAUNCHER, started_by))
        world = World(rank, size, local_rank, _count_here(), place, launcher=launcher)
        if size > 1:
            world = _connect(world)
        try:
            yield world
        except TrainingStoppedError:
            # The launcher ends whatever still runs once a first process has failed.
            world.barrier()
            raise
        world.barrier()


def _choose_place(device: torch.device, size: int, local_rank: int) -> torch.device:
    if device.type == "cuda":
        check_cuda(local_rank + 1)
        return torch.device("cuda", local_rank)
    if size > 1 and device.type != "cpu":
        raise UsageError(f"there is one {device.type} device only: train on that alone")
    return device


def check_cuda(wanted: int) -> None:
    """See to it that there are so many CUDA devices.

    Raises:
        DeviceError: If there are fewer.
    """
    count = torch.cuda.device_count()
    if wanted > count:
        raise DeviceError(
            f"there are {count} CUDA devices, not {wanted}: --devices takes no more, "
            "nor torchrun's --nproc-per-node"
        )


def _connect(world: World) -> World:
    """The world with its process group and its control group."""
    if world.launcher and os.getppid() != world.launcher:
        raise PeerLostError("the process that started this one has ended")
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    with world.peers():
        store, rank, size = next(rendezvous("env://"))
        if is_restartable():
            store = meet(store, rank, size)
        distributed.init_process_group(
            _BACKENDS[world.device.type], store=store, rank=rank, world_size=size
        )
        control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return dataclasses.replace(world, control=control)


def _leave() -> None:
    if distributed.is_initialized():
        # With the others gone there may be nothing left to take leave of.
        with suppress(RuntimeError):
            distributed.destroy_process_group()


@contextmanager
def _quieted(rank: int) -> Iterator[None]:
    """Only the main process tells how the run goes; the others speak when they fail."""
    before = log.level
    if rank > 0:
        log.setLevel(max(before, logging.ERROR))
    try:
        yield
    finally:
        log.setLevel(before)


def _count_here() -> int:
    """How many processes of the group this machine runs."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))


@contextmanager
def _threads_shared() -> Iterator[None]:
    """The processor's threads, divided by the processes here unless the user has."""
    before = torch.get_num_threads()
    here = _count_here()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, before // here))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _report(
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _trace: TracebackType | None,
) -> None:
    """Leave word of a failure for the process that started this one.

    That is PyTorch's own file for it, with more fields. `launch` prints the message
    once for all processes, so this one need not.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if error is None or not path:
        return
    code, message = ExitCode.DEFECT, f"{type(error).__name__}: {error}"
    if isinstance(error, SrcliError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, KeyboardInterrupt):
        code, message = ExitCode.INTERRUPTED, "interrupted"
    lost = isinstance(error, PeerLostError)
    document = {
        "message": message,
        # torchrun takes the earliest for the cause: never one that only follows.
        "timestamp": int(time.time()) + lost,
        "exit_code": int(code),
        "lost": lost,
        "traceback": "".join(traceback.format_exception(error)),
    }
    with suppress(OutputError):  # then this process says it itself
        with write_whole(Path(path)) as part:
            part.write_text(json.dumps(document), "utf-8")
        log.disabled = LAUNCHER in os.environ
