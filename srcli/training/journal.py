"""The run's record as JSON lines, from which curves are drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.errors import OutputError
from srcli.writing import write_whole


class Journal:
    """Appends one JSON object a line: loss and rate, a validation's PSNR, an event.

    Args:
        path: The file; None writes nothing, which is what all processes but one do.
            Lines past `step` are of steps that will be run again, and a line cut short
            is of a run that was killed: both go.
        step: Where the run goes on; at 0 the file begins anew.

    Raises:
        OutputError: If the file cannot be read or written.
    """

    def __init__(self, path: Path | None, step: int) -> None:
        self.path = path
        if path is None:
            return
        lines: list[str] = []
        if step > 0 and path.exists():
            try:
                lines = path.read_text("utf-8", errors="replace").splitlines()
            except OSError as error:
                raise OutputError(f"cannot read {path}: {error.strerror}") from error
        kept = [line for line in lines if 0 <= _step_of(line) <= step]
        with write_whole(path) as part:
            part.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def write(self, **values: Any) -> None:  # noqa: ANN401 - any JSON value
        """Add a line.

        Raises:
            OutputError: If it cannot be written.
        """
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            text = f"cannot write {self.path}: {error.strerror}"
            raise OutputError(text) from error


@dataclass(frozen=True, slots=True)
class Means:
    """What a step took on average, and the share of it that drawing crops took."""

    loss: Tensor  # a scalar on the device
    seconds: float
    data_share: float | None


class Tally:
    """Sums over the steps since it was last read; the loss stays on its device.

    Args:
        drawing: Seconds spent on drawing crops so far, if that is known.
    """

    def __init__(self, drawing: float | None = None) -> None:
        self._begin(drawing)

    def _begin(self, drawing: float | None) -> None:
        self.loss = torch.zeros(())
        self.seconds = 0.0
        self._steps = 0
        self._drawing = drawing

    def add(self, loss: Tensor) -> None:
        """Count one step; its time is added to `seconds`."""
        self.loss = self.loss.to(loss.device) + loss
        self._steps += 1

    def read(self, drawing: float | None = None) -> Means:
        """The means, of one step at least; counting begins anew.

        Args:
            drawing: As at the beginning, now.
        """
        share = None
        if drawing is not None and self._drawing is not None:
            share = (drawing - self._drawing) / max(self.seconds, 1e-9)
        means = Means(self.loss / self._steps, self.seconds / self._steps, share)
        self._begin(drawing)
        return means


def _step_of(line: str) -> int:
    """The step that a line is about, or -1 for one that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return -1
