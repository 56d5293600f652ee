"""A preview of a batch: the time and memory that it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import psutil

from srcli.imaging.resize import imresize
from srcli.inference.cost import Cost
from srcli.inference.jobs import Job, Result, announce, check_space
from srcli.inference.upscaler import Upscaler

_SAMPLE = 64  # px; side of the picture that a bicubic step is timed on
# Bytes that a picture takes that is enlarged by region, however large: measured.
_LARGE_BYTES = 600_000_000


def preview_batch(
    jobs: Sequence[Job], upscaler: Upscaler | None
) -> tuple[list[Result], Cost]:
    """What `run_batch` would begin with, and what all of it will take.

    The networks are timed on this device on tiles of random pixels, which takes about a
    second. Results of open jobs are "planned"; where there are none, there need not be
    an upscaler.

    Raises:
        OutputError: If there is no room for the results.
    """
    check_space(jobs)
    pace = _time_bicubic()
    needs = [
        _measure(job, upscaler, pace) if upscaler and job.is_open else (0.0, 0)
        for job in jobs
    ]
    program = psutil.Process().memory_info().rss  # with the networks, which have run
    sizes = [(0, 0), *map(_count_bytes, jobs), (0, 0)]
    results, costs = [], []
    for index, (job, (seconds, need)) in enumerate(zip(jobs, needs, strict=True)):
        if job.settled is not None:
            results.append(announce(job.settled, len(jobs)))
            continue
        # Meanwhile the picture before is written and the next is read.
        memory = program + sizes[index][1] + need + sizes[index + 2][0]
        costs.append(Cost(seconds, memory, job.room))
        results.append(Result(job, "planned", estimate=costs[-1]))
    total = Cost(
        sum(cost.seconds for cost in costs),
        max((cost.memory for cost in costs), default=0),
        sum(cost.bytes for cost in costs),
    )
    return results, total


def _measure(job: Job, upscaler: Upscaler, pace: float) -> tuple[float, int]:
    """Seconds, and bytes beside the program, of the picture of an open job."""
    info = job.info
    assert info is not None
    height, width = info.height, info.width
    own, result = _count_bytes(job)
    seconds, peak, tile, source = 0.0, 0, 0, own
    for runner in upscaler.runners(height, width):
        seconds += runner.estimate_seconds(height, width)
        tile = max(tile, runner.estimate_memory(height, width))
        height, width = height * runner.scale, width * runner.scale
        made = height * width * info.pixel_bytes
        peak, source = max(peak, source + made), made
    if (height, width) != (job.height, job.width):
        seconds += pace * job.width * job.height
        peak = max(peak, source + result)
    return seconds, _LARGE_BYTES if job.is_large else own + peak + tile


def _time_bicubic() -> float:
    """Seconds that a bicubic step takes for each pixel that it makes."""
    pixels = np.zeros((_SAMPLE, _SAMPLE, 3), np.uint8)
    started = time.perf_counter()
    made = imresize(pixels, 4)
    return (time.perf_counter() - started) * 3 / made.size


def _count_bytes(job: Job) -> tuple[int, int]:
    """Bytes of the pictures that an open job reads and makes, else 0."""
    if job.info is None or not job.is_open:
        return 0, 0
    size, bytes_each = job.info.width * job.info.height, job.info.pixel_bytes
    return size * bytes_each, job.width * job.height * bytes_each
