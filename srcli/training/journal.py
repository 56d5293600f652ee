"""The run's record as JSON lines, from which curves are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from srcli.errors import OutputError
from srcli.writing import write_whole


class Journal:
    """Appends one JSON object a line: loss and rate, or the PSNR of a validation.

    Args:
        path: The file; lines past `step` are of steps that will be run again, and a
            line cut short is of a run that was killed: both go.
        step: Where the run goes on; at 0 the file begins anew.

    Raises:
        OutputError: If the file cannot be read or written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
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
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            text = f"cannot write {self.path}: {error.strerror}"
            raise OutputError(text) from error


class Tally:
    """Mean loss and seconds of the steps since it was last read."""

    def __init__(self) -> None:
        self._steps, self._loss, self._seconds = 0, 0.0, 0.0

    def add(self, loss: float, seconds: float) -> None:
        """Count one step."""
        self._steps += 1
        self._loss += loss
        self._seconds += seconds

    def read(self) -> tuple[float, float]:
        """The means, of one step at least; counting begins anew."""
        means = self._loss / self._steps, self._seconds / self._steps
        self._steps, self._loss, self._seconds = 0, 0.0, 0.0
        return means


def _step_of(line: str) -> int:
    """The step that a line is about, or -1 for one that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return -1
