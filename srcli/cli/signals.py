"""SIGTERM, SIGHUP and Ctrl-Break end a command as Ctrl-C does: nothing is half done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The system asked the program to end."""


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Raise `Terminated` in the main thread where a signal would kill."""
    before = {}
    try:
        # Windows lacks SIGHUP and has SIGBREAK instead.
        names = ("SIGTERM", "SIGHUP", "SIGBREAK")
        for number in (getattr(signal, n) for n in names if hasattr(signal, n)):
            # A program started by nohup ignores SIGHUP, and shall go on so.
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _raise)
    except ValueError:
        before.clear()  # only the main thread can catch signals
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Terminated(signal.Signals(number).name)
