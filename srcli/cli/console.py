"""The output of the command line: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from srcli.progress import SILENT, Progress
from srcli.storage import show_message

log = logging.getLogger("srcli")
out = Console(soft_wrap=True)
err = Console(stderr=True)
_drawn: list[RichProgress] = []  # the bar that is on the terminal now


class _OneLine(logging.Handler):
    """Prints each message on one line of stderr, above any progress bar.

    A traceback, which only `-v` asks for, follows on lines of its own.
    """

    def emit(self, record: logging.LogRecord) -> None:
        text = show_message(record.getMessage())
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        err.print(text, soft_wrap=True, markup=False, highlight=False)


def configure(*, verbose: bool, quiet: bool) -> None:
    """Send the package's log to stderr: errors only, also notices, or everything."""
    log.handlers[:] = [_OneLine()]
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
    log.propagate = False


def print_line(text: str) -> None:
    """Write a line to stdout as it is: no markup, no colours. A bar makes room."""
    for bars in _drawn:
        bars.stop()
    typer.echo(text)
    for bars in _drawn:
        bars.start()


def print_json(document: dict[str, Any], *, indent: int | None = 2) -> None:
    """Write a JSON document to stdout; without `indent` as one line.

    Raises:
        ValueError: If a figure is not finite, which JSON cannot say.
    """
    print_line(json.dumps(document, indent=indent, allow_nan=False))


class _Bar:
    """A `Progress` drawn by Rich: one bar, replaced by each new task."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, visible=False, note="")

    def start(self, description: str, total: float | None) -> None:
        # A task that is reset to no total would keep its old one.
        self._bars.remove_task(self._task)
        self._task = self._bars.add_task(description, total=total, note="")

    def advance(self, amount: float = 1) -> None:
        self._bars.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._bars.update(self._task, note=text)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on stderr, or silence where stderr is no terminal or is quiet."""
    if log.level >= logging.ERROR or not err.is_terminal:
        yield SILENT
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    # Rich would send what is printed to stderr, and break long names.
    with RichProgress(
        *columns, console=err, transient=True, redirect_stdout=False
    ) as bars:
        _drawn.append(bars)
        try:
            yield _Bar(bars)
        finally:
            _drawn.remove(bars)
