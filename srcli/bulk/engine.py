"""The engine of many machines: the jobs of the local one, done on a Ray cluster."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from srcli.bulk.cluster import joined
from srcli.bulk.orders import Order, find_homes, take_orders
from srcli.bulk.steps import RegionOrder, Work
from srcli.bulk.stream import PASSES, Pool, stream
from srcli.errors import DeviceError, InputError, UsageError
from srcli.imaging.files import open_picture
from srcli.inference.batch import Piece, ResultFile, attempt
from srcli.inference.jobs import Job, Result, Tally, announce, prepare_folders
from srcli.inference.naming import Naming
from srcli.inference.sources import Source
from srcli.progress import SILENT, Progress
from srcli.writing import sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a run is done.

    Attributes:
        address: As `joined`.
        workers: The most workers that enlarge; None is what there is room for.
        device: What each has: "cpu" (a core each), "cuda" (a GPU each), or "auto": GPUs
            where the cluster has any.
    """

    address: str | None = None
    workers: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(
                f"--engine ray takes --device auto, cpu or cuda, not {self.device}"
            )

    def choose_pool(self) -> Pool:
        """The workers, on the cluster that was joined.

        Raises:
            DeviceError: If GPUs are asked for and it has none.
        """
        gpus = ray.cluster_resources().get("GPU", 0)
        if self.device == "cuda" and not gpus:
            raise DeviceError("the Ray cluster has no GPU: use --device cpu or auto")
        return Pool(self.workers, on_gpu=self.device != "cpu" and gpus >= 1)

    def count_sharers(self) -> int:
        """The most workers that there can be on one machine of the cluster."""
        each = max(
            (node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"]),
            default=1,
        )
        return max(1, min(int(each), self.workers or int(each)))


def enlarge_sources(
    sources: Sequence[Source],
    naming: Naming,
    cluster: Cluster,
    upscaler: dict[str, Any],
    weights: Path | None = None,
    progress: Progress = SILENT,
) -> Generator[Result, None, None]:
    """Enlarge pictures on a cluster, giving each result once it is written.

    Args:
        sources: As `expand_inputs` gives them.
        naming: How results are named and written.
        cluster: Where.
        upscaler: The fields of `Upscaler`, `weights` and `device` apart.
        weights: A weight file, of which workers get a copy.
        progress: Told of pictures, and of how many a second.

    Raises:
        SrcliError: As `take_orders` and `run_bulk`, or if the model, its weights or the
            factor are not valid; then nothing has been touched.
    """
    naming, orders = take_orders(sources, naming)
    try:
        copied = None if weights is None else (weights.name, weights.read_bytes())
    except OSError as error:
        raise InputError(f"{weights} cannot be read: {error.strerror}") from error
    naming = dataclasses.replace(naming, run=uuid.uuid4().hex[:12])
    work = Work(naming=naming, upscaler=upscaler, weights=copied)
    work.make_planner()
    prepare_folders(find_homes(orders, naming))
    yield from run_bulk(orders, work, cluster, progress)


def run_bulk(
    orders: Sequence[Order],
    work: Work,
    cluster: Cluster,
    progress: Progress = SILENT,
) -> Generator[Result, None, None]:
    """Do the orders, giving each result as soon as it is written, in no order.

    Args:
        orders: As `take_orders` gives them.
        work: What all workers know.
        cluster: Where.
        progress: Told of pictures, and of how many a second.

    Raises:
        DeviceError: If the cluster cannot be joined, or has not what is asked for.
        SrcliError: If a worker can enlarge no picture at all.
    """
    run = work.naming.run
    assert run is not None, "workers that write the same file must know of each other"
    try:
        with joined(cluster.address):
            pool = cluster.choose_pool()
            sharers = 1 if pool.on_gpu else cluster.count_sharers()
            work = dataclasses.replace(work, on_gpu=pool.on_gpu, sharers=sharers)
            yield from _do_all(orders, work, pool, progress)
    finally:
        # The workers are gone: what they have left, nobody goes on with.
        sweep(find_homes(orders, work.naming), run)


def _do_all(
    orders: Sequence[Order], work: Work, pool: Pool, progress: Progress
) -> Generator[Result, None, None]:
    rate = _Rate(progress, len(orders))
    left = {order.index: order for order in orders}
    large = []
    with closing(stream(left.copy(), work, pool, writes=True)) as states:
        for index, state in states:
            del left[index]
            if isinstance(state, Job):
                large.append(state)
            else:
                yield rate.count(announce(state, len(orders)))
    for order in left.values():
        job = Job(source=order.source, naming=work.naming)
        result = Result(job, "failed", error=_lost(order.source.name))
        yield rate.count(announce(result, len(orders)))
    for job in large:
        result = attempt(job, do_large, job, work, pool, progress)
        yield announce(result, len(orders))


def do_large(job: Job, work: Work, pool: Pool, progress: Progress = SILENT) -> Result:
    """Do a large job on the cluster that was joined; this process writes the result.

    Args:
        job: Open, and `is_large`.
        work: What all workers know.
        pool: The workers.
        progress: Told of regions.

    Raises:
        SrcliError: What kept a region from being read, enlarged or written.
    """
    assert job.info is not None
    regions = work.make_planner().plan_regions(job.info)
    progress.start(job.source.name, len(regions))
    with open_picture(
        job.source.content,
        name=job.source.name,
        frame=job.naming.frame,
        keep_metadata=job.naming.keep_metadata,
        by_box=True,
    ) as opened:
        levels = opened.levels
    count = len(regions)
    orders = {i: RegionOrder(job, r, levels, count) for i, r in enumerate(regions)}
    with (
        closing(ResultFile(job)) as file,
        closing(stream(orders, work, pool, writes=False)) as states,
    ):
        for _, state in states:
            if not isinstance(state, Piece):
                return state
            progress.advance()
            result = file.add(state)
            if result is not None:
                return result
    raise _lost(f"{job.source.name}, or a part of it")


def _lost(name: str) -> DeviceError:
    return DeviceError(f"{name}: the cluster has lost it {PASSES} times")


class _Rate:
    """Tells the progress how many pictures and megapixels are done a second."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._tally = Tally()
        self._started = time.monotonic()
        progress.start("upscaling", total)

    def count(self, result: Result) -> Result:
        """One more result, given back."""
        self._tally.add(result)
        seconds = max(time.monotonic() - self._started, 1e-3)
        pictures = self._tally.total / seconds
        megapixels = self._tally.pixels / seconds / 1e6
        self._progress.advance()
        self._progress.note(f"{pictures:.1f} pictures/s, {megapixels:.2f} MP/s")
        return result
