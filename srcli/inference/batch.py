"""Jobs done one after the other: reading, enlarging and writing overlap.

    for region in regions: write(enlarge(read(region)))

A picture that fits into memory is one piece; of a larger one each region is one. While
a piece is enlarged, the next is read and the last is written, each in a thread of its
own, so that no more than three are in memory. On Ray the same steps are done by tasks.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

from srcli.errors import DeviceError, InputError, OutputError, SrcliError
from srcli.imaging.files import (
    PictureFile,
    encode_picture,
    open_picture,
    write_picture,
)
from srcli.imaging.formats import FORMATS
from srcli.imaging.metadata import fit_metadata
from srcli.imaging.picture import Picture, join_planes, reduce_depth
from srcli.imaging.pillow import explain, quiet
from srcli.imaging.tiff.write import TileWriter
from srcli.inference.cost import RunStats
from srcli.inference.jobs import (
    Job,
    Result,
    announce,
    check_space,
    prepare_folders,
    require_room,
)
from srcli.progress import SILENT, Progress
from srcli.writing import write_whole

if TYPE_CHECKING:  # they import torch
    from srcli.inference.tiling import Region
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)

_Given = ParamSpec("_Given")
_Read = TypeVar("_Read")
_Made = TypeVar("_Made")
_Done = TypeVar("_Done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A picture on its way, or a region of one; can be sent anywhere."""

    job: Job
    region: Region | None = None  # None is all of the picture
    count: int = 1  # regions that the picture has
    picture: Picture  # as read, and later as enlarged
    stats: RunStats | None = None  # of enlarging; None before
    source: Picture | None = None  # as read, where a page is to show it
    facts: Mapping[str, str] | None = None  # that the page says beside the pictures


def attempt(
    job: Job, step: Callable[_Given, _Made], *given: _Given.args, **named: _Given.kwargs
) -> _Made | Result:
    """What a step gives, or what became of the job that it fails for."""
    try:
        return step(*given, **named)
    except SrcliError as error:
        return Result(job, "failed", error=error)
    except MemoryError:
        full = DeviceError(f"{job.source.name}: memory does not suffice")
        return Result(job, "failed", error=full)


def open_source(job: Job) -> AbstractContextManager[PictureFile]:
    """The picture of an open job, to be read; see `open_picture`."""
    naming, source = job.naming, job.source
    return open_picture(
        source.content,
        name=source.name,
        frame=naming.frame,
        keep_metadata=naming.keep_metadata,
        by_box=job.is_large,
    )


def read_pieces(
    job: Job,
    regions: Sequence[Region | None] = (None,),
    levels: tuple[float, float] | None = None,
) -> Generator[Piece, None, None]:
    """The picture of an open job, or its regions one by one.

    Of regions of floating point, all of the picture is read to find its `levels`, where
    these are not given.

    Raises:
        InputError: If it cannot be read, or is not what was planned.
        OutputError: If its result cannot be held by the format asked for, or has no
            place to go any more.
    """
    require_room(job)
    with open_source(job) as opened:
        if levels is not None:
            opened.levels = levels
        for region in regions:
            whole = opened.info.height, opened.info.width
            if region is not None and region.whole != whole:
                raise InputError(f"{job.source.name} has changed meanwhile")
            picture = opened.read(None if region is None else region.padded)
            _check_held(job, picture)
            yield Piece(job=job, region=region, count=len(regions), picture=picture)


def _check_held(job: Job, picture: Picture) -> None:
    """Refuse what the format asked for would lose."""
    entry, lost = FORMATS[job.format], ""
    if not entry.alpha and picture.is_transparent:
        lost = "no transparency; choose png"
    elif picture.depth == 32 and entry.depth < 32 and picture.levels != (0, 1):
        lost = "no values outside of 0 to 1; choose tiff"
    if lost:
        name = job.source.name
        raise OutputError(f"{name} cannot be written: {entry.title} holds {lost}")


