"""What a batch will take, before it is begun: time and memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psutil

from srcli.imaging.resize import imresize
from srcli.inference.jobs import Job

if TYPE_CHECKING:
    from srcli.inference.upscaler import Upscaler

_SAMPLE = 64  # px; side of the picture that a bicubic step is timed on
# Bytes that a picture takes that is enlarged by region, however large: measured.
_LARGE_BYTES = 600_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one picture, or a batch, will take."""

    seconds: float  # of enlarging
    memory: int  # bytes of host memory at its peak, those of the program included
    bytes: int  # of the files written

    def as_dict(self) -> dict[str, float | int]:
        """The estimate as JSON values."""
        seconds = round(self.seconds, 3)
        return {"seconds": seconds, "memory": self.memory, "bytes": self.bytes}


def estimate_batch(
    jobs: Sequence[Job], upscaler: Upscaler
) -> tuple[list[Estimate | None], Estimate]:
    """What each job will take, None where nothing is to be done; and all of them.

    The networks are timed on this device on tiles of random pixels, which takes about a
    second. While a picture is enlarged, the one before is written and the next is read:
    all three are in memory.

    Args:
        jobs: As `plan_jobs` gives them.
        upscaler: What would enlarge them.
    """
    paces = _Paces(upscaler)
    seconds = [paces.seconds(job) for job in jobs]
    base = psutil.Process().memory_info().rss
    estimates: list[Estimate | None] = []
    for index, job in enumerate(jobs):
        if not job.is_open:
            estimates.append(None)
            continue
        before = _result_bytes(jobs[index - 1]) if index else 0
        after = _input_bytes(jobs[index + 1]) if index + 1 < len(jobs) else 0
        memory = base + before + paces.memory(job) + after
        estimates.append(Estimate(seconds[index], memory, job.room))
    made = [estimate for estimate in estimates if estimate is not None]
    total = Estimate(
        sum(estimate.seconds for estimate in made),
        max((estimate.memory for estimate in made), default=0),
        sum(estimate.bytes for estimate in made),
    )
    return estimates, total


class _Paces:
    """How fast the networks of an upscaler are, measured once each."""

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler
        self._bicubic: float | None = None

    def seconds(self, job: Job) -> float:
        """Of enlarging the picture of an open job, else 0."""
        if not job.is_open or job.info is None:
            return 0.0
        height, width = job.info.height, job.info.width
        seconds = 0.0
        for runner in self._upscaler.runners(height, width):
            seconds += runner.estimate_seconds(height, width)
            height, width = height * runner.scale, width * runner.scale
        if (height, width) != (job.height, job.width):
            seconds += self._step_seconds() * job.width * job.height
        return seconds

    def memory(self, job: Job) -> int:
        """Bytes that the picture of an open job takes beside the program."""
        assert job.info is not None
        if job.is_large:
            return _LARGE_BYTES
        own = _input_bytes(job)
        each = own // (job.info.width * job.info.height)
        height, width, peak, tile = job.info.height, job.info.width, 0, 0
        source = own
        for runner in self._upscaler.runners(height, width):
            tile = max(tile, runner.estimate_memory(height, width))
            height, width = height * runner.scale, width * runner.scale
            made = height * width * each
            peak, source = max(peak, source + made), made
        if (height, width) != (job.height, job.width):
            peak = max(peak, source + _result_bytes(job))
        return own + peak + tile

    def _step_seconds(self) -> float:
        """Seconds that a bicubic step takes for each pixel that it makes."""
        if self._bicubic is None:
            pixels = np.zeros((_SAMPLE, _SAMPLE, 3), np.uint8)
            started = time.perf_counter()
            made = imresize(pixels, 4)
            self._bicubic = (time.perf_counter() - started) * 3 / made.size
        return self._bicubic


def _input_bytes(job: Job) -> int:
    """Bytes of the picture that an open job reads, else 0."""
    info = job.info
    if not job.is_open or info is None:
        return 0
    return info.width * info.height * (info.channels + info.alpha) * info.depth // 8


def _result_bytes(job: Job) -> int:
    """Bytes of the picture that an open job makes, else 0."""
    info = job.info
    if not job.is_open or info is None:
        return 0
    return _input_bytes(job) // (info.width * info.height) * job.width * job.height
