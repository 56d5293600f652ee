"""The engine of many machines: the jobs of the local one, streamed by Ray Data.

A block of orders is read by a task, enlarged by one of a pool of workers that hold the
networks, and written by a task. Ray holds reading back where enlarging is behind, moves
a picture between machines where that is needed, and does again what was lost with a
worker or a machine. A picture that ends its worker is tried again, and then given up,
so that it stops no other.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from srcli.bulk.cluster import joined
from srcli.bulk.orders import Order, take_orders
from srcli.bulk.steps import (
    RegionOrder,
    Work,
    Worker,
    pack,
    read_pictures,
    unpack,
    write_pictures,
)
from srcli.errors import DeviceError, InputError, SrcliError, UsageError
from srcli.inference.batch import Piece, ResultFile, attempt, open_source
from srcli.inference.jobs import Job, Result, Tally, announce, prepare_folders
from srcli.inference.naming import Naming
from srcli.inference.sources import Source
from srcli.progress import SILENT, Progress
from srcli.writing import sweep

log = logging.getLogger(__name__)

# A block of small pictures saves messages; one of large pictures would fill memory.
_BLOCK_PICTURES, _BLOCK_BYTES = 64, 1 << 16
_SENT_BYTES = 1 << 20  # of results, that go on together
_PASSES = 3  # over what has been lost with machines
# CPUs of a worker and of a task that reads or writes. On CPUs the tasks find room
# beside the workers, one of which there is for each CPU.
_CPU_SHARES, _GPU_SHARES = (0.9, 0.1), (1.0, 1.0)


def enlarge_sources(
    sources: Sequence[Source],
    naming: Naming,
    upscaler: Mapping[str, Any],
    *,
    address: str | None = None,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> Generator[Result, None, None]:
    """Enlarge pictures on a cluster, giving each result as soon as it is written.

    Args:
        sources: As `expand_inputs` gives them.
        naming: How results are named and written.
        upscaler: The fields of `Upscaler`. The device is what each worker has: "cpu" (a
            core), "cuda" (a GPU), or "auto" (a GPU if the cluster has any).
        address: Of the cluster, as `joined`.
        workers: That enlarge, at most; None is as many as have room.
        progress: Told of pictures, and of how many a second.

    Raises:
        SrcliError: As `take_orders`, or if the model, its weights or the factor are not
            valid, or the cluster cannot be joined; then nothing has been touched. If a
            worker can enlarge no picture at all.
    """
    fields = dict(upscaler)
    weights, device = fields.pop("weights", None), fields.pop("device", "auto")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--engine ray takes --device auto, cpu or cuda, not {device}")
    naming, orders = take_orders(sources, naming)
    try:
        copied = None if weights is None else (weights.name, weights.read_bytes())
    except OSError as error:
        raise InputError(f"{weights} cannot be read: {error.strerror}") from error
    run = uuid.uuid4().hex[:12]
    named = replace(naming, run=run)
    work = Work(naming=named, upscaler=fields, weights=copied, workers=workers)
    work.make_planner()
    homes = list(dict.fromkeys(order.home for order in orders))
    prepare_folders(homes)
    try:
        with joined(address):
            yield from _do_all(orders, _fit(work, device), progress)
    finally:
        # The workers are gone: what they have left, nobody goes on with.
        sweep(homes, run)


def _fit(work: Work, device: str) -> Work:
    """The work, with what each worker has on the cluster that was joined."""
    gpus = ray.cluster_resources().get("GPU", 0)
    if device == "cuda" and not gpus:
        raise DeviceError("the Ray cluster has no GPU: use --device cpu or auto")
    if device != "cpu" and gpus >= 1:
        return replace(work, on_gpu=True)
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((int(each.get("CPU", 1)) for each in machines), default=1)
    return replace(work, sharers=max(1, min(most, work.workers or most)))


def _do_all(
    orders: Sequence[Order], work: Work, progress: Progress
) -> Generator[Result, None, None]:
    left = {order.index: order for order in orders}
    large, tally, started = [], Tally(), time.monotonic()
    progress.start("upscaling", len(orders))
    with closing(stream(left.copy(), work, writes=True)) as states:
        for index, state in states:
            del left[index]
            if isinstance(state, Job):
                large.append(state)
                continue
            tally.add(state)
            seconds = max(time.monotonic() - started, 1e-3)
            rate, area = tally.total / seconds, tally.pixels / seconds / 1e6
            progress.advance()
            progress.note(f"{rate:.1f} pictures/s, {area:.2f} MP/s")
            yield announce(state, len(orders))
    for order in left.values():
        job = Job(source=order.source, naming=work.naming)
        failed = Result(job, "failed", error=_lost(order.source.name))
        yield announce(failed, len(orders))
    for job in large:
        yield announce(attempt(job, do_large, job, work, progress), len(orders))


def do_large(job: Job, work: Work, progress: Progress = SILENT) -> Result:
    """Do a large job on the cluster that was joined; this process writes the result.

    Raises:
        SrcliError: What kept a region from being read, enlarged or written.
    """
    assert job.info is not None
    regions = work.make_planner().plan_regions(job.info)
    count = len(regions)
    progress.start(job.source.name, count)
    with open_source(job) as opened:
        levels = opened.levels
    orders = {i: RegionOrder(job, r, count, levels) for i, r in enumerate(regions)}
    with (
        closing(ResultFile(job)) as file,
        closing(stream(orders, work, writes=False)) as states,
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
    return DeviceError(f"{name}: the cluster has lost it {_PASSES} times")


def stream(
    orders: Mapping[int, Order | RegionOrder], work: Work, *, writes: bool
) -> Generator[tuple[int, Any], None, None]:
    """What becomes of the orders, by their indices, unless they are lost several times.

    If the workers write, results come as they are done; else the enlarged pieces come,
    in order but for some that were lost.

    Raises:
        SrcliError: If a worker can enlarge no picture at all.
    """
    left = dict(orders)
    for number in range(_PASSES):
        blocks = _make_blocks(left, one_by_one=number > 0 or not writes)
        for index, state in _stream_blocks(blocks, work, writes=writes):
            if left.pop(index, None) is not None:  # or it is done twice
                yield index, state
        if not left:
            return
        log.debug("%d pictures were lost on their way", len(left))


def _make_blocks(
    orders: Mapping[int, Order | RegionOrder], *, one_by_one: bool
) -> list[Any]:
    """Tables of orders."""
    blocks: list[list[tuple[int, Any]]] = []
    size = _BLOCK_BYTES
    for index, order in orders.items():
        if one_by_one or size >= _BLOCK_BYTES or len(blocks[-1]) >= _BLOCK_PICTURES:
            blocks.append([])
            size = 0
        blocks[-1].append((index, order))
        size += order.source.size if isinstance(order, Order) else 0
    return [pack(block) for block in blocks]


def _stream_blocks(
    blocks: list[Any], work: Work, *, writes: bool
) -> Generator[tuple[int, Any], None, None]:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what is lost is told by its absence
    context.target_max_block_size = _SENT_BYTES
    context.execution_options.preserve_order = not writes
    tables = {"batch_size": None, "batch_format": "pyarrow"}
    worker_cpus, task_cpus = _GPU_SHARES if work.on_gpu else _CPU_SHARES
    room = int(ray.cluster_resources().get("GPU" if work.on_gpu else "CPU", 0)) or 1
    most = min(len(blocks), work.workers or len(blocks))
    pool = ActorPoolStrategy(min_size=1, max_size=most, initial_size=min(room, most))
    here = ray.get_runtime_context().get_node_id()
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts)
    beside = NodeAffinitySchedulingStrategy(here, soft=True)
    counter = attempts.options(scheduling_strategy=beside).remote()
    begin = partial(_count_attempt, counter)
    pictures = (
        ray.data.from_arrow(blocks)
        .map_batches(partial(read_pictures, work=work), num_cpus=task_cpus, **tables)
        .map_batches(
            Worker,
            fn_constructor_args=(work, begin),
            compute=pool,
            num_cpus=worker_cpus,
            num_gpus=1 if work.on_gpu else 0,
            **tables,
        )
    )
    if writes:
        write = partial(write_pictures, work=work)
        pictures = pictures.map_batches(write, num_cpus=task_cpus, **tables)
    for table in pictures.iter_batches(**tables):
        for index, state in unpack(table):
            if isinstance(state, SrcliError):
                raise state
            yield index, state


class Attempts:
    """An actor that counts how often each picture has been begun.

    It lives beside this process, whose machine outlives all others of the run.
    """

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, index: int) -> int:
        """How often it has been begun, this time included."""
        self._begun[index] += 1
        return self._begun[index]


def _count_attempt(attempts: Any, index: int) -> int:  # noqa: ANN401 - an actor of Ray's
    return int(ray.get(attempts.begin.remote(index)))
