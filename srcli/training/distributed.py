"""Training on several devices: one process each, which step together.

Every process holds the whole network and the same random numbers, and takes its share
of each step's crops. After the backward pass the gradients are summed, so that all of
them take the step of the whole batch (Goyal et al., arXiv 1706.02677, section 3).

PyTorch's DistributedDataParallel would want gradients for the heads of all scales in
every step; its overlap of sum and backward pass would not pay for such small networks.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import errors

from srcli.errors import (
    DeviceError,
    ExitCode,
    SrcliError,
    TrainingStoppedError,
    UsageError,
)
from srcli.inference.device import choose_device

log = logging.getLogger("srcli")
T = TypeVar("T")

# In the environment of a process that `launch` started: the process id of `launch`.
_LAUNCHER = "SRCLI_LAUNCHER"
_WAIT = timedelta(hours=12)  # while the main process validates or writes
_GRACE = 30.0  # seconds that the others have to end in when one has failed


class PeerLostError(DeviceError):
    """The process of another device has ended; what it said is the reason."""


@contextmanager
def catch_stops() -> Iterator[list[int]]:
    """SIGINT and SIGTERM, gathered in the list instead of ending the process."""
    received: list[int] = []
    before: dict[int, Any] = {}
    # Only the main thread can catch signals; elsewhere they are its affair.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda got, _: received.append(got))
    try:
        yield received
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


@contextmanager
def _naming_lost_peers() -> Iterator[None]:
    """Says in a sentence that another process has ended; also a decorator."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise  # what a GPU failed at before may come to light here too
        raise PeerLostError(
            "the process of another device has ended: the last checkpoint stays"
        ) from error


