"""A bulk run from its orders to its results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import ray

from srcli.bulk.cluster import joined
from srcli.bulk.engine import Pool, enlarge_orders
from srcli.bulk.orders import Order, find_homes
from srcli.bulk.stages import Large, Work
from srcli.errors import DeviceError, UsageError
from srcli.inference.batch import announce
from srcli.inference.results import Result, Tally
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
    run = work.options.run
    assert run is not None, "workers that write the same file must know of each other"
    try:
        with joined(cluster.address):
            yield from _work(orders, work, cluster, progress)
    finally:
        # The workers are gone: what they have left, nobody goes on with.
        sweep(find_homes(orders, work.naming, work.folder), run)


def _work(
    orders: Sequence[Order], work: Work, cluster: Cluster, progress: Progress
) -> Generator[Result, None, None]:
    pool = cluster.choose_pool()
    sharers = 1 if pool.on_gpu else cluster.count_sharers()
    work = dataclasses.replace(work, on_gpu=pool.on_gpu, sharers=sharers)
    rate = _Rate(progress, len(orders))
    large = []
    with closing(enlarge_orders(orders, work, pool)) as states:
        for state in states:
            if isinstance(state, Large):
                large.append(state.job)
            else:
                yield rate.count(announce(state, len(orders)))
    for job in large:
        from srcli.bulk.large import enlarge_by_region  # noqa: PLC0415 - torch

        result = enlarge_by_region(job, work, pool, progress)
        yield announce(result, len(orders))


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
