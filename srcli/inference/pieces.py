"""What is done to a picture on its way: read, enlarged and written, piece by piece.

    for region in regions: write(enlarge(read(region)))

A picture that fits into memory is one piece; of a larger one each region is one. The
three steps can be done by three threads, or on three machines.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, ParamSpec, TypeVar

from srcli.errors import DeviceError, InputError, OutputError, SrcliError
from srcli.imaging.files import encode_picture, open_picture, write_picture
from srcli.imaging.formats import FORMATS
from srcli.imaging.metadata import fit_metadata
from srcli.imaging.picture import Picture, join_planes, reduce_depth
from srcli.imaging.pillow import explain
from srcli.imaging.tiff.write import TileWriter
from srcli.inference.jobs import Job, Result
from srcli.inference.space import require_room
from srcli.progress import SILENT, Progress
from srcli.writing import write_whole

if TYPE_CHECKING:
    from srcli.inference.stats import RunStats
    from srcli.inference.tiling import Region
    from srcli.inference.upscaler import Upscaler  # imports torch

log = logging.getLogger(__name__)

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """How results are written."""

    quality: int = 95  # of JPEG, WebP and AVIF, 1 to 100
    keep_metadata: bool = True  # or nothing of it, and the colours in sRGB
    run: str | None = None  # see `srcli.writing.write_whole`


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A picture on its way, or a region of one; can be sent anywhere.

    Attributes:
        job: What is done with it.
        region: Which it is; None is all of the picture.
        number: Of the region, from 0.
        count: Regions that the picture has.
        picture: Its pixels, as read and later as enlarged.
        source: The pixels as read, where a page is to show them.
        stats: What enlarging took; None before.
        facts: What the page says beside the pictures.
    """

    job: Job
    region: Region | None = None
    number: int = 0
    count: int = 1
    picture: Picture
    source: Picture | None = None
    stats: RunStats | None = None
    facts: Mapping[str, str] | None = None


def attempt(
    job: Job, step: Callable[_Given, _Made], *given: _Given.args, **named: _Given.kwargs
) -> _Made | Result:
    """What a step gives, or what became of the job that it fails for."""
    try:
        return step(*given, **named)
    except SrcliError as error:
        return Result.of_failure(job, error)
    except MemoryError:
        full = DeviceError(f"{job.source.name}: memory does not suffice")
        return Result.of_failure(job, full)


def read_pieces(
    job: Job,
    options: FileOptions,
    regions: Sequence[Region | None] = (None,),
    levels: tuple[float, float] | None = None,
) -> Generator[Piece, None, None]:
    """The picture of an open job, or its regions one by one.

    Args:
        job: Open.
        options: How the result will be written.
        regions: As `plan_regions` gives them, or one None: all of the picture.
        levels: `Picture.levels` of the whole where they are known; else of floating
            point all of it is read to find them.

    Raises:
        InputError: If it cannot be read, or is not what was planned.
        OutputError: If its result cannot be held by the format asked for, or has no
            place to go any more.
    """
    require_room(job, makes_folder=options.run is not None)
    with open_picture(
        job.source.content,
        name=job.source.name,
        frame=job.frame,
        keep_metadata=options.keep_metadata,
        by_box=job.is_large,
    ) as opened:
        if levels is not None:
            opened.levels = levels
        for number, region in enumerate(regions):
            whole = opened.info.height, opened.info.width
            if region is not None and region.whole != whole:
                raise InputError(f"{job.source.name} has changed meanwhile")
            picture = opened.read(None if region is None else region.padded)
            _check_held(job, picture)
            yield Piece(
                job=job,
                region=region,
                number=number,
                count=len(regions),
                picture=picture,
            )


def _check_held(job: Job, picture: Picture) -> None:
    """Refuse what the format asked for would lose.

    Raises:
        OutputError: If it would lose any.
    """
    entry, lost = FORMATS[job.format], ""
    if not entry.alpha and picture.is_transparent:
        lost = "no transparency; choose png"
    elif picture.depth == 32 and entry.depth < 32 and picture.levels != (0, 1):
        lost = "no values outside of 0 to 1; choose tiff"
    if lost:
        name = job.source.name
        raise OutputError(f"{name} cannot be written: {entry.title} holds {lost}")


