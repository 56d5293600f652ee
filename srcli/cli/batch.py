"""Jobs of `srcli upscale` previewed or done, and what became of them shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from srcli.inference.batch import FileOptions
    from srcli.inference.estimate import Estimate
    from srcli.inference.jobs import Job
    from srcli.inference.results import Result
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)


Style: TypeAlias = Literal["names", "json", "lines"]


class Shown:
    """What became of each job, shown on stdout.

    Names of files and one JSON document come at the end, lines of JSON as they are.
    """

    def __init__(self, style: Style) -> None:
        self.style = style
        self.is_streaming = style == "lines"  # or else memory has to hold them all
        self._kept: list[Result] = []

    def add(self, result: Result) -> None:
        """Show a result, or keep it until the end."""
        from srcli.cli.console import print_json_line

        if not self.is_streaming:
            self._kept.append(result)
        elif self.style == "lines":
            print_json_line(result.as_dict())
        else:
            _print_name(result)

    def end(self, estimate: Estimate | None = None) -> None:
        """Show what was kept."""
        from srcli.cli.console import print_json

        if self.style == "json":
            total = {} if estimate is None else {"estimate": estimate.as_dict()}
            print_json(
                {"results": [result.as_dict() for result in self._kept], **total}
            )
            return
        for result in self._kept:
            _print_name(result)


def _print_name(result: Result) -> None:
    """Print the name of a file that is there now, or would be."""
    from srcli.cli.console import out

    if result.status in ("done", "planned") and result.job.output is not None:
        out.out(result.output, highlight=False)


def run_jobs(
    jobs: Sequence[Job],
    load: Callable[[], Upscaler],
    options: FileOptions,
    shown: Shown,
    *,
    dry_run: bool,
) -> None:
    """Do the jobs and show what became of them, also when interrupted."""
    from srcli.cli.signals import ending_cleanly
    from srcli.inference.results import raise_failures

    # A wrong model or device is an error before anything is touched, dry run or not.
    upscaler = load() if any(job.is_open for job in jobs) else None
    if upscaler is None or dry_run:
        results = _preview(jobs, upscaler, shown)
    else:
        with ending_cleanly():
            results = _work(jobs, upscaler, options, shown)
    raise_failures(results)


def _preview(
    jobs: Sequence[Job], upscaler: Upscaler | None, shown: Shown
) -> list[Result]:
    """Show what would be done, and what it would take."""
    from srcli.inference.batch import preview_batch
    from srcli.inference.estimate import estimate_batch
    from srcli.inference.space import check_space

    if upscaler is None:
        results = preview_batch(jobs, [None] * len(jobs))
        return _show_all(results, shown)
    check_space(jobs)
    estimates, total = estimate_batch(jobs, upscaler)
    results = preview_batch(jobs, estimates)
    _show_all(results, shown, total)
    _announce_estimate(jobs, upscaler, total)
    return results


def _work(
    jobs: Sequence[Job], upscaler: Upscaler, options: FileOptions, shown: Shown
) -> list[Result]:
    """Do the jobs, and show those that are done, whatever ends them."""
    from srcli.cli.console import progress_bar
    from srcli.inference.batch import run_batch
    from srcli.inference.jobs import prepare_folders
    from srcli.inference.space import check_space

    results: list[Result] = []
    try:
        check_space(jobs)
        outputs = [job.output for job in jobs if job.is_open]
        prepare_folders(output.parent for output in outputs if output is not None)
        with (
            progress_bar() as progress,
            closing(run_batch(jobs, upscaler, options, progress)) as batch,
        ):
            for result in batch:
                results.append(result)
                shown.add(result)
    finally:
        shown.end()
    return results


def _show_all(
    results: list[Result], shown: Shown, estimate: Estimate | None = None
) -> list[Result]:
    """Show results that are all there."""
    for result in results:
        shown.add(result)
    shown.end(estimate)
    return results


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
