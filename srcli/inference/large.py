"""Pictures larger than memory: read by window, enlarged by region, written by tile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from srcli.errors import DeviceError, InputError, OutputError, SrcliError
from srcli.imaging.box import Box
from srcli.imaging.files import Picture, PictureInfo
from srcli.imaging.metadata import fit_metadata
from srcli.imaging.pillow import explain
from srcli.imaging.source import PictureFile, open_picture
from srcli.imaging.tiff.write import TileWriter
from srcli.inference.batch import FileOptions
from srcli.inference.jobs import Job
from srcli.inference.regions import Region, enlarge_region, plan_regions
from srcli.inference.results import Result
from srcli.inference.runner import RunStats
from srcli.inference.space import require_room
from srcli.inference.upscaler import Upscaler
from srcli.progress import SILENT, Progress
from srcli.storage import Place
from srcli.writing import write_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LargePicture:
    """A picture of which regions are read, and whose enlarged regions are written.

    `open_large` makes it. One thread may read while another one writes.

    Attributes:
        levels: The values of black and white in all of it.
    """

    _opened: PictureFile
    _writer: TileWriter
    levels: tuple[float, float]
    _name: str

    def read(self, region: Region) -> Picture:
        """The pixels of a region with its context, without metadata.

        Raises:
            InputError: If the file is damaged, or holds values that are not finite.
        """
        return self._opened.read(region.padded)

    def write(self, region: Region, part: Picture) -> None:
        """Write an enlarged region; regions may come in any order.

        Raises:
            OutputError: If the file cannot be written.
        """
        planes: NDArray[np.generic] = part.pixels
        if part.alpha is not None:
            planes = np.concatenate((planes, part.alpha[:, :, None]), axis=2)
        with _blame_output(self._name):
            self._writer.add(region.target.top, region.target.left, planes)


def do_large(
    job: Job, options: FileOptions, enlarge: Callable[[Job, IO[bytes]], RunStats]
) -> Result:
    """Do a job whose picture is larger than memory.

    Args:
        job: Open, and `is_large`.
        options: How the result is written.
        enlarge: Enlarges the job's picture into a file, and says what that took.
    """
    try:
        with _open_result(job, options) as file:
            start = time.perf_counter()
            stats = enlarge(job, file)
            seconds = time.perf_counter() - start
            size = file.seek(0, 2)
    except SrcliError as error:
        return Result(job=job, status="failed", error=error)
    except MemoryError:
        full = DeviceError(f"{job.source.name}: memory does not suffice")
        return Result(job=job, status="failed", error=full)
    return Result(
        job=job,
        status="done",
        width=job.width,
        height=job.height,
        seconds=seconds,
        device=stats.device,
        precision=stats.precision,
        tiles=stats.tiles,
        bytes=size,
    )


@contextmanager
def _open_result(job: Job, options: FileOptions) -> Iterator[IO[bytes]]:
    """The file that the result of a large job is written to, piece by piece.

    Raises:
        OutputError: If it cannot be written, or the disk is full.
    """
    assert job.output is not None
    require_room(job, makes_folder=options.run is not None)
    replace, run = job.may_replace, options.run
    with (
        write_whole(job.output, replace=replace, run=run) as part,
        part.open("w+b") as file,
    ):
        yield file


@contextmanager
def open_large(
    source: Place | bytes,
    file: IO[bytes],
    regions: Sequence[Region],
    *,
    name: str,
    frame: int | None = None,
    keep_metadata: bool = True,
) -> Iterator[LargePicture]:
    """A TIFF to be enlarged by region into a tiled BigTIFF.

    Of floating point, all of it is read at once to find its black and white. Where the
    `with` block ends without an error, all regions must have been written.

    Args:
        source: A file, or the bytes of one.
        file: Where the result goes; must be seekable and readable.
        regions: All of the picture, as `plan_regions` gives them.
        name: What messages call the source.
        frame: Which of several pages, from 1; None is the only one.
        keep_metadata: Whether metadata are kept; else colours are converted to sRGB.

    Raises:
        InputError: If the source cannot be read by window, or is not what was planned.
        OutputError: If the result cannot be written.
    """
    size = regions[0].size
    with open_picture(
        source, name=name, frame=frame, keep_metadata=keep_metadata, by_box=True
    ) as opened:
        info = opened.info
        if (info.height, info.width) != regions[0].whole:
            raise InputError(f"{name} has changed meanwhile")
        levels = opened.levels
        first = opened.read(Box(0, 0, 1, 1)).pixels
        channels = info.channels + info.alpha
        shape = size[1], size[0]
        metadata = fit_metadata(opened.metadata, "tiff", info.channels, shape, name)
        with _blame_output(name):
            writer = TileWriter(file, size, channels, first.dtype, metadata)
        yield LargePicture(opened, writer, levels, name)
        with _blame_output(name):
            writer.finish()


def upscale_job(
    job: Job,
    file: IO[bytes],
    *,
    upscaler: Upscaler,
    keep_metadata: bool,
    progress: Progress = SILENT,
) -> RunStats:
    """`upscale_large` of the picture of a job."""
    assert job.info is not None
    return upscale_large(
        job.source.content,
        file,
        upscaler,
        job.info,
        name=job.source.name,
        frame=job.frame,
        keep_metadata=keep_metadata,
        progress=progress,
    )


def upscale_large(
    source: Place | bytes,
    file: IO[bytes],
    upscaler: Upscaler,
    info: PictureInfo,
    *,
    name: str,
    frame: int | None = None,
    keep_metadata: bool = True,
    progress: Progress = SILENT,
) -> RunStats:
    """Enlarge a TIFF by region into a tiled BigTIFF.

    While one region is enlarged, the next is read and the last is written, each in a
    thread of its own.

    Args:
        source: As `open_large`.
        file: As `open_large`.
        upscaler: Enlarges one region after the other.
        info: What `probe_picture` says of the source.
        name: As `open_large`.
        frame: As `open_large`.
        keep_metadata: As `open_large`.
        progress: Told of regions.

    Returns:
        What the networks took for all regions.

    Raises:
        InputError: As `open_large`, or if the source is damaged.
        OutputError: As `open_large`.
        UsageError: If the factor is not between 1 and 8.
        DeviceError: If memory does not suffice.
        WeightsError: If weights are missing or damaged.
    """
    regions = plan_regions(upscaler, info)
    progress.start(upscaler.describe(info.height, info.width), len(regions))
    share = _Share(progress, len(upscaler.plan(info.height, info.width)))
    stats: RunStats | None = None
    with (
        open_large(
            source,
            file,
            regions,
            name=name,
            frame=frame,
            keep_metadata=keep_metadata,
        ) as large,
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        reading = reader.submit(large.read, regions[0])
        writing: Future[None] | None = None
        for index, region in enumerate(regions):
            part = reading.result()
            if index + 1 < len(regions):
                reading = reader.submit(large.read, regions[index + 1])
            larger = enlarge_region(upscaler, part, region, share)
            share.end()
            stats = stats.followed_by(upscaler.stats) if stats else upscaler.stats
            if writing is not None:
                writing.result()
            writing = writer.submit(large.write, region, larger)
        assert writing is not None
        writing.result()
    assert stats is not None
    return stats


class _Share:
    """A `Progress` of one region after the other, as part of that of the picture."""

    def __init__(self, progress: Progress, passes: int) -> None:
        self._progress, self._passes = progress, passes
        self._unit = 0.0
        self.note = progress.note

    def start(self, description: str, total: float | None) -> None:  # noqa: ARG002
        self._unit = 1 / (self._passes * (total or 1))

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(amount * self._unit)

    def end(self) -> None:
        """Count a region that no network has counted."""
        if not self._passes:
            self._progress.advance(1)


@contextmanager
def _blame_output(name: str) -> Iterator[None]:
    """What hinders writing as an `OutputError`.

    Raises:
        OutputError: If the block raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{name} cannot be written: {explain(error)}") from error
