"""The progress of long work, reported without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one task; the command line draws it with Rich."""

    def start(self, description: str, total: float | None) -> None:
        """Begin a task of `total` units (None: unknown), replacing the last one."""

    def advance(self, amount: float = 1) -> None:
        """Report `amount` more units done."""

    def note(self, text: str) -> None:
        """Show a short state beside the bar, such as the loss."""


class _Silent:
    def start(self, description: str, total: float | None) -> None: ...

    def advance(self, amount: float = 1) -> None: ...

    def note(self, text: str) -> None: ...


SILENT: Progress = _Silent()  # shows nothing
