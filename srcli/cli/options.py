"""Option values that several commands read alike; the words are checked early."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import UsageError, unknown

if TYPE_CHECKING:
    from srcli.inference.tiling import Overlap, TileSize

_SECONDS_OF = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
SMALLEST_TILE = 16  # px; below, a tile is nearly all overlap


def split_names(given: Sequence[str] | None) -> tuple[str, ...]:
    """The values of a repeated option, also joined with commas; paths stay whole."""
    names: list[str] = []
    for text in given or ():
        names += [text] if Path(text).exists() else text.split(",")
    return tuple(name.strip() for name in names)


def read_scales(given: Sequence[str] | None) -> tuple[int, ...]:
    """The scales of `-x 2 -x 3,4`, each once; "x2" is understood too.

    Raises:
        UsageError: If one is no whole number.
    """
    try:
        scales = [int(word.lower().removeprefix("x")) for word in split_names(given)]
    except ValueError as error:
        raise UsageError(
            f"--scale takes 2, 3, 4 or a list such as 2,3, not {','.join(given or ())}"
        ) from error
    return tuple(dict.fromkeys(scales))


def read_tile(text: str) -> TileSize:
    """The value of `--tile`: "auto", 0 or a side in pixels.

    Raises:
        UsageError: If it is none of these, or too small to be of use.
    """
    if text == "auto":
        return "auto"
    size = _read_number("tile", "auto, 0 or pixels", text)
    if 0 < size < SMALLEST_TILE:
        raise UsageError(f"--tile must be at least {SMALLEST_TILE} pixels, not {size}")
    return size


def read_overlap(text: str) -> Overlap:
    """The value of `--tile-overlap`: "auto", "exact" or a length in pixels.

    Raises:
        UsageError: If it is none of these.
    """
    if text == "exact":
        return "exact"
    if text == "auto":
        return "auto"
    return _read_number("tile-overlap", "auto, exact or pixels", text)


def read_word(kind: str, word: str, known: Sequence[str]) -> str:
    """`word` in lower case.

    Raises:
        UsageError: If it is not among the known ones.
    """
    if word.lower() not in known:
        raise unknown(kind, word, known)
    return word.lower()


def _read_number(option: str, expected: str, text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"--{option} must be {expected}, not {text!r}")
    return int(text)


def read_duration(text: str) -> float:
    """The seconds of a time such as "8h", "25m", "1h30m" or "1.5h".

    Raises:
        UsageError: If it is none, or no time at all.
    """
    parts = re.findall(r"([0-9.]+)([dhms])", text.strip().lower())
    try:
        seconds = sum(float(number) * _SECONDS_OF[unit] for number, unit in parts)
    except ValueError:
        seconds = 0.0
    whole = "".join(number + unit for number, unit in parts)
    if whole != text.strip().lower() or seconds <= 0:
        raise UsageError(f"{text!r} is no time: say 8h, 25m or 1h30m")
    return seconds