@dataclass(frozen=True, slots=True)
class World:
    """The processes that take each step together; one alone unless `join_world` says.

    All of them must make the same calls in the same order.
    """

    rank: int = 0  # 0 is the main process, which alone writes
    size: int = 1  # processes
    local_rank: int = 0  # number of this process on its machine
    local_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    launcher: int = 0  # process id of the one that started this; 0: nobody to watch
    control: distributed.ProcessGroup | None = None  # gloo's, which spares the GPU

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and prints."""
        return self.rank == 0

    def copy_weights(self, model: nn.Module) -> None:
        """Give every process the main one's weights and buffers."""
        if self.size > 1:
            weights = {name: each.cpu() for name, each in model.state_dict().items()}
            model.load_state_dict(self.share(weights))

    @_naming_lost_peers()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes, in place.

        A weight that has none on any process keeps none. Which ones those are is agreed
        on first: to read it out of a GPU's buffer would make the processor wait.
        """
        weights = list(parameters)
        if self.size == 1:
            return
        found = self.agree([weight.grad is not None for weight in weights])
        for weight, anywhere in zip(weights, found, strict=True):
            if anywhere and weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        summed = [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(gradients, summed)

    @_naming_lost_peers()
    def sum_scalar(self, value: Tensor) -> Tensor:
        """The sum over all processes of a tensor on `device`; nothing waits for it."""
        total = value.detach().clone()
        if self.size > 1:
            distributed.all_reduce(total)
        return total

    def any_signal(self, number: int | None) -> int | None:
        """The highest signal that any process has received, so that all stop together.

        It is SIGTERM where the launcher is gone, which passes signals on. Do not write
        the result over `number`: a signal that comes meanwhile would be lost.
        """
        if self.launcher and os.getppid() != self.launcher:
            number = signal.SIGTERM
        return self.agree([number or 0])[0] or None

    def share(self, value: T) -> T:
        """The main process's value, on all; that of the others does not count."""
        return self.gather(value)[0]

    @_naming_lost_peers()
    def gather(self, value: T) -> list[T]:
        """The small values of all processes, in the order of their numbers, on all."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value, self.control)
        return values

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.agree([0])

    @_naming_lost_peers()
    def agree(self, values: Sequence[int]) -> list[int]:
        """The largest of each, by way of gloo, which tells of lost peers at once."""
        agreed = torch.tensor(values, dtype=torch.int64)
        if self.size > 1:
            distributed.all_reduce(agreed, distributed.ReduceOp.MAX, self.control)
        return agreed.tolist()


ALONE = World()


def is_worker() -> bool:
    """Whether this process is one of a group that `launch` or torchrun started."""
    return distributed.is_torchelastic_launched()


def is_restartable() -> bool:
    """Whether torchrun started this process, which may start it again when it fails."""
    return is_worker() and _LAUNCHER not in os.environ


def is_main_process() -> bool:
    """Whether this process is the one that prints; outside a group it always is."""
    return not is_worker() or os.environ["RANK"] == "0"


@contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """The group that this process was started in, left again when the block ends.

    Without one, the process is alone. The block ends at the same time in all of them.

    Raises:
        DeviceError, UsageError: If there are too few devices of that kind.
        PeerLostError: If another process has ended.
    """
    if not is_worker():
        yield World(device=device)
        return
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, size, local_rank, local_size = (int(os.environ[name]) for name in names)
    if rank > 0:
        log.setLevel(max(log.level, logging.ERROR))
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    launcher = int(os.environ.get(_LAUNCHER, os.getppid()))
    control = left = None
    try:
        _check_devices(device, local_size if device.type == "cuda" else size)
        if device.type == "cuda":
            device = torch.device("cuda", local_rank)
        if size > 1:
            control = _connect(device, launcher)
        # Where this process fails, no more is left: NCCL would wait for the others.
        left = control if device.type == "cuda" else None
        world = World(rank, size, local_rank, local_size, device, launcher, control)
        try:
            yield world
        except TrainingStoppedError:
            world.barrier()  # once one has failed, the launcher ends all others
            left = None
            raise
        world.barrier()
        left = None
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its own exit code counts
        if not isinstance(error, PeerLostError):  # which only follows another's
            errors.get_error_handler().record_exception(error)
        log.disabled = _LAUNCHER in os.environ  # `launch` tells of it, once
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group(left)  # None: all groups


@_naming_lost_peers()
def _connect(device: torch.device, launcher: int) -> distributed.ProcessGroup:
    """Make the group of all processes, and one that agrees and waits, by gloo."""
    # A later start would meet the addresses of an earlier one.
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UsageError("torchrun restarts need TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
    if os.getppid() != launcher:
        raise PeerLostError("the process that started this one has ended")
    gpu = device if device.type == "cuda" else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    distributed.init_process_group("nccl" if gpu else "gloo", device_id=gpu)
    return distributed.new_group(backend="gloo", timeout=_WAIT)


def _check_devices(device: torch.device, wanted: int) -> None:
    if device.type not in ("cpu", "cuda") and wanted > 1:
        raise UsageError(f"there is one {device.type} device only: train on that alone")
    count = torch.cuda.device_count()
    if device.type == "cuda" and wanted > count:
        raise DeviceError(
            f"there are {count} CUDA devices, not {wanted}: --devices takes no more, "
            "nor torchrun's --nproc-per-node"
        )


def launch(devices: int, device: str, command: Sequence[str]) -> None:
    """Run a command that will `join_world` in a process for each of several devices.

    The first prints, the others are quiet. Torchrun's agent is left out: it kills what
    takes more than half a minute for its last step and checkpoint.

    Raises:
        SrcliError: For too few devices, or what a process failed with, and its code.
    """
    if ":" in device:
        raise UsageError(f"{device} is one device: leave its number out with --devices")
    _check_devices(choose_device(device), devices)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_RUN_ID": "srcli",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        _LAUNCHER: str(os.getpid()),
    }
    # Gloo otherwise looks up the machine's name, which need not lead anywhere.
    if loopback := {"linux": "lo", "darwin": "lo0"}.get(sys.platform):
        group["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", loopback)
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="srcli-") as folder, catch_stops() as told:
        reports = [Path(folder, f"{rank}.json") for rank in range(devices)]
        try:
            for rank, report in enumerate(reports):
                own = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}
                own["TORCHELASTIC_ERROR_FILE"] = str(report)
                quiet = subprocess.DEVNULL if rank else None
                processes.append(subprocess.Popen(
                    command, env={**os.environ, **group, **own}, stdout=quiet,
                    stderr=quiet, start_new_session=True,  # Ctrl-C is passed on
                ))  # fmt: skip
            _wait_for(processes, told)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        codes = [process.returncode for process in processes]
        if any(codes):
            raise _explain(codes, reports, told)


def _wait_for(processes: list[subprocess.Popen[bytes]], received: list[int]) -> None:
    """Wait for the end of all processes; a failure or a signal tells the others."""
    while None in (codes := [process.poll() for process in processes]):
        if received or any(codes):
            break
        time.sleep(0.05)
    for process in processes:
        process.terminate()  # SIGINT would trouble a Python that just starts
    end = time.monotonic() + (_WAIT.seconds if received else _GRACE)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))


def _explain(codes: list[int], reports: list[Path], received: list[int]) -> SrcliError:
    """The error for what went wrong first; `received` are signals to this process."""
    code, trace = int(ExitCode.TERMINATED), ""
    message = "terminated outside of the training steps: there is no new checkpoint"
    told = next((rank for rank, report in enumerate(reports) if report.exists()), None)
    if told is not None:
        report = json.loads(reports[told].read_text())["message"]
        code, message = max(codes[told], 1), report["message"]
        trace = report["extraInfo"]["py_callstack"]
        if code != ExitCode.DEFECT:
            message = message.partition(": ")[2]  # without the error's type
    elif not received:
        # What misses another process ends too, or is told to.
        follow = (ExitCode.DEVICE, -signal.SIGTERM)
        rank = min(range(len(codes)), key=lambda n: (codes[n] == 0, codes[n] in follow))
        code, how = max(codes[rank], 1), f"exit code {codes[rank]}"
        if codes[rank] < 0:
            how = signal.Signals(-codes[rank]).name
        message = f"the process of device {rank} ended by {how}"
        if how == "SIGKILL":
            code = int(ExitCode.DEVICE)
            message += ": perhaps the machine's memory did not suffice"
    if signal.SIGINT in received[:1] and code == ExitCode.TERMINATED:
        code = int(ExitCode.INTERRUPTED)  # they were told to end by SIGTERM
        message = "interrupted" + message.removeprefix("terminated")
    error = SrcliError(message)
    error.exit_code = code  # type: ignore[misc, assignment]
    error.add_note(trace)  # for -v
    return error
