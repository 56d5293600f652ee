"""Jobs done one after the other: reading, enlarging and writing overlap.

While one picture is enlarged, the next is read and the last is written, each in a
thread of its own. No more than three pictures are in memory at any time.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from srcli.errors import DeviceError, OutputError, SrcliError
from srcli.imaging.files import (
    Picture,
    encode_picture,
    read_picture,
    reduce_depth,
    strip_metadata,
    write_picture,
)
from srcli.imaging.formats import FORMATS
from srcli.imaging.pillow import quiet
from srcli.inference.jobs import Job
from srcli.inference.results import Result
from srcli.inference.space import require_room
from srcli.progress import SILENT, Progress

if TYPE_CHECKING:
    from srcli.inference.estimate import Estimate
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How results are written."""

    quality: int = 95  # of JPEG, WebP and AVIF, 1 to 100
    keep_metadata: bool = True  # or nothing of it, and the colours in sRGB
    run: str | None = None  # see `srcli.writing.write_whole`


@dataclass(frozen=True, slots=True)
class Pair:
    """An enlarged picture on its way to its file."""

    source: Picture | None  # where it is still needed
    larger: Picture
    model: str
    steps: str  # how it was enlarged


def preview_batch(
    jobs: Sequence[Job], estimates: Sequence[Estimate | None]
) -> list[Result]:
    """What `run_batch` would begin with; open jobs are "planned".

    Args:
        jobs: As `plan_jobs` gives them.
        estimates: What each will take, None for those that are not open.
    """
    return [
        announce(settle(job) or _plan(job, estimate), len(jobs))
        for job, estimate in zip(jobs, estimates, strict=True)
    ]


