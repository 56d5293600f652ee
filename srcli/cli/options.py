"""Options that several commands share, and how words on the command line are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from srcli.errors import UsageError, unknown

_SECONDS_OF = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_SMALLEST_TILE = 16  # px; below, a tile is nearly all overlap


def option(metavar: str, text: str, *names: str, **more: Any) -> Any:  # noqa: ANN401
    """An option: what its value is called, what it does, its names if not its own."""
    return Option(*names, metavar=metavar, help=text, **more)


flag = partial(option, "")  # what takes no value names no type


def read_word(kind: str, word: str, known: Sequence[str]) -> str:
    """`word` in lower case.

    Raises:
        UsageError: If it is not among the known ones.
    """
    if word.lower() not in known:
        raise unknown(kind, word, known)
    return word.lower()


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


def _read_tile(text: str) -> str | int:
    size = _read_length("--tile", text, "auto")
    if size in range(1, _SMALLEST_TILE):
        raise UsageError(f"--tile must be at least {_SMALLEST_TILE} pixels, not {size}")
    return size


def _read_length(option: str, text: str, *words: str) -> str | int:
    if text not in words and not text.isdecimal():
        expected = ", ".join(words)
        raise UsageError(
            f"{option} must be {expected} or a number of pixels, not {text!r}"
        )
    return text if text in words else int(text)


def read_duration(text: str) -> float:
    """The seconds of a time such as "8h", "25m", "1h30m" or "1.5h".

    Raises:
        UsageError: If it is none, or no time at all.
    """
    number = r"(\d+\.?\d*|\.\d+)"
    seconds = 0.0
    if re.fullmatch(rf"({number}[dhms])+", text.strip().lower()):
        parts = re.findall(rf"{number}([dhms])", text.lower())
        seconds = sum(float(count) * _SECONDS_OF[unit] for count, unit in parts)
    if seconds <= 0:
        raise UsageError(f"{text!r} is no time: say 8h, 25m or 1h30m")
    return seconds


# Declared once. The values of tiles are "auto", "exact" or whole numbers.
on_device = partial(option, rich_help_panel="Device")
Device = Annotated[str, on_device("DEVICE", "auto, cpu, cuda, cuda:N or mps.")]
Precision = Annotated[str, on_device("TYPE", "auto, fp32, bf16 or fp16.")]
Tile = Annotated[
    Any,
    on_device(
        "SIZE",
        "The side of a tile in input pixels, auto, or 0 for no tiles.",
        parser=_read_tile,
    ),
]
TileOverlap = Annotated[
    Any,
    on_device(
        "SIZE",
        "The context around a tile in input pixels, auto or exact.",
        parser=lambda text: _read_length("--tile-overlap", text, "auto", "exact"),
    ),
]
Ensemble = Annotated[
    bool, on_device("", "Average 8 flips and turns: better, slower.", "--ensemble")
]
scales = partial(
    option,
    "SCALE",
    "Enlargement; repeat or join with commas for several.",
    "--scale",
    "-x",
)
DataDir = Annotated[
    Path | None,
    option(
        "FOLDER",
        "Where the named data sets lie.",
        show_default="$SRCLI_DATA_DIR, the cache, the current folder",
    ),
]
Json = Annotated[bool, flag("Print one JSON document.", "--json")]
