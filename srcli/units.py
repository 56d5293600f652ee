"""Quantities as a sentence says them, and times as they are typed."""

from __future__ import annotations

import re

from srcli.errors import UsageError

_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


def format_bytes(size: float) -> str:
    """A number of bytes: "0.3 MB", "2.1 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def format_duration(seconds: float) -> str:
    """A time in its two largest units, of seconds, minutes, hours and days."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min {rest} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"


def parse_duration(text: str) -> float:
    """The seconds of a time such as "8h", "25m", "1h30m" or "1.5h".

    Raises:
        UsageError: If it is none, or no time at all.
    """
    parts = re.findall(r"([0-9.]+)([dhms])", text.strip().lower())
    try:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    except ValueError:
        seconds = 0.0
    whole = "".join(number + unit for number, unit in parts)
    if whole != text.strip().lower() or seconds <= 0:
        raise UsageError(f"{text!r} is no time: say 8h, 25m or 1h30m")
    return seconds
