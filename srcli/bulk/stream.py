"""Ray Data streams pictures through the stages, on one machine or on many.

A block of orders is read by a task, enlarged by one of a pool of workers that hold the
networks, and written by a task. Ray holds reading back where enlarging is behind, moves
a picture between machines where that is needed, and does again what was lost with a
worker or a machine.

A picture that ends its worker is tried again, and then given up, so that it stops no
other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from srcli.bulk.orders import Order
from srcli.bulk.steps import (
    RegionOrder,
    Unable,
    Work,
    Worker,
    pack,
    read_pictures,
    unpack,
    write_pictures,
)

log = logging.getLogger(__name__)

# A block of small pictures saves messages; one of large pictures would fill memory.
_BLOCK_PICTURES, _BLOCK_BYTES = 64, 1 << 16
_SENT_BYTES = 1 << 20  # of results, that go on together
PASSES = 3  # over what has been lost with machines
# CPUs of a worker and of a task that reads or writes. On CPUs the tasks find room
# beside the workers, one of which there is for each CPU.
_CPU_SHARES, _GPU_SHARES = (0.9, 0.1), (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Pool:
    """The workers that enlarge.

    Attributes:
        largest: The most that there shall be; None is what the cluster has room for.
        on_gpu: Whether each has a GPU.
    """

    largest: int | None
    on_gpu: bool

    def strategy(self, blocks: int) -> ActorPoolStrategy:
        """A pool that has room for as many workers as there can be now, and grows.

        Args:
            blocks: That there are to work on.
        """
        unit = "GPU" if self.on_gpu else "CPU"
        room = int(ray.cluster_resources().get(unit, 0)) or 1
        most = min(blocks, self.largest or blocks)
        return ActorPoolStrategy(
            min_size=1, max_size=most, initial_size=min(room, most)
        )


def stream(
    orders: Mapping[int, Order | RegionOrder], work: Work, pool: Pool, *, writes: bool
) -> Generator[tuple[int, Any], None, None]:
    """What becomes of the orders, once each, unless they are lost `PASSES` times.

    Args:
        orders: By their indices.
        work: What all workers know.
        pool: The workers.
        writes: Whether results are written where there is room, and come as they are
            done; else the enlarged pieces come, in order but for some that were lost.

    Raises:
        SrcliError: If a worker can enlarge no picture at all.
    """
    left = dict(orders)
    for number in range(PASSES):
        blocks = _make_blocks(left, one_by_one=number > 0 or not writes)
        for index, state in _stream_blocks(blocks, work, pool, writes=writes):
            if left.pop(index, None) is not None:  # or it is done twice
                yield index, state
        if not left:
            return
        log.debug("%d pictures were lost on their way", len(left))


def _stream_blocks(
    blocks: list[Any], work: Work, pool: Pool, *, writes: bool
) -> Generator[tuple[int, Any], None, None]:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what is lost is told by its absence
    context.target_max_block_size = _SENT_BYTES
    context.execution_options.preserve_order = not writes
    tables = {"batch_size": None, "batch_format": "pyarrow"}
    worker_cpus, task_cpus = _GPU_SHARES if pool.on_gpu else _CPU_SHARES
    begin = partial(_count_attempt, _start_counting())
    pictures = (
        ray.data.from_arrow(blocks)
        .map_batches(partial(read_pictures, work=work), num_cpus=task_cpus, **tables)
        .map_batches(
            Worker,
            fn_constructor_args=(work, begin),
            compute=pool.strategy(len(blocks)),
            num_cpus=worker_cpus,
            num_gpus=1 if pool.on_gpu else 0,
            **tables,
        )
    )
    if writes:
        write = partial(write_pictures, work=work)
        pictures = pictures.map_batches(write, num_cpus=task_cpus, **tables)
    for table in pictures.iter_batches(**tables):
        for index, state in unpack(table):
            if isinstance(state, Unable):
                raise state.error
            yield index, state


def _make_blocks(
    orders: Mapping[int, Order | RegionOrder], *, one_by_one: bool
) -> list[Any]:
    """Tables of orders."""
    blocks: list[Any] = []
    block: list[tuple[int, Any]] = []
    size = 0
    for index, order in orders.items():
        block.append((index, order))
        if isinstance(order, Order):
            size += order.source.size
        if one_by_one or len(block) >= _BLOCK_PICTURES or size >= _BLOCK_BYTES:
            blocks.append(pack(block))
            block, size = [], 0
    return [*blocks, pack(block)] if block else blocks


class Attempts:
    """Counts how often each picture has been begun, while workers come and go."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, index: int) -> int:
        """How often it has been begun, this time included."""
        self._begun[index] += 1
        return self._begun[index]


def _start_counting() -> Any:  # noqa: ANN401 - an actor of Ray's
    """`Attempts` beside this process, whose machine outlives all others of the run."""
    here = ray.get_runtime_context().get_node_id()
    counter = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts)
    strategy = NodeAffinitySchedulingStrategy(here, soft=True)
    return counter.options(scheduling_strategy=strategy).remote()


def _count_attempt(attempts: Any, index: int) -> int:  # noqa: ANN401 - an actor of Ray's
    return int(ray.get(attempts.begin.remote(index)))
