"""What became of pictures, shown: names of files, lines of JSON or one document."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Literal, TypeAlias

from srcli.cli.console import out, print_json, print_json_line
from srcli.errors import UsageError
from srcli.units import format_bytes, format_duration

if TYPE_CHECKING:
    from srcli.inference.cost import Cost
    from srcli.inference.jobs import Result, Tally

log = logging.getLogger(__name__)

Style: TypeAlias = Literal["names", "json", "lines"]


def choose_style(as_json: bool, json_lines: bool) -> Style:
    """How results are shown.

    Raises:
        UsageError: If two ways are asked for.
    """
    if as_json and json_lines:
        raise UsageError("--json and --json-lines contradict each other: give either")
    return "json" if as_json else "lines" if json_lines else "names"


def show_results(
    results: Generator[Result, None, None], style: Style, *, is_streaming: bool = False
) -> None:
    """Show what becomes of each picture, also when interrupted.

    Args:
        results: As they are done.
        style: Lines of JSON are shown as they are, all else comes at the end.
        is_streaming: Whether names are shown as they are, too, as memory need not hold
            them all, and how fast it went is said.

    Raises:
        SrcliError: What the results amount to; see `Tally.raise_failures`.
    """
    from srcli.inference.jobs import Tally

    tally, kept, started = Tally(), list["Result"](), time.monotonic()
    at_once = is_streaming and style == "names"
    try:
        with closing(results):
            for result in results:
                tally.add(result)
                if style == "lines":
                    print_json_line(result.as_dict())
                elif at_once:
                    _print_names([result])
                else:
                    kept.append(result)
    finally:
        if style == "json":
            print_json({"results": [result.as_dict() for result in kept]})
        _print_names(kept if style == "names" else [])
    if is_streaming:
        _announce_speed(tally, time.monotonic() - started)
    tally.raise_failures()


def show_preview(
    results: Iterable[Result], cost: Cost, style: Style, device: str
) -> None:
    """Show what would be done, and in a line what it would take.

    Args:
        results: All of them.
        cost: Of the batch.
        style: How they are shown.
        device: What would enlarge them.

    Raises:
        SrcliError: As `show_results`.
    """
    from srcli.inference.jobs import Tally

    kept = list(results)
    records = [result.as_dict() for result in kept]
    planned = [result for result in kept if result.status == "planned"]
    if style == "json":
        total = {"estimate": cost.as_dict()} if planned else {}
        print_json({"results": records, **total})
    elif style == "lines":
        for record in records:
            print_json_line(record)
    else:
        _print_names(kept)
    if planned:
        log.info(
            "%d %s, %.1f megapixels: about %s on %s, %s of memory, %s of files",
            len(planned),
            "picture" if len(planned) == 1 else "pictures",
            sum(result.job.width * result.job.height for result in planned) / 1e6,
            format_duration(cost.seconds),
            device,
            format_bytes(cost.memory),
            format_bytes(cost.bytes),
        )
    tally = Tally()
    for result in kept:
        tally.add(result)
    tally.raise_failures()


def _print_names(results: Iterable[Result]) -> None:
    """Print the names of files that are there now, or would be."""
    for result in results:
        if result.status in ("done", "planned") and result.job.output is not None:
            out.out(result.output, highlight=False)


def _announce_speed(tally: Tally, seconds: float) -> None:
    """Say in a line what was done, and how fast."""
    log.info(
        "%d pictures, %.1f megapixels in %s: %.1f pictures, %.2f megapixels a second",
        tally.total,
        tally.pixels / 1e6,
        format_duration(seconds),
        tally.total / seconds,
        tally.pixels / 1e6 / seconds,
    )  # fmt: skip
