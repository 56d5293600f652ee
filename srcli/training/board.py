"""A run's curves for TensorBoard, where that is installed (`srcli[tensorboard]`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from srcli.errors import OutputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

NAME = "tensorboard"
_FLUSH = 30  # seconds after which what was written can be seen


class Board(Protocol):
    """Receives a run's figures as they come."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add figures of a step; a lower step than before takes back those after it."""

    def close(self) -> None:
        """Write what is left; nothing may be added afterwards."""


class _Silent:
    """A `Board` that shows nothing."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Leave nothing behind."""


SILENT_BOARD: Board = _Silent()


def open_board(folder: Path, step: int) -> Board:
    """A board in the folder `tensorboard` of a run's folder.

    Args:
        folder: The run's folder.
        step: Where the run goes on; figures of later steps, of an earlier call, are
            taken back.

    Returns:
        A silent one where TensorBoard is not installed, or the folder's name is no
        UTF-8.

    Raises:
        OutputError: If the folder cannot be written.
    """
    try:
        # Slow to load, and not needed by those who do without.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
    except ImportError as error:
        log.debug("no TensorBoard (%s): pip install 'srcli[tensorboard]'", error)
        return SILENT_BOARD
    path = folder / NAME
    try:
        return _Written(SummaryWriter, path, step)
    except UnicodeEncodeError:
        log.warning("no curves for TensorBoard: its folders need names in UTF-8")
        return SILENT_BOARD
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


class _Written:
    """Event files of TensorBoard.

    Nothing is ever taken out of them. A file that begins with a purge tells the reader
    to leave out that step, and those after it, of the files before.
    """

    def __init__(self, kind: type[SummaryWriter], path: Path, step: int) -> None:
        self._kind = kind
        self._path = path
        self._last = step
        self._writer: SummaryWriter | None = self._begin(step + 1)

    def _begin(self, purge: int) -> SummaryWriter:
        return self._kind(str(self._path), purge_step=purge, flush_secs=_FLUSH)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add figures; where they cannot be written, that is said and the board ends.

        A run is worth more than its board.
        """
        if self._writer is None:
            return
        try:
            if step < self._last:
                self._writer.close()
                self._writer = self._begin(step)
            self._last = step
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            reason = error.strerror or error
            log.warning("TensorBoard ends: cannot write %s: %s", self._path, reason)
            self._abandon()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            reason = error.strerror or error
            log.warning("TensorBoard: cannot write %s: %s", self._path, reason)
        self._writer = None

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):  # said already
                writer.close()
