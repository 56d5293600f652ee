"""Jobs done one after the other: reading, enlarging and writing overlap.

While one piece is enlarged, the next is read and the last is written, each in a thread
of its own. No more than three are in memory at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from srcli.imaging.pillow import quiet
from srcli.inference.jobs import Job, Result, announce
from srcli.inference.pieces import (
    FileOptions,
    LargeFile,
    Piece,
    attempt,
    enlarge,
    read_pieces,
    write_piece,
)
from srcli.inference.space import check_space, prepare_folders
from srcli.progress import SILENT, Progress

if TYPE_CHECKING:
    from srcli.inference.tiling import Region
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)

_Read = TypeVar("_Read")
_Made = TypeVar("_Made")
_Done = TypeVar("_Done")


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
        upscaler: Enlarges one piece after the other.
        options: How results are written.
        progress: Told of each picture's tiles.

    Raises:
        OutputError: If there is no room for the results, or a folder cannot be written
            to; then nothing has been done.
    """
    check_space(jobs)
    outputs = [job.output for job in jobs if job.is_open]
    prepare_folders(output.parent for output in outputs if output is not None)
    batch = _Batch(jobs, upscaler, options or FileOptions(), progress)
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
        self,
        jobs: Sequence[Job],
        upscaler: Upscaler,
        options: FileOptions,
        progress: Progress,
    ) -> None:
        self._upscaler, self._options = upscaler, options
        self._progress, self._count = progress, len(jobs)
        self._jobs = [(job, self._plan(job)) for job in jobs]
        self._current: Job | None = None  # whose picture is enlarged
        self._number = 0  # of it, from 1
        self._ended: Job | None = None  # whose other regions nobody needs
        self._file: LargeFile | None = None

    def _plan(self, job: Job) -> Result | Sequence[Region | None]:
        """The pieces of a job, or what has become of it already."""
        settled = Result.of_settled(job)
        if settled is not None or not job.is_large:
            return settled or (None,)
        assert job.info is not None
        return attempt(job, self._upscaler.plan_regions, job.info)

    def read(self) -> Generator[Piece | Result, None, None]:
        """The pieces of all jobs in turn, or what keeps a job from having any."""
        for job, regions in self._jobs:
            if isinstance(regions, Result):
                yield regions
                continue
            with closing(read_pieces(job, self._options, regions)) as pieces:
                while (piece := attempt(job, next, pieces, None)) is not None:
                    if job is self._ended:
                        break
                    yield piece

    def enlarge(self, piece: Piece | Result) -> Piece | Result:
        """The piece enlarged, or what became of the job that this fails for."""
        job, progress = piece.job, self._progress
        if job is not self._current:
            self._current, self._number = job, self._number + 1
        if isinstance(piece, Result) or job is self._ended:
            return piece
        name = job.source.name
        if self._count > 1:
            name = f"{self._number}/{self._count} {name}"
        shares = 0
        if piece.count > 1:
            size = piece.region.whole if piece.region else (0, 0)
            shares = len(self._upscaler.plan(*size))
            if piece.number == 0:
                steps = self._upscaler.describe(*size)
                progress.start(f"{name}: {steps}", piece.count)
        made = attempt(
            job, enlarge, piece, self._upscaler, _Titled(progress, name, shares)
        )
        if piece.count > 1 and not shares:  # of bicubic, nothing has been told
            progress.advance()
        return made

    def write(self, piece: Piece | Result) -> Result | None:
        """What became of a job, with its last piece or the first one that fails."""
        job = piece.job
        if job is self._ended:
            return None
        if isinstance(piece, Piece) and piece.region is None:
            return attempt(job, write_piece, piece, self._options)
        result: Result | None
        if isinstance(piece, Result):
            result = piece
        else:
            if self._file is None:
                self._file = LargeFile(job, self._options, piece.count)
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
    """A `Progress` under the name of its picture; regions of one share its bar."""

    def __init__(self, progress: Progress, name: str, shares: int) -> None:
        """Begin with no task.

        Args:
            progress: That of the batch.
            name: Stands before the description of a task.
            shares: Tasks that are a region together; 0 is that each is all of a
                picture, with a bar of its own.
        """
        self._progress, self._name, self._shares = progress, name, shares
        self._unit = 1.0
        self.note = progress.note

    def start(self, description: str, total: float | None) -> None:
        if self._shares:
            self._unit = 1 / (self._shares * (total or 1))
        else:
            self._progress.start(f"{self._name}: {description}", total)

    def advance(self, amount: float = 1) -> None:
        self._progress.advance(amount * self._unit)
