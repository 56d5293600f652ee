"""Jobs done one after the other: reading, enlarging and writing overlap.

While one picture is enlarged, the next is read and the last is written, each in a
thread of its own. No more than three pictures are in memory at any time.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from srcli.errors import DeviceError, OutputError, PartialFailureError, SrcliError
from srcli.imaging.files import (
    Metadata,
    Picture,
    encode_picture,
    read_picture,
    write_picture,
)
from srcli.imaging.pillow import quiet
from srcli.inference.jobs import Job
from srcli.inference.sources import STREAM
from srcli.progress import SILENT, Progress

if TYPE_CHECKING:
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How results are written."""

    quality: int = 95  # of JPEG, WebP and AVIF, 1 to 100
    keep_metadata: bool = True  # the colour profile always stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one job."""

    job: Job
    status: Literal["done", "skipped", "failed", "planned"]
    width: int | None = None  # px
    height: int | None = None
    seconds: float | None = None  # of enlarging, without reading and writing
    device: str | None = None
    precision: str | None = None
    tiles: int | None = None
    error: SrcliError | None = None

    @property
    def input(self) -> str:
        """The file that was read, "-" for standard input."""
        return _show(self.job.source.path)

    @property
    def output(self) -> str | None:
        """The file that is there now, "-" for standard output; None where none is."""
        if self.error is not None:
            return None
        return _show(self.job.output)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "input": self.input,
            "output": self.output,
            "status": self.status,
            "width": self.width,
            "height": self.height,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "device": self.device,
            "precision": self.precision,
            "tiles": self.tiles,
            "error": None if self.error is None else str(self.error),
        }


def preview_batch(jobs: Sequence[Job]) -> list[Result]:
    """What `run_batch` would begin with; open jobs are "planned"."""
    return [_announce(_settle(job) or _plan(job), len(jobs)) for job in jobs]


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
        reading = _start_reading(reader, jobs, 0)
        writing: Future[Result] | None = None
        for index, job in enumerate(jobs):
            picture, reading = reading, _start_reading(reader, jobs, index + 1)
            enlarged = _enlarge(job, picture, upscaler, progress)
            del picture  # or it stays in memory while the result is written
            if writing is not None:
                yield _announce(writing.result(), len(jobs))
            writing = writer.submit(_finish, *enlarged, options)
        if writing is not None:
            yield _announce(writing.result(), len(jobs))


def raise_failures(results: Sequence[Result]) -> None:
    """Raise what the results amount to.

    Raises:
        SrcliError: The error itself if there was one job; one of the same class if all
            jobs failed in that class.
        PartialFailureError: If only some failed, or in different ways.
    """
    errors = [result.error for result in results if result.error is not None]
    if not errors:
        return
    if len(results) == 1:
        raise errors[0]
    if len(errors) == len(results) and len({type(error) for error in errors}) == 1:
        raise type(errors[0])(f"all {len(results)} inputs failed")
    raise PartialFailureError(f"{len(errors)} of {len(results)} inputs failed")


def _show(path: Path | None) -> str:
    """A path as text that any stream can take; "-" for standard input or output."""
    if path is None:
        return STREAM
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _settle(job: Job) -> Result | None:
    """The result of a job that nothing is to be done for."""
    if job.error is not None:
        return Result(job=job, status="failed", error=job.error)
    if job.is_done:
        return Result(job=job, status="skipped")
    return None


def _plan(job: Job) -> Result:
    return Result(job=job, status="planned", width=job.width, height=job.height)


class _Named:
    """A `Progress` that says which file it is about."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self.advance = progress.advance
        self.note = progress.note

    def start(self, description: str, total: float | None) -> None:
        self._progress.start(f"{self._name}: {description}", total)


def _start_reading(
    reader: ThreadPoolExecutor, jobs: Sequence[Job], index: int
) -> Future[Picture] | None:
    """The picture of a job as it is being read; None where nothing is to be done."""
    if index >= len(jobs) or not jobs[index].is_open:
        return None
    return reader.submit(_read, jobs[index])


def _read(job: Job) -> Picture:
    """The picture of a job.

    Raises:
        InputError: If it cannot be read.
        OutputError: If its result cannot be held by the format asked for.
    """
    source = job.source
    picture = read_picture(source.content, name=source.name)
    misfit = picture.find_misfit(job.format)
    if misfit is not None:
        raise OutputError(f"{source.name} cannot be written: {misfit}; choose png")
    return picture


def _enlarge(
    job: Job,
    reading: Future[Picture] | None,
    upscaler: Upscaler,
    progress: Progress,
) -> tuple[Result, Picture | None]:
    """What it took to enlarge a picture, and the picture; None where there is none."""
    settled = _settle(job)
    if settled is not None or reading is None:
        return settled or _plan(job), None
    try:
        picture = reading.result()
        start = time.perf_counter()
        larger = upscaler(picture, _Named(progress, job.source.name))
        seconds = time.perf_counter() - start
        _announce_steps(job, upscaler.describe(picture.height, picture.width))
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
    return result, larger


def _announce_steps(job: Job, steps: str) -> None:
    """Say how a picture was enlarged where it took more than one step."""
    if ", then " in steps:
        log.info("%s: %s", job.source.name, steps)


def _finish(result: Result, picture: Picture | None, options: FileOptions) -> Result:
    """The result, once its picture is written."""
    if picture is None:
        return result
    if not options.keep_metadata:
        picture = replace(picture, metadata=Metadata(icc=picture.metadata.icc))
    job = result.job
    try:
        if job.output is None:
            _write_stream(encode_picture(picture, job.format, options.quality))
        else:
            write_picture(
                picture, job.output, format=job.format, quality=options.quality
            )
    except SrcliError as error:
        return Result(job=job, status="failed", error=error)
    return result


def _write_stream(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"standard output: {error.strerror}") from error


def _announce(result: Result, jobs: int) -> Result:
    """Log why a job was left out, or failed; a lone error is left to the caller."""
    if result.status == "skipped":
        log.info("%s exists: skipped", result.output)
    if result.error is not None and jobs > 1:
        log.error("%s", result.error)
    return result
