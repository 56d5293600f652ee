"""Starting a process for each device, and answering for all of them.

The processes are started and watched by `torch.distributed.elastic`, as torchrun's are.
Its agent is left out: on one machine there is nothing to agree on and nothing to start
again, and a run that is told to stop needs the time that its checkpoint takes.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, MappingProxyType, TracebackType
from typing import Any, Self

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import (
    DefaultLogsSpecs,
    RunProcsResult,
    SignalException,
    Std,
    start_processes,
)
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from srcli.errors import (
    DeviceError,
    ExitCode,
    InputError,
    OutputError,
    PartialFailureError,
    SrcliError,
    UsageError,
    WeightsError,
)
from srcli.inference.device import choose_device
from srcli.training.loop import TrainingStoppedError, TrainingTerminatedError
from srcli.training.worker import LAUNCHER, check_cuda

_LOOPBACK = "127.0.0.1"
# Gloo otherwise looks up the machine's name, which need not lead anywhere.
_INTERFACES: Mapping[str, str] = MappingProxyType({"linux": "lo", "darwin": "lo0"})
_POLL = 0.1  # seconds
_SIGKILL = getattr(signal, "SIGKILL", 9)  # not on Windows, where nothing ends by it
_FOLLOWED = 3  # a failure that only another one's explains
# They would tell of every failure in their own way, at length.
_LOGGERS = ("multiprocessing.api", "multiprocessing.errors")
_ERRORS = (
    UsageError, InputError, OutputError, WeightsError, DeviceError,
    PartialFailureError, TrainingStoppedError, TrainingTerminatedError,
)  # fmt: skip


def launch(devices: int, device: str, arguments: Sequence[str]) -> None:
    """Run `srcli` with the same arguments on several devices of this machine.

    The first process prints results and progress; the others are quiet. A signal to
    stop is passed on, and everything waited for.

    Args:
        devices: Number of processes.
        device: As `choose_device`; CUDA or the CPU.
        arguments: All that stood behind `srcli` on the command line.

    Raises:
        UsageError: If `devices` or `device` make no group.
        DeviceError: If there are fewer devices.
        SrcliError: What made a process fail, with that process's exit code.
    """
    if devices < 1:
        raise UsageError(f"--devices takes a number of at least 1, not {devices}")
    kind = choose_device(device).type
    if ":" in device and devices > 1:
        raise UsageError(f"{device} is one device: leave its number out with --devices")
    if kind == "cuda":
        check_cuda(devices)
    elif kind != "cpu" and devices > 1:
        raise UsageError(f"there is one {kind} device only: leave --devices out")
    run_processes(devices, [sys.executable, "-m", "srcli", *arguments])


def run_processes(count: int, command: Sequence[str]) -> None:
    """Run a command in `count` processes that can `join_world`; wait for their end.

    Raises:
        SrcliError: What made a process fail, with that process's exit code.
    """
    store = TCPStore(_LOOPBACK, 0, is_master=True, wait_for_workers=False)
    environments = {n: _environment(n, count, store.port) for n in range(count)}
    with (
        tempfile.TemporaryDirectory(prefix="srcli-") as folder,
        _Relay() as relay,
        _silence(),
    ):
        try:
            result = _run(command, environments, Path(folder), relay)
        except SignalException as error:
            # While they were started; without this process none of them goes on.
            raise _stopped(error.sigval) from None
        if result.failures:
            raise _explain(result, relay.received)


def _run(
    command: Sequence[str],
    environments: dict[int, dict[str, str]],
    folder: Path,
    relay: _Relay,
) -> RunProcsResult:
    """What became of the processes; `folder` holds their errors and quiet output."""
    ranks = sorted(environments)
    context = start_processes(
        name="srcli",
        entrypoint=command[0],
        args=dict.fromkeys(ranks, tuple(command[1:])),
        envs=environments,
        logs_specs=DefaultLogsSpecs(str(folder), dict.fromkeys(ranks[1:], Std.ALL)),
    )
    result = None
    try:
        relay.pass_to(context.pids().values())
        while result is None:
            result = context.wait(period=_POLL)
    finally:
        context.close()
    return result


@contextmanager
def _silence() -> Iterator[None]:
    """Leave the messages to srcli."""
    loggers = [logging.getLogger(f"torch.distributed.elastic.{n}") for n in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            # PyTorch does not close the output of processes that end well.
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What makes a process one of the group whose store is at the port."""
    environment = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _LOOPBACK,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        LAUNCHER: str(os.getpid()),
    }
    if sys.platform in _INTERFACES and "GLOO_SOCKET_IFNAME" not in os.environ:
        environment["GLOO_SOCKET_IFNAME"] = _INTERFACES[sys.platform]
    return environment


