"""A run's log: JSON lines that are written, taken back and read, and TensorBoard."""

from __future__ import annotations

import json
import logging
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from srcli.errors import InputError, OutputError
from srcli.writing import write_whole

log = logging.getLogger(__name__)

NAME = "log.jsonl"
_BOARD = "tensorboard"
_END = 2**53  # after every step
_FIGURES = ("loss", "rate", "seconds_per_step", "data_share")


class Journal:
    """The log in a run's folder: one JSON object a line, and the same for TensorBoard.

    Args:
        folder: The run's; None writes nothing, as all processes but the main one.
        step: Where the run goes on. Lines past it are of steps that will be run again,
            and a line cut short is of a run that was killed: both go.

    Raises:
        InputError: If the log is there but cannot be read.
        OutputError: If it cannot be written.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._folder = folder
        self._board: Any = None
        self._last = step
        if folder is None:
            return
        lines = _read_lines(folder) if step > 0 else []
        kept = [line for line, document in lines if document.get("step", _END) <= step]
        with write_whole(folder / NAME) as part:
            part.write_text("".join(f"{line}\n" for line in kept), "utf-8")
        self._open_board(folder, step + 1)

    def write(self, step: int, **values: Any) -> None:  # noqa: ANN401 - any JSON value
        """Add a line: loss and rate, a validation's PSNR by scale, or an event.

        Raises:
            OutputError: If it cannot be written.
        """
        if self._folder is None:
            return
        path = self._folder / NAME
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        if self._board is None:
            return
        figures = {name: values[name] for name in _FIGURES if name in values}
        figures |= {f"x{scale}": v for scale, v in values.get("psnr", {}).items()}
        try:
            if step < self._last:  # the run went back
                self._board.close()
                self._open_board(self._folder, step)
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            self._end_board(error)
        self._last = step

    def close(self) -> None:
        """Write what TensorBoard has not written yet."""
        if self._board is not None:
            with suppress(OSError):
                self._board.close()

    def _open_board(self, folder: Path, purge: int) -> None:
        """Begin event files; those before lose the steps from `purge` on."""
        try:
            # Slow to load, and not needed by those who do without.
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

            path = str(folder / _BOARD)
            self._board = SummaryWriter(path, purge_step=purge, flush_secs=30)
        except ImportError as error:
            log.debug("no TensorBoard (%s): pip install 'srcli[tensorboard]'", error)
        except (OSError, UnicodeEncodeError) as error:
            self._end_board(error)

    def _end_board(self, error: Exception) -> None:
        """A run is worth more than its curves in TensorBoard."""
        log.warning("no more for TensorBoard: cannot write: %s", error)
        self.close()
        self._board = None


@dataclass(frozen=True, slots=True)
class History:
    """What a log holds, in order of steps.

    Where a run went back to an earlier step, what it had done after that one is left
    out, but for the events.
    """

    losses: dict[int, float] = field(default_factory=dict)  # mean since the last one
    rates: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)  # mean of a step
    data_shares: dict[int, float] = field(default_factory=dict)  # of it, for the crops
    validations: dict[int, dict[int, float]] = field(default_factory=dict)  # dB
    events: list[tuple[int, str]] = field(default_factory=list)  # step and text

    @property
    def scales(self) -> tuple[int, ...]:
        """Every scale of a validation, ascending."""
        return tuple(sorted({s for psnr in self.validations.values() for s in psnr}))

    @property
    def best_step(self) -> int | None:
        """The first validation with the highest mean PSNR; None if there is none."""
        means = {step: fmean(psnr.values()) for step, psnr in self.validations.items()}
        return max(means, key=lambda step: means[step]) if means else None

    @property
    def last_step(self) -> int:
        """The last step that there are figures of; 0 if there are none."""
        return max((0, *self.losses, *self.validations))

    @property
    def seconds_per_step(self) -> float | None:
        """The median, which a pause of the machine does not move; None if unknown."""
        return median(self.seconds.values()) if self.seconds else None

    @property
    def data_share(self) -> float | None:
        """The median share of time spent on drawing crops; None if unknown."""
        return median(self.data_shares.values()) if self.data_shares else None


def read_history(folder: Path) -> History:
    """The history of a run, without lines and figures that are damaged or not finite.

    A missing log is an empty one.

    Raises:
        InputError: If the log is there but cannot be read.
    """
    history = History()
    series = (history.losses, history.rates, history.seconds, history.data_shares)
    for _, document in _read_lines(folder):
        if not document:
            continue
        step = document["step"]
        for known in (*series, history.validations):
            for later in [each for each in known if each > step]:
                del known[later]
        for name, figures in zip(_FIGURES, series, strict=True):
            if _is_figure(document.get(name)):
                figures[step] = document[name]
        psnr = document.get("psnr")
        found = psnr.items() if isinstance(psnr, dict) else ()
        if finite := {int(s): v for s, v in found if s.isdigit() and _is_figure(v)}:
            history.validations[step] = finite
        if isinstance(document.get("event"), str):
            history.events.append((step, document["event"]))
    return history


def _read_lines(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The lines of a log, each with its values: none of one that is damaged."""
    path = folder / NAME
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read the log {path}: {error.strerror}") from error
    return [(line, _read_line(line)) for line in lines]


def _read_line(line: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    step = document.get("step") if isinstance(document, dict) else None
    return document if type(step) is int and 0 <= step < _END else {}


def _is_figure(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return isinstance(value, float) and math.isfinite(value)
