"""Jobs of `srcli upscale` previewed or done, and what became of them shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.inference.batch import FileOptions
    from srcli.inference.estimate import Estimate
    from srcli.inference.jobs import Job
    from srcli.inference.results import Result
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)


def run_jobs(
    jobs: Sequence[Job],
    load: Callable[[], Upscaler],
    options: FileOptions,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Do the jobs and show what became of them, also when interrupted."""
    from srcli.cli.signals import ending_cleanly
    from srcli.inference.results import raise_failures

    # A wrong model or device is an error before anything is touched, dry run or not.
    upscaler = load() if any(job.is_open for job in jobs) else None
    if upscaler is None or dry_run:
        results = _preview(jobs, upscaler, as_json)
    else:
        with ending_cleanly():
            results = _work(jobs, upscaler, options, as_json)
    raise_failures(results)


def _preview(
    jobs: Sequence[Job], upscaler: Upscaler | None, as_json: bool
) -> list[Result]:
    """Show what would be done, and what it would take."""
    from srcli.inference.batch import preview_batch
    from srcli.inference.estimate import estimate_batch
    from srcli.inference.space import check_space

    if upscaler is None:
        results = preview_batch(jobs, [None] * len(jobs))
        _show(results, as_json)
        return results
    check_space(jobs)
    estimates, total = estimate_batch(jobs, upscaler)
    results = preview_batch(jobs, estimates)
    _show(results, as_json, total)
    _announce_estimate(jobs, upscaler, total)
    return results


def _work(
    jobs: Sequence[Job], upscaler: Upscaler, options: FileOptions, as_json: bool
) -> list[Result]:
    """Do the jobs, and show those that are done, whatever ends them."""
    from srcli.cli.console import progress_bar
    from srcli.inference.batch import run_batch
    from srcli.inference.jobs import prepare_folders
    from srcli.inference.space import check_space

    results: list[Result] = []
    try:
        check_space(jobs)
        prepare_folders(jobs)
        with (
            progress_bar() as progress,
            closing(run_batch(jobs, upscaler, options, progress)) as batch,
        ):
            results.extend(batch)
    finally:
        _show(results, as_json)
    return results


def _show(
    results: Sequence[Result], as_json: bool, estimate: Estimate | None = None
) -> None:
    """Print the names of the results that are there now, or one JSON document."""
    from srcli.cli.console import out, print_json

    if as_json:
        total = {} if estimate is None else {"estimate": estimate.as_dict()}
        print_json({"results": [result.as_dict() for result in results], **total})
        return
    for result in results:
        if result.status in ("done", "planned") and result.job.output is not None:
            out.out(result.output, highlight=False)


def _announce_estimate(
    jobs: Sequence[Job], upscaler: Upscaler, total: Estimate
) -> None:
    """Say in a line what a batch would take."""
    from srcli.units import format_bytes, format_duration

    opened = [job for job in jobs if job.is_open]
    megapixels = sum(job.width * job.height for job in opened) / 1e6
    log.info(
        "%d %s, %.1f megapixels: about %s on %s, %s of memory, %s of files",
        len(opened),
        "picture" if len(opened) == 1 else "pictures",
        megapixels,
        format_duration(total.seconds),
        upscaler.stats.device,
        format_bytes(total.memory),
        format_bytes(total.bytes),
    )
