"""The run's record as JSON lines, from which curves are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Appends one JSON object a line: loss and rate, or the PSNR of a validation.

    Args:
        path: The file.
        step: Where the run goes on; lines past it are of steps that are run again.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = []
        if path.exists() and step > 0:
            kept = [
                line
                for line in path.read_text("utf-8").splitlines()
                if json.loads(line)["step"] <= step
            ]
        path.write_text("".join(f"{line}\n" for line in kept), "utf-8")

    def write(self, **values: Any) -> None:  # noqa: ANN401 - any JSON value
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
