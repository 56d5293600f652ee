"""Ending a run early, but only between two steps and with a checkpoint."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from srcli.errors import ExitCode, SrcliError, UsageError

log = logging.getLogger(__name__)

_Report = TypeVar("_Report")


class TrainingStoppedError(SrcliError):
    """Training ended early on Ctrl-C; a checkpoint was written."""

    exit_code = ExitCode.INTERRUPTED


class TrainingTerminatedError(TrainingStoppedError):
    """Training ended early on SIGTERM; a checkpoint was written."""

    exit_code = ExitCode.TERMINATED


class DivergedError(UsageError):
    """The loss stayed no number, whatever the learning rate; a checkpoint is there."""


class StopSignals:
    """While entered, notes SIGINT and SIGTERM instead of dying of them."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            # Only the main thread can catch signals; elsewhere they are its affair.
            self._before.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number

    def raise_received(self, text: str) -> None:
        """Raise the error of the signal that came, if one did.

        Args:
            text: What the user should know, after "interrupted" or "terminated".

        Raises:
            TrainingStoppedError: After Ctrl-C.
            TrainingTerminatedError: After SIGTERM.
        """
        if self.received == signal.SIGTERM:
            raise TrainingTerminatedError(f"terminated {text}")
        if self.received is not None:
            raise TrainingStoppedError(f"interrupted {text}")


def work_and_report(
    work: Callable[[], object],
    report: Callable[[bool], _Report],
    reported: tuple[type[SrcliError], ...],
) -> _Report:
    """Do some work, and report on it however it ended.

    Args:
        work: What may be stopped.
        report: Told whether it was.
        reported: The errors of `work` after which there is something to report.

    Returns:
        What `report` returned.

    Raises:
        SrcliError: What `work` raised, also where the report then failed; else what the
            report raised.
    """
    stopped: SrcliError | None = None
    try:
        work()
    except reported as error:
        stopped = error
    try:
        result = report(stopped is not None)
    except SrcliError as error:
        if stopped is None:
            raise
        log.warning("no report: %s", error)
    if stopped is not None:
        raise stopped
    return result