def enlarge(piece: Piece, upscaler: Upscaler, progress: Progress = SILENT) -> Piece:
    """The piece enlarged.

    Raises:
        SrcliError: As `Upscaler.enlarge`.
    """
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
    sizes = f"{source.width}x{source.height} to {larger.width}x{larger.height} pixels"
    facts = {
        "Model": upscaler.name,
        "Enlarged by": steps,
        "Size": sizes,
        "Computed": f"in {stats.seconds:.1f} s on {stats.device} in {stats.precision}",
    }
    return replace(made, source=source, facts=facts)


def write_piece(piece: Piece, options: FileOptions) -> Result:
    """Write an enlarged picture, and the page beside it.

    Raises:
        OutputError: If it cannot be written.
    """
    job, picture, entry = piece.job, piece.picture, FORMATS[piece.job.format]
    if picture.depth > entry.depth:
        log.warning(
            "%s: %s holds %d bits a channel at most: reduced to them",
            job.source.name, entry.title, entry.depth,
        )  # fmt: skip
        picture = reduce_depth(picture, entry.depth)
    if job.output is None:
        data = encode_picture(picture, job.format, options.quality)
        size = len(data)
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error
    else:
        size = write_picture(
            picture,
            job.output,
            format=job.format,
            quality=options.quality,
            replace=job.may_replace,
            run=options.run,
        )
    if job.page is not None and piece.source is not None:
        # It imports torch, which workers that only write do without.
        from srcli.pages.comparison import write_comparison  # noqa: PLC0415

        title, facts = job.source.name, piece.facts or {}
        write_comparison(
            piece.source, piece.picture, job.page, title=title, facts=facts
        )
    return Result.of_work(job, piece.stats, size, picture.width, picture.height)


class LargeFile:
    """The tiled BigTIFF of a result that is larger than memory; not thread-safe.

    Of one that is closed before all of its regions are there, nothing is left.
    """

    def __init__(self, job: Job, options: FileOptions, regions: int) -> None:
        """Begin with no file yet.

        Args:
            job: Open, and `is_large`.
            options: How the result is written.
            regions: How many it has.
        """
        self._job, self._options, self._left = job, options, regions
        self._stats: RunStats | None = None
        self._stack = ExitStack()
        self._file: IO[bytes]
        self._tiles: TileWriter

    def add(self, piece: Piece) -> Result | None:
        """Write an enlarged region; they may come in any order.

        Returns:
            What became of the job, once the last one is there.

        Raises:
            OutputError: If the file cannot be written.
        """
        job, region, stats = self._job, piece.region, piece.stats
        assert job.output is not None
        assert region is not None
        assert stats is not None
        try:
            if self._stats is None:
                self._open(piece.picture, region.size)
            target = region.target
            self._tiles.add(target.top, target.left, join_planes(piece.picture))
            self._stats = self._stats.followed_by(stats) if self._stats else stats
            self._left -= 1
            if self._left:
                return None
            self._tiles.finish()
            size = self._file.seek(0, 2)
        except OSError as error:
            detail = explain(error)
            raise OutputError(f"{job.output} cannot be written: {detail}") from error
        self._stack.close()
        return Result.of_work(job, self._stats, size, job.width, job.height)

    def close(self) -> None:
        """Leave nothing of a file that is not whole."""
        cut = OutputError("not all of it is there")
        self._stack.__exit__(type(cut), cut, None)

    def _open(self, part: Picture, size: tuple[int, int]) -> None:
        job, run = self._job, self._options.run
        assert job.output is not None
        whole = write_whole(job.output, replace=job.may_replace, run=run)
        self._file = self._stack.enter_context(
            self._stack.enter_context(whole).open("w+b")
        )
        colours = part.pixels.shape[2]
        metadata = fit_metadata(
            part.metadata, "tiff", colours, size[::-1], job.source.name
        )
        channels = colours + (part.alpha is not None)
        dtype = part.pixels.dtype
        self._tiles = TileWriter(self._file, size, channels, dtype, metadata)