def enlarge_piece(
    piece: Piece, upscaler: Upscaler, progress: Progress = SILENT
) -> Piece:
    """The piece enlarged; raises what `Upscaler.enlarge` does."""
    source = piece.picture
    start = time.perf_counter()
    larger = upscaler.enlarge(source, piece.region, progress)
    stats = replace(upscaler.stats, seconds=time.perf_counter() - start)
    made = replace(piece, picture=larger, stats=stats)
    if piece.region is not None:
        return made
    steps = upscaler.describe(source.height, source.width)
    if ", then " in steps:
        log.info("%s: %s", piece.job.source.name, steps)
    if piece.job.page is None:
        return made
    facts = {
        "Model": upscaler.name,
        "Enlarged by": steps,
        "Size": f"{source.width}x{source.height} to "
        f"{larger.width}x{larger.height} pixels",
        "Computed": f"in {stats.seconds:.1f} s on {stats.device} in {stats.precision}",
    }
    return replace(made, source=source, facts=facts)


class ResultFile:
    """The file of an open job's result, a tiled BigTIFF if it comes in regions.

    Of one that is closed before all of them are there, nothing is left. Not
    thread-safe.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._added = job, 0
        self._stats: RunStats | None = None
        self._stack = ExitStack()
        self._file: IO[bytes]
        self._tiles: TileWriter

    def add(self, piece: Piece) -> Result | None:
        """Write an enlarged picture, or a region of one, in any order.

        What became of the job is returned once all of it is there.

        Raises:
            OutputError: If the file cannot be written.
        """
        job, stats, region = self._job, piece.stats, piece.region
        assert stats is not None
        if region is None:
            return Result(job, "done", stats, _write_picture(piece))
        try:
            if self._stats is None:
                self._open(piece.picture, region.size)
            target = region.target
            self._tiles.add(target.top, target.left, join_planes(piece.picture))
            self._stats = self._stats.followed_by(stats) if self._stats else stats
            self._added += 1
            if self._added < piece.count:
                return None
            self._tiles.finish()
            size = self._file.seek(0, 2)
        except OSError as error:
            detail = explain(error)
            raise OutputError(f"{job.output} cannot be written: {detail}") from error
        self._stack.close()
        return Result(job, "done", self._stats, size)

    def close(self) -> None:
        """Leave nothing of a file that is not whole."""
        cut = OutputError("not all of it is there")
        self._stack.__exit__(type(cut), cut, None)

    def _open(self, part: Picture, size: tuple[int, int]) -> None:
        job, naming = self._job, self._job.naming
        assert job.output is not None
        may_replace = naming.existing == "overwrite"
        whole = write_whole(job.output, replace=may_replace, run=naming.run)
        path = self._stack.enter_context(whole)
        self._file = self._stack.enter_context(path.open("w+b"))
        colours = part.pixels.shape[2]
        metadata = fit_metadata(
            part.metadata, "tiff", colours, size[::-1], job.source.name
        )
        channels = colours + (part.alpha is not None)
        dtype = part.pixels.dtype
        self._tiles = TileWriter(self._file, size, channels, dtype, metadata)


def _write_picture(piece: Piece) -> int:
    """Write an enlarged picture, and the page beside it; the bytes of its file."""
    job, picture, naming = piece.job, piece.picture, piece.job.naming
    entry = FORMATS[job.format]
    if picture.depth > entry.depth:
        log.warning(
            "%s: %s holds %d bits a channel at most: reduced to them",
            job.source.name, entry.title, entry.depth,
        )  # fmt: skip
        picture = reduce_depth(picture, entry.depth)
    if job.output is None:
        data = encode_picture(picture, job.format, naming.quality)
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error
        return len(data)
    size = write_picture(
        picture,
        job.output,
        format=job.format,
        quality=naming.quality,
        replace=naming.existing == "overwrite",
        run=naming.run,
    )
    if job.page is not None and piece.source is not None:
        # It imports torch, which workers that only write do without.
        from srcli.pages.comparison import write_comparison  # noqa: PLC0415

        write_comparison(
            piece.source,
            piece.picture,
            job.page,
            title=job.source.name,
            facts=piece.facts or {},
        )
    return size


def run_batch(
    jobs: Sequence[Job], upscaler: Upscaler, progress: Progress = SILENT
) -> Generator[Result, None, None]:
    """Do the jobs, giving each result in the order of the jobs once it is written.

    What a `SrcliError` hinders is a result of its own and does not stop the others; of
    several jobs, the log says so at once. `progress` is told of tiles, or regions.

    Raises:
        OutputError: If there is no room for the results, or a folder cannot be written
            to; then nothing has been done.
    """
    check_space(jobs)
    prepare_folders(j.output.parent for j in jobs if j.is_open and j.output is not None)
    batch = _Batch(jobs, upscaler, progress)
    with (
        quiet(),
        closing(batch),
        closing(batch.read()) as pieces,
        closing(_overlap(pieces, batch.enlarge, batch.write)) as results,
    ):
        for result in results:
            if result is not None:
                yield announce(result, len(jobs))


def _overlap(
    items: Iterator[_Read],
    change: Callable[[_Read], _Made],
    finish: Callable[[_Made], _Done],
) -> Generator[_Done, None, None]:
    """`finish(change(item))` of each, while the next item is got, in three threads."""
    end = object()
    # Both threads end before this does: an interruption leaves no half file.
    with (
        ThreadPoolExecutor(1, "read") as reader,
        ThreadPoolExecutor(1, "write") as writer,
    ):
        reading = reader.submit(next, items, end)
        writing: Future[_Done] | None = None
        while (item := reading.result()) is not end:
            reading = reader.submit(next, items, end)
            made = change(item)  # type: ignore[arg-type]
            del item  # or it stays in memory while what is made of it is written
            if writing is not None:
                yield writing.result()
            writing = writer.submit(finish, made)
            del made
        if writing is not None:
            yield writing.result()


class _Batch:
    """The steps of a batch: each is for one thread."""

    def __init__(
        self, jobs: Sequence[Job], upscaler: Upscaler, progress: Progress
    ) -> None:
        self._upscaler, self._progress, self._count = upscaler, progress, len(jobs)
        self._plans = [(job, self._plan(job)) for job in jobs]
        self._current: Job | None = None  # whose picture is enlarged
        self._number = 0  # of it, from 1
        self._ended: Job | None = None  # whose other regions nobody needs
        self._file: ResultFile | None = None

    def _plan(self, job: Job) -> Result | Sequence[Region | None]:
        """The regions of a job, or what has become of it already."""
        if job.settled is not None or not job.is_large:
            return job.settled or (None,)
        assert job.info is not None
        return attempt(job, self._upscaler.plan_regions, job.info)

    def read(self) -> Generator[Piece | Result, None, None]:
        """The pieces of all jobs in turn, or what keeps a job from having any."""
        for job, regions in self._plans:
            if isinstance(regions, Result):
                yield regions
                continue
            with closing(read_pieces(job, regions)) as pieces:
                while (piece := attempt(job, next, pieces, None)) is not None:
                    if job is self._ended:
                        break
                    yield piece

    def enlarge(self, piece: Piece | Result) -> Piece | Result:
        """The piece enlarged, or what became of the job that this fails for."""
        job, title = piece.job, piece.job.source.name
        is_first = job is not self._current
        if is_first:
            self._current, self._number = job, self._number + 1
        if isinstance(piece, Result) or job is self._ended:
            return piece
        if self._count > 1:
            title = f"{self._number}/{self._count} {title}"
        if piece.region is None:
            titled = _Titled(self._progress, title)
            return attempt(job, enlarge_piece, piece, self._upscaler, titled)
        if is_first:
            steps = self._upscaler.describe(*piece.region.whole)
            self._progress.start(f"{title}: {steps}", piece.count)
        made = attempt(job, enlarge_piece, piece, self._upscaler)
        self._progress.advance()
        return made

    def write(self, piece: Piece | Result) -> Result | None:
        """What became of a job, with its last piece or the first one that fails."""
        job = piece.job
        if job is self._ended:
            return None
        result: Result | None
        if isinstance(piece, Result):
            result = piece
        else:
            self._file = self._file or ResultFile(job)
            result = attempt(job, self._file.add, piece)
        if result is not None:
            self.close()
            self._ended = job
        return result

    def close(self) -> None:
        """Leave nothing of a file that is not whole."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Titled:
    """A `Progress` under the name of its picture."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self.advance, self.note = progress.advance, progress.note

    def start(self, description: str, total: float | None) -> None:
        self._progress.start(f"{self._name}: {description}", total)
