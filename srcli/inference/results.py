"""What became of the jobs of a batch, and what that amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from srcli.errors import PartialFailureError, SrcliError
from srcli.inference.estimate import Estimate
from srcli.inference.jobs import Job
from srcli.inference.sources import STREAM
from srcli.storage import Place


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
            "error": None if self.error is None else str(self.error),
        }


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


def _show(path: Place | None) -> str:
    """A path as text that any stream can take; "-" for standard input or output."""
    if path is None:
        return STREAM
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
