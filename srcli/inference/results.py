"""What became of the jobs of a batch, and what that amounts to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from srcli.errors import PartialFailureError, SrcliError
from srcli.inference.jobs import Job
from srcli.inference.sources import STREAM
from srcli.storage import Place, show_message, show_path

if TYPE_CHECKING:
    from srcli.inference.estimate import Estimate  # imports torch


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
    estimate: Estimate | None = None  # of a planned one
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


def raise_failures(results: Iterable[Result]) -> None:
    """Raise what the results amount to; see `Tally.raise_failures`."""
    tally = Tally()
    for result in results:
        tally.add(result)
    tally.raise_failures()


def _show(path: Place | None) -> str:
    """A path as texts have it; "-" for standard input or output."""
    return STREAM if path is None else show_path(path)