def run_batch(
    jobs: Sequence[Job],
    upscaler: Upscaler,
    options: FileOptions | None = None,
    progress: Progress = SILENT,
) -> Generator[Result, None, None]:
    """Do the jobs, giving each result in the order of the jobs once it is written.

    What a `SrcliError` hinders is a result of its own and does not stop the others; of
    several jobs, the log says so at once.

    Args:
        jobs: As `plan_jobs` gives them.
        upscaler: Enlarges one picture.
        options: How results are written.
        progress: Told of each picture's tiles.
    """
    options = options or FileOptions()
    # Both threads end before this does: an interruption leaves no half file.
    with (
        quiet(),
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        reading = _start_reading(reader, jobs, 0, options)
        writing: Future[Result] | None = None
        for index, job in enumerate(jobs):
            picture = reading
            reading = _start_reading(reader, jobs, index + 1, options)
            named = _Named(progress, job.source.name, index, len(jobs))
            settled = settle(job)
            enlarged: tuple[Result, Pair | None]
            if settled is not None or (picture is None and not job.is_large):
                enlarged = settled or _plan(job), None
            elif picture is None:
                from srcli.inference.large import do_large, upscale_job  # noqa: PLC0415 - torch

                by_region = partial(
                    upscale_job,
                    upscaler=upscaler,
                    keep_metadata=options.keep_metadata,
                    progress=named,
                )
                enlarged = do_large(job, options, by_region), None
            else:
                enlarged = enlarge(job, picture.result, upscaler, named)
            del picture  # or it stays in memory while the result is written
            if writing is not None:
                yield announce(writing.result(), len(jobs))
            writing = writer.submit(finish, *enlarged, options)
        if writing is not None:
            yield announce(writing.result(), len(jobs))


def settle(job: Job) -> Result | None:
    """The result of a job that nothing is to be done for."""
    if job.error is not None:
        return Result(job=job, status="failed", error=job.error)
    if job.is_done:
        return Result(job=job, status="skipped")
    return None


def _plan(job: Job, estimate: Estimate | None = None) -> Result:
    width, height = job.width, job.height
    return Result(
        job=job, status="planned", width=width, height=height, estimate=estimate
    )


class _Named:
    """A `Progress` that says which file it is about, and which of how many."""

    def __init__(self, progress: Progress, name: str, index: int, jobs: int) -> None:
        self._progress = progress
        self._name = f"{index + 1}/{jobs} {name}" if jobs > 1 else name
        self.advance = progress.advance
        self.note = progress.note

    def start(self, description: str, total: float | None) -> None:
        self._progress.start(f"{self._name}: {description}", total)


def _start_reading(
    reader: ThreadPoolExecutor, jobs: Sequence[Job], index: int, options: FileOptions
) -> Future[Picture] | None:
    """The picture of a job as it is being read; None where nothing is to be done."""
    if index >= len(jobs) or not jobs[index].is_open or jobs[index].is_large:
        return None
    return reader.submit(read_source, jobs[index], options)


def read_source(job: Job, options: FileOptions) -> Picture:
    """The picture of an open job.

    Raises:
        InputError: If it cannot be read.
        OutputError: If its result cannot be held by the format asked for, or has no
            place to go any more.
    """
    require_room(job, makes_folder=options.run is not None)
    name = job.source.name
    picture = read_picture(job.source.content, name=name, frame=job.frame)
    entry = FORMATS[job.format]
    if not entry.alpha and picture.is_transparent:
        raise OutputError(
            f"{name} cannot be written: {entry.title} holds no transparency; choose png"
        )
    is_float = picture.depth == 32
    if is_float and entry.depth < 32 and picture.levels != (0, 1):
        raise OutputError(
            f"{name} cannot be written: {entry.title} holds no values outside of 0 to "
            "1; choose tiff"
        )
    return picture if options.keep_metadata else strip_metadata(picture, name)


def enlarge(
    job: Job,
    read: Callable[[], Picture],
    upscaler: Upscaler,
    progress: Progress = SILENT,
) -> tuple[Result, Pair | None]:
    """What it took to enlarge a picture, and both; None where that failed.

    Args:
        job: Open.
        read: Gives its picture, or raises what hinders that.
        upscaler: Enlarges it.
        progress: Told of its tiles.
    """
    try:
        picture = read()
        start = time.perf_counter()
        larger = upscaler(picture, progress)
        seconds = time.perf_counter() - start
        steps = upscaler.describe(picture.height, picture.width)
        if ", then " in steps:
            log.info("%s: %s", job.source.name, steps)
    except SrcliError as error:
        return Result(job=job, status="failed", error=error), None
    except MemoryError:
        full = DeviceError(f"{job.source.name}: memory does not suffice")
        return Result(job=job, status="failed", error=full), None
    result = Result(
        job=job,
        status="done",
        width=larger.width,
        height=larger.height,
        seconds=seconds,
        device=upscaler.stats.device,
        precision=upscaler.stats.precision,
        tiles=upscaler.stats.tiles,
    )
    source = picture if job.page else None
    return result, Pair(source, larger, upscaler.name, steps)


def finish(result: Result, pair: Pair | None, options: FileOptions) -> Result:
    """The result, once its picture is written."""
    if pair is None:
        return result
    job = result.job
    try:
        size = _write(job, _fit_depth(job, pair.larger), options)
        if job.page is not None and pair.source is not None:
            # It imports torch, which workers that only write do without.
            from srcli.pages.comparison import write_comparison  # noqa: PLC0415

            facts = _list_facts(result, pair)
            write_comparison(
                pair.source, pair.larger, job.page, title=job.source.name, facts=facts
            )
    except SrcliError as error:
        return Result(job=job, status="failed", error=error)
    except MemoryError:
        full = DeviceError(f"{job.source.name}: memory does not suffice to write it")
        return Result(job=job, status="failed", error=full)
    return replace(result, bytes=size)


def _write(job: Job, picture: Picture, options: FileOptions) -> int:
    """Write the picture of a job, and say how many bytes that took.

    Raises:
        OutputError: If it cannot be written.
    """
    if job.output is None:
        data = encode_picture(picture, job.format, options.quality)
        _write_stream(data)
        return len(data)
    return write_picture(
        picture,
        job.output,
        format=job.format,
        quality=options.quality,
        replace=job.may_replace,
        run=options.run,
    )


def _fit_depth(job: Job, picture: Picture) -> Picture:
    """The picture in a depth that the format asked for holds."""
    entry = FORMATS[job.format]
    if picture.depth <= entry.depth:
        return picture
    log.warning(
        "%s: %s holds %d bits a channel at most: reduced to them",
        job.source.name, entry.title, entry.depth,
    )  # fmt: skip
    return reduce_depth(picture, entry.depth)


def _list_facts(result: Result, pair: Pair) -> dict[str, str]:
    """What the page says beside the pictures."""
    assert pair.source is not None
    source, seconds = pair.source, result.seconds or 0.0
    size = f"{source.width}x{source.height} to {result.width}x{result.height} pixels"
    return {
        "Model": pair.model,
        "Enlarged by": pair.steps,
        "Size": size,
        "Computed": f"in {seconds:.1f} s on {result.device} in {result.precision}",
    }


def _write_stream(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from error


def announce(result: Result, jobs: int) -> Result:
    """Log why a job was left out, or failed; a lone error is left to the caller.

    Returns:
        The result.
    """
    if result.status == "skipped":
        log.info("%s exists: skipped", result.output)
    if result.error is not None and jobs > 1:
        log.error("%s", result.error)
    return result
