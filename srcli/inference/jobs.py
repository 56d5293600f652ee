"""Pictures to enlarge, what becomes of each, and what that amounts to."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from srcli.errors import PartialFailureError, SrcliError
from srcli.imaging.picture import PictureInfo
from srcli.inference.sources import STREAM, Source
from srcli.storage import Place, show_message, show_path

if TYPE_CHECKING:  # they import torch
    from srcli.inference.estimate import Cost
    from srcli.inference.stats import RunStats

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to enlarge.

    Attributes:
        source: What is read.
        output: The file to write; None is standard output, or that `error` is set.
        format: A key of `FORMATS`.
        width: Of the result, in pixels.
        height: Of the result, in pixels.
        info: What the header of the source says; None where `error` is set.
        frame: Which of several frames is read, from 1; None is the only one.
        room: Bytes that its file will take, about.
        is_large: Whether it is enlarged by region, as it is larger than memory.
        page: Where a comparison goes; None is nowhere.
        may_replace: Whether what is there by then may be replaced.
        is_done: Whether the result is there already and shall stay.
        error: Why nothing can come of it.
    """

    source: Source
    output: Place | None = None
    format: str = "png"
    width: int = 0
    height: int = 0
    info: PictureInfo | None = None
    frame: int | None = None
    room: int = 0
    is_large: bool = False
    page: Place | None = None
    may_replace: bool = False
    is_done: bool = False
    error: SrcliError | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is anything to do."""
        return not self.is_done and self.error is None


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
    bytes: int | None = None  # of the file
    estimate: Cost | None = None  # of a planned one
    error: SrcliError | None = None

    @classmethod
    def of_settled(cls, job: Job) -> Result | None:
        """The result of a job that nothing is to be done for, else None."""
        if job.error is not None:
            return cls.of_failure(job, job.error)
        return cls(job=job, status="skipped") if job.is_done else None

    @classmethod
    def of_failure(cls, job: Job, error: SrcliError) -> Result:
        """The result of a job that nothing came of."""
        return cls(job=job, status="failed", error=error)

    @classmethod
    def of_plan(cls, job: Job, estimate: Cost) -> Result:
        """The result of an open job that is only looked at."""
        width, height = job.width, job.height
        return cls(
            job=job, status="planned", width=width, height=height, estimate=estimate
        )

    @classmethod
    def of_work(
        cls, job: Job, stats: RunStats | None, size: int, width: int, height: int
    ) -> Result:
        """The result of a job that is done.

        Args:
            job: The job.
            stats: What enlarging took.
            size: Bytes of the file.
            width: Of the picture in it, in pixels.
            height: Of it.
        """
        assert stats is not None
        return cls(
            job=job,
            status="done",
            width=width,
            height=height,
            seconds=stats.seconds,
            device=stats.device,
            precision=stats.precision,
            tiles=stats.tiles,
            bytes=size,
        )

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

    @property
    def comparison(self) -> str | None:
        """The page beside the file; None where none was asked for or made."""
        if self.error is not None or self.job.page is None:
            return None
        return _show(self.job.page)

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
            "bytes": self.bytes,
            "comparison": self.comparison,
            "estimate": None if self.estimate is None else self.estimate.as_dict(),
            "error": None if self.error is None else show_message(str(self.error)),
        }


@dataclass(slots=True)
class Tally:
    """What the results of a batch, however many, amount to."""

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
            self.pixels += (result.width or 0) * (result.height or 0)

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
    """Log why a job was left out, or failed; a lone error is left to the caller.

    Returns:
        The result.
    """
    if result.status == "skipped":
        log.info("%s exists: skipped", result.output)
    if result.error is not None and jobs > 1:
        log.error("%s", result.error)
    return result


def _show(path: Place | None) -> str:
    """A path as texts have it; "-" for standard input or output."""
    return STREAM if path is None else show_path(path)
