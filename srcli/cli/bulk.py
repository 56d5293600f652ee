"""`srcli upscale --engine ray`: the same command on a cluster of machines."""

from __future__ import annotations

import importlib.util
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from srcli.cli.batch import Shown
    from srcli.inference.batch import FileOptions
    from srcli.inference.naming import Naming
    from srcli.inference.results import Tally
    from srcli.inference.sources import Source

log = logging.getLogger(__name__)

_MODULES = ("ray", "pyarrow")


def require_ray() -> None:
    """See that Ray Data is installed.

    Raises:
        UsageError: If it is not.
    """
    if any(importlib.util.find_spec(name) is None for name in _MODULES):
        raise UsageError("--engine ray needs Ray Data: pip install 'srcli[ray]'")


def run_on_ray(
    sources: Sequence[Source],
    naming: Naming,
    options: FileOptions,
    upscaler: dict[str, Any],
    shown: Shown,
    *,
    weights: Path | None,
    device: str,
    address: str | None,
    workers: int | None,
) -> None:
    """Enlarge pictures on a cluster, and show each as it is done.

    Args:
        sources: What to enlarge.
        naming: How results are named.
        options: How results are written.
        upscaler: The fields of `Upscaler`, `weights` and `device` apart.
        shown: Shows the results.
        weights: A weight file that workers get a copy of.
        device: As `Cluster`.
        address: As `Cluster`.
        workers: As `Cluster`.

    Raises:
        SrcliError: What the results amount to; see `Tally.raise_failures`.
    """
    from dataclasses import replace

    from srcli.bulk.orders import find_homes, take_orders
    from srcli.bulk.run import Cluster, run_bulk
    from srcli.bulk.stages import Work
    from srcli.cli.console import progress_bar
    from srcli.cli.signals import ending_cleanly
    from srcli.inference.jobs import prepare_folders
    from srcli.inference.results import Tally

    cluster = Cluster(address=address, workers=workers, device=device)
    folder, orders = take_orders(sources, naming)
    work = Work(
        naming=naming,
        folder=folder,
        options=replace(options, run=uuid.uuid4().hex[:12]),
        upscaler=upscaler,
        weights=None if weights is None else (weights.name, _read(weights)),
    )
    # A wrong model or factor is an error before anything is touched.
    work.make_planner()
    prepare_folders(find_homes(orders, naming, folder))
    shown.is_streaming |= shown.style == "names"
    tally, started = Tally(), time.monotonic()
    try:
        with (
            ending_cleanly(),
            progress_bar() as progress,
            closing(run_bulk(orders, work, cluster, progress)) as results,
        ):
            for result in results:
                tally.add(result)
                shown.add(result)
    finally:
        shown.end()
    _announce(tally, time.monotonic() - started)
    tally.raise_failures()


def _announce(tally: Tally, seconds: float) -> None:
    """Say in a line what was done, and how fast."""
    from srcli.units import format_duration

    log.info(
        "%d pictures, %.1f megapixels in %s: %.1f pictures, %.2f megapixels a second",
        tally.total,
        tally.pixels / 1e6,
        format_duration(seconds),
        tally.total / seconds,
        tally.pixels / 1e6 / seconds,
    )  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
