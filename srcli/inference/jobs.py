"""Jobs, a picture to enlarge each, and their results.

Everything that can be known without decoding a picture is checked here, before any work
begins: nothing is written, and nothing is half done, when a name is refused.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from srcli.errors import (
    InputError,
    OutputError,
    PartialFailureError,
    SrcliError,
    UsageError,
)
from srcli.imaging.files import probe_picture
from srcli.imaging.formats import FORMATS
from srcli.imaging.picture import PictureInfo
from srcli.imaging.pillow import MAX_PIXELS
from srcli.inference.cost import Cost, RunStats
from srcli.inference.naming import Existing, Naming
from srcli.inference.sources import STREAM, Source
from srcli.storage import Place, find_existing, show_message, show_path
from srcli.units import format_bytes
from srcli.writing import check_name

log = logging.getLogger(__name__)

LARGE = 1 << 30  # bytes of a result from which on it is made by region

# Bytes of a file in shares of those of its pixels, for enlarged photographs at x4: ten
# of the benchmark sets, AVIF taken to be as WebP.
_SHARES = {"png": 0.25, "tiff": 0.28, "jpg": 0.08, "webp": 0.04, "avif": 0.04}
_DEEP_SHARE = 0.8  # of 16 bits and more, whose last bits are noise
# Bytes a pixel of the result over those of the input: the same picture, smoother, as
# JPEG of quality 95 where it was one of quality 80.
_LOSSY = ("jpg", "webp", "avif")
_GROWTH = ((0.6, 0.4), (4.0, 1.3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to enlarge."""

    source: Source
    naming: Naming
    output: Place | None = None  # None is standard output, or that `error` is set
    format: str = "png"  # a key of `FORMATS`
    width: int = 0  # px of the result
    height: int = 0
    info: PictureInfo | None = None  # of the source; None where `error` is set
    room: int = 0  # bytes that the result's file will take, about
    is_large: bool = False  # larger than memory: enlarged by region
    page: Place | None = None  # where a comparison goes
    is_done: bool = False  # the result is there already and shall stay
    error: SrcliError | None = None  # why nothing can come of it

    @property
    def is_open(self) -> bool:
        """Whether there is anything to do."""
        return not self.is_done and self.error is None

    @property
    def settled(self) -> Result | None:
        """The result where there is nothing to do."""
        if self.error is not None:
            return Result(self, "failed", error=self.error)
        return Result(self, "skipped") if self.is_done else None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one job."""

    job: Job
    status: Literal["done", "skipped", "failed", "planned"]
    stats: RunStats | None = None  # of enlarging, without reading and writing
    bytes: int | None = None  # of the file
    estimate: Cost | None = None  # of a planned one
    error: SrcliError | None = None

    @property
    def input(self) -> str:
        """The file that was read, "-" for standard input."""
        return _show(self.job.source.path)

    @property
    def output(self) -> str | None:
        """The file that is there now, "-" for standard output; None where none is."""
        return None if self.error is not None else _show(self.job.output)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        job, stats, error = self.job, self.stats, self.error
        is_sized = self.status in ("done", "planned")
        return {
            "input": self.input,
            "output": self.output,
            "status": self.status,
            "width": job.width if is_sized else None,
            "height": job.height if is_sized else None,
            "seconds": stats and round(stats.seconds, 3),
            "device": stats and stats.device,
            "precision": stats and stats.precision,
            "tiles": stats and stats.tiles,
            "bytes": self.bytes,
            "comparison": job.page and _show(job.page) if error is None else None,
            "estimate": self.estimate and self.estimate.as_dict(),
            "error": None if error is None else show_message(str(error)),
        }


@dataclass(slots=True)
class Tally:
    """The counts of a batch's results, however many."""

    total: int = 0
    failed: int = 0
    pixels: int = 0  # of what was done
    _errors: dict[type[SrcliError], SrcliError] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Count one more result."""
        self.total += 1
        if result.error is not None:
            self.failed += 1
            self._errors.setdefault(type(result.error), result.error)
        elif result.status == "done":
            self.pixels += result.job.width * result.job.height

    def raise_failures(self) -> None:
        """Raise what they amount to.

        Raises:
            SrcliError: The error itself if there was one job; one of the same class if
                all jobs failed in that class.
            PartialFailureError: If only some failed, or in different ways.
        """
        if not self.failed:
            return
        kind, error = next(iter(self._errors.items()))
        if self.total == 1:
            raise error
        if self.failed == self.total and len(self._errors) == 1:
            raise kind(f"all {self.total} inputs failed")
        raise PartialFailureError(f"{self.failed} of {self.total} inputs failed")


def announce(result: Result, jobs: int) -> Result:
    """The result; logs why its job was left out, or, if not the only one, failed."""
    if result.status == "skipped":
        log.info("%s exists: skipped", result.output)
    if result.error is not None and jobs > 1:
        log.error("%s", result.error)
    return result


def _show(path: Place | None) -> str:
    """A path as texts have it; "-" for standard input or output."""
    return STREAM if path is None else show_path(path)


def plan_jobs(sources: Sequence[Source], naming: Naming) -> list[Job]:
    """What is to be done, a job for each source in order; touches nothing.

    A source that cannot be read, or whose result no file can hold, has its error in its
    job.

    Raises:
        UsageError: If `naming` does not fit the sources or contradicts itself.
        InputError: If every picture of the folders is an earlier result.
        OutputError: If two results would share a name, a result would replace a source,
            or results are there already and `naming.existing` is "refuse".
    """
    try:
        naming, kept = choose_sources(sources, naming)
        jobs = [plan_job(source, naming) for source in kept]
        check_names(jobs, kept)
        return check_existing(jobs, naming.existing)
    except OSError as error:  # a folder on the way may not be looked into
        reason = error.strerror or str(error)
        raise OutputError(f"{error.filename} cannot be written: {reason}") from error


def choose_sources(
    sources: Sequence[Source], naming: Naming
) -> tuple[Naming, list[Source]]:
    """The naming for the sources, and the sources without earlier results among them.

    Raises:
        SrcliError: As `Naming.for_sources`; an InputError if nothing is left.
    """
    naming = naming.for_sources(sources)
    kept = naming.drop_earlier(sources)
    if len(kept) < len(sources):
        log.info("%d earlier results are left out", len(sources) - len(kept))
    if not kept:
        raise InputError("every picture found is an earlier result: nothing to do")
    return naming, kept


def plan_job(source: Source, naming: Naming) -> Job:
    """The job for one source; what is wrong with it alone is in its `error`.

    Raises:
        UsageError: If `naming` contradicts itself.
    """
    try:
        if source.error is not None:
            raise source.error
        info = probe_picture(source.content, name=source.name, frame=naming.frame)
        size = naming.goal.size(info.height, info.width)
        format = naming.choose_format(source, info, size)
        output = naming.name_output(source, info, size, format)
        page = None
        if output is not None:
            if naming.compare:
                page = output.with_name(f"{output.name}.html")
            check_name(page or output)
        by_region = is_large(info, format, *size)
        if by_region and (naming.compare or output is None):
            what = "page: leave --compare out" if output else "stream: choose -o FILE"
            raise OutputError(f"{source.name} is too large for a {what}")
    except SrcliError as error:
        return Job(source=source, naming=naming, error=error)
    if naming.compare and output is None:
        raise UsageError("a comparison goes beside a file: --compare needs -o FILE")
    return Job(
        source=source,
        naming=naming,
        output=output,
        format=format,
        width=size[1],
        height=size[0],
        info=info,
        is_large=by_region,
        page=page,
        room=estimate_room(info, format, size[0] * size[1], source.size),
    )


def is_large(info: PictureInfo, format: str, height: int, width: int) -> bool:
    """Whether a picture with such a result is enlarged by region: TIFF to TIFF."""
    if not info.is_windowed or format != "tiff":
        return False
    is_too_large = info.width * info.height > MAX_PIXELS
    return is_too_large or height * width * info.pixel_bytes > LARGE


def check_names(jobs: Iterable[Job], sources: Iterable[Source]) -> None:
    """Refuse results that would share a name or replace a source (OutputError)."""
    read = {source.path.resolve() for source in sources if source.path is not None}
    taken: dict[Place, Job] = {}
    for job in jobs:
        for output in (job.output, job.page):
            if output is None:
                continue
            place = output.resolve()
            if place in read:
                raise OutputError(
                    f"{output} is itself an input: choose another name or folder"
                )
            other = taken.setdefault(place, job)
            if other is not job:
                raise OutputError(
                    f"{other.source.name} and {job.source.name} would both become "
                    f"{output}: enlarge them into different folders"
                )


def check_existing(jobs: Sequence[Job], existing: Existing) -> list[Job]:
    """The jobs, marked where their results are there already and shall stay.

    Raises:
        OutputError: If results are there, and shall not be.
    """
    wanted = [path for job in jobs for path in (job.output, job.page) if path]
    there = find_existing(wanted)
    for output in there:
        if output.is_dir():
            raise OutputError(f"{output} is a folder: choose another name")
    if there and existing == "refuse":
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]} exists already{more}: choose --overwrite or --skip-existing"
        )
    skipped = set(there) if existing == "skip" else set()
    return [replace(job, is_done=job.output in skipped) for job in jobs]


def estimate_room(info: PictureInfo, format: str, pixels: int, read: int) -> int:
    """About how many bytes a result's file will take, give or take a factor of two.

    What takes little room now, such as a drawing, will not take much then: `read` is
    the bytes of the input's file, `pixels` are those of the result.
    """
    entry = FORMATS[format]
    depth = min(info.depth, entry.depth)
    raw = (info.channels + (info.alpha and entry.alpha)) * depth / 8
    if format == "bmp":
        return int(pixels * raw)
    share = _SHARES[format] if depth == 8 else _DEEP_SHARE
    growth = _GROWTH[info.format in _LOSSY][format in _LOSSY]
    now = read / (info.width * info.height) * growth
    return int(pixels * min(raw * share, now))


def check_space(jobs: Iterable[Job]) -> None:
    """See that the disks have room for the results, before any work begins.

    Raises:
        OutputError: If there is not even half of what they will take.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for job in jobs:
        # A store does not say how much it holds.
        if isinstance(job.output, Path) and job.is_open:
            folder = job.output.absolute().parent
            replaced = 0
            with suppress(OSError):  # none is there, or writing will tell why
                replaced = job.output.stat().st_size
            place = next(p for p in (folder, *folder.parents) if p.exists())
            device = place.stat().st_dev
            place, need = needs.get(device, (place, 0))
            needs[device] = place, need + job.room - replaced
    for place, need in needs.values():
        usage = shutil.disk_usage(place)
        free = usage.free if usage.total else math.inf  # where nobody can tell
        if need <= free:
            continue
        sizes = format_bytes(need), format_bytes(free)
        about = "the results take about {} and {} are free".format(*sizes)
        if need / 2 > free:
            raise OutputError(f"{place} has no room: {about}: choose another -o")
        log.warning("%s may have no room: %s", place, about)


def require_room(job: Job) -> None:
    """See that the folder of a result is there and has room, before it is computed.

    Raises:
        OutputError: If the folder is gone, or the disk is full.
    """
    output = job.output
    if isinstance(output, Path):
        # On Ray the folder is made with the file.
        if job.naming.run is None and not output.parent.is_dir():
            raise OutputError(f"cannot write {output}: its folder is gone")
        check_space([job])


def prepare_folders(folders: Iterable[Place]) -> None:
    """Make the folders that results go to, and see that they can be written to.

    Raises:
        OutputError: If one cannot be made or written to.
    """
    for folder in dict.fromkeys(folders):
        if not isinstance(folder, Path):
            continue  # it comes with its files
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"folder {folder} cannot be written: {reason}") from error
