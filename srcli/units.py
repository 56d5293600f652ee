"""Quantities as a sentence says them."""

from __future__ import annotations

from collections.abc import Sequence


def format_bytes(size: float | None) -> str:
    """Bytes with their unit, to about two digits; a question mark for None."""
    if size is None:
        return "?"
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.{1 if size < 10 * unit else 0}f} {name}"
    return f"{size:.0f} B"


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


def format_count(number: int, noun: str) -> str:
    """A number of things: 1 picture, 1200 pictures."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """The words as a sentence lists them: a, b and c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