class _Relay:
    """While entered, passes a signal to stop on to the processes it was told of.

    They have sessions of their own: Ctrl-C in a terminal reaches them only from here.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._pids: tuple[int, ...] = ()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP", "SIGQUIT"):
            number = getattr(signal, name, None)  # Windows has the first three
            if number is not None:
                self._before[number] = signal.getsignal(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_to(self, pids: Iterable[int]) -> None:
        """Begin; until then, signals are PyTorch's, which starts the processes."""
        self._pids = tuple(pids)
        for number in self._before:
            signal.signal(number, self._pass)

    def _pass(self, number: int, _frame: FrameType | None) -> None:
        # Once: what comes later must not end a process that has left the training.
        if self.received is not None:
            return
        self.received = number
        for pid in self._pids:
            with suppress(ProcessLookupError):
                # Never SIGINT, of which a starting Python makes a traceback.
                os.kill(pid, signal.SIGTERM)


class _RemoteTraceback(Exception):  # noqa: N818 - shown as the cause, never raised
    """What a process had to say about its error, for `-v`."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def _stopped(number: int) -> TrainingStoppedError:
    """The error for a signal that came while no steps were taken."""
    text = "outside of the training steps: there is no new checkpoint"
    if number == signal.SIGINT:
        return TrainingStoppedError(f"interrupted {text}")
    return TrainingTerminatedError(f"terminated {text}")


def _explain(result: RunProcsResult, received: int | None) -> SrcliError:
    """The error that stands for those of all processes: what went wrong first.

    Args:
        result: With failures, in the order in which they were noticed.
        received: The signal that was passed on.
    """
    rank, failure = min(result.failures.items(), key=lambda item: _rank_cause(item[1]))
    report = failure.error_file_data
    if received is not None and _rank_cause(failure) == _FOLLOWED:
        return _stopped(received)
    if "exit_code" not in report:
        return _describe(rank, failure, result.stderrs[rank])
    message, code = report["message"], report["exit_code"]
    if received == signal.SIGINT and code == ExitCode.TERMINATED:
        message = "interrupted" + message.removeprefix("terminated")
        code = ExitCode.INTERRUPTED
    error = _error_of(code)(message)
    error.__cause__ = _RemoteTraceback(report["traceback"])
    return error


def _rank_cause(failure: ProcessFailure) -> int:
    """How likely a failure is only the consequence of another's, from 0."""
    report = failure.error_file_data
    if "exit_code" in report:
        return _FOLLOWED if report["lost"] else 0
    # The others are sent SIGTERM once one has failed, and later SIGKILL.
    return {-signal.SIGTERM: _FOLLOWED, -_SIGKILL: 2}.get(failure.exitcode, 1)


def _error_of(code: int) -> type[SrcliError]:
    kinds: dict[int, type[SrcliError]] = {kind.exit_code: kind for kind in _ERRORS}
    return kinds.get(code, SrcliError)


def _describe(rank: int, failure: ProcessFailure, stderr: str) -> SrcliError:
    """The error for a process that ended without a word, or with one in `stderr`."""
    text = f"the process of device {rank} ended"
    if failure.exitcode == -_SIGKILL:
        return DeviceError(
            f"{text} by SIGKILL: perhaps the machine's memory did not suffice"
        )
    if failure.exitcode < 0:
        return SrcliError(f"{text} by {failure.signal_name()}")
    lines = Path(stderr).read_text("utf-8", "replace").split("\n") if stderr else []
    said = "".join(f": {line}" for line in lines[-2:] if line)
    text = f"{text} with exit code {failure.exitcode}{said}"
    return _error_of(failure.exitcode)(text)
