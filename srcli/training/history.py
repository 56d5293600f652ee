"""What a run's log holds, read back for curves and reports."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from srcli.errors import InputError

NAME = "log.jsonl"
_FIGURES = ("loss", "rate", "seconds_per_step", "data_share")
_END = 2**53  # every step below is a float of its own


@dataclass(frozen=True, slots=True)
class History:
    """The log in order of steps.

    Where a run went back to an earlier step, what it had done after that one is left
    out, but for the events.

    Attributes:
        losses: Mean training loss of the steps up to and with this one.
        rates: Learning rate.
        seconds: Mean time of one of those steps.
        data_shares: The share of that time spent on drawing crops, 0 to 1.
        validations: PSNR in dB by scale.
        events: What happened besides, as step and text.
    """

    losses: dict[int, float] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    data_shares: dict[int, float] = field(default_factory=dict)
    validations: dict[int, dict[int, float]] = field(default_factory=dict)
    events: tuple[tuple[int, str], ...] = ()

    @property
    def scales(self) -> tuple[int, ...]:
        """Every scale of a validation, ascending."""
        found = {scale for psnr in self.validations.values() for scale in psnr}
        return tuple(sorted(found))

    @property
    def best_step(self) -> int | None:
        """The first validation with the highest mean PSNR; None if there is none."""
        means = {step: fmean(psnr.values()) for step, psnr in self.validations.items()}
        return max(means, key=lambda step: means[step]) if means else None

    @property
    def last_step(self) -> int:
        """The last step that there are figures of; 0 if there are none."""
        parts = (self.losses, self.rates, self.validations)
        return max(max(part, default=0) for part in parts)

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

    Args:
        folder: The run's folder; a missing log is an empty one.

    Raises:
        InputError: If the log is there but cannot be read.
    """
    path = folder / NAME
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise InputError(f"cannot read the log {path}: {error.strerror}") from error
    figures: dict[str, dict[int, float]] = {name: {} for name in _FIGURES}
    validations: dict[int, dict[int, float]] = {}
    events = []
    for line in lines:
        step, document = _read_line(line)
        for name, series in figures.items():
            _forget_after(step, series)
            value = _read_figure(document.get(name))
            if value is not None:
                series[step] = value
        _forget_after(step, validations)
        psnr = _read_psnr(document)
        if psnr:
            validations[step] = psnr
        if isinstance(document.get("event"), str):
            events.append((step, document["event"]))
    return History(
        losses=figures["loss"],
        rates=figures["rate"],
        seconds=figures["seconds_per_step"],
        data_shares=figures["data_share"],
        validations=validations,
        events=tuple(events),
    )


def _read_line(line: str) -> tuple[int, dict[str, Any]]:
    """A line's step and values; after all steps and without values if it is damaged."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return _END, {}
    step = document.get("step") if isinstance(document, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < _END:
        return _END, {}
    return step, document


def _forget_after(step: int, kept: dict[int, Any]) -> None:
    """Take every step after `step` out of `kept`, which is in order."""
    while kept and next(reversed(kept)) > step:
        kept.popitem()


def _read_figure(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _read_psnr(document: Mapping[str, Any]) -> dict[int, float]:
    """The finite figures of a validation by scale; empty if the line has none."""
    values = document.get("psnr")
    found = {}
    for name, value in values.items() if isinstance(values, dict) else ():
        number = _read_figure(value)
        if number is not None and name.isascii() and name.isdigit() and len(name) < 4:
            found[int(name)] = number
    return found
