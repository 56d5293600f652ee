"""Ray Data streams pictures through the stages, on one machine or on many.

A block of orders is read by a task, enlarged by one of a pool of workers that hold the
networks, and written by a task. Ray holds reading back where enlarging is behind, moves
a picture between machines where that is needed, and does again what was lost with a
worker or a machine. Results come in the order in which they are done.

A picture that ends its worker is tried again, and then given up, so that it stops no
other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from srcli.bulk.orders import Order
from srcli.bulk.stages import (
    Enlarger,
    Large,
    Unable,
    Work,
    fail,
    pack,
    read_orders,
    unpack,
    write_pictures,
)
from srcli.errors import DeviceError
from srcli.inference.results import Result

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

    @property
    def cpus(self) -> float:
        """CPUs of a worker, as Ray counts them."""
        return (_GPU_SHARES if self.on_gpu else _CPU_SHARES)[0]

    @property
    def task_cpus(self) -> float:
        """CPUs of a task that reads or writes."""
        return (_GPU_SHARES if self.on_gpu else _CPU_SHARES)[1]

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


def enlarge_orders(
    orders: Sequence[Order], work: Work, pool: Pool
) -> Generator[Result | Large, None, None]:
    """Do the orders on the cluster that was joined; results come as they are done.

    Raises:
        SrcliError: If a worker can enlarge no picture at all.
        DeviceError: If the cluster fails.
    """
    stages = Stages(
        work,
        partial(read_orders, work=work),
        partial(write_pictures, work=work),
    )
    left = {order.index: order for order in orders}
    for number in range(PASSES):
        blocks = _make_blocks(left.values(), one_by_one=number > 0)
        for index, state in stream(blocks, stages, pool):
            if left.pop(index, None) is not None:  # or it is done twice
                yield state
        if not left:
            return
        log.debug("%d pictures were lost on their way", len(left))
    for order in left.values():
        name = order.source.name
        lost = DeviceError(f"{name}: the cluster has lost it {PASSES} times")
        yield fail(order.source, lost)


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


def _make_blocks(orders: Iterable[Order], *, one_by_one: bool) -> list[Any]:
    """Tables of orders."""
    blocks, block, size = [], [], 0
    for order in orders:
        size += order.source.size
        block.append((order.index, order))
        if one_by_one or len(block) >= _BLOCK_PICTURES or size >= _BLOCK_BYTES:
            blocks.append(pack(block))
            block, size = [], 0
    return [*blocks, pack(block)] if block else blocks


@dataclass(frozen=True, slots=True)
class Stages:
    """What is done before and after enlarging.

    Attributes:
        work: What all workers know.
        read: The first stage.
        write: The last stage; None is none.
        in_order: Whether results come in the order of the blocks.
    """

    work: Work
    read: Callable[[Any], Iterator[Any]]
    write: Callable[[Any], Any] | None = None
    in_order: bool = False


def stream(
    blocks: Sequence[Any], stages: Stages, pool: Pool
) -> Iterator[tuple[int, Any]]:
    """What becomes of the pictures of all blocks, but for those that are lost.

    Raises:
        SrcliError: If a worker can enlarge no picture at all.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what is lost is told by its absence
    context.target_max_block_size = _SENT_BYTES
    context.execution_options.preserve_order = stages.in_order
    tables = {"batch_size": None, "batch_format": "pyarrow"}
    attempts = _start_counting()
    pictures = (
        ray.data.from_arrow(list(blocks))
        .map_batches(stages.read, num_cpus=pool.task_cpus, **tables)
        .map_batches(
            Enlarger,
            fn_constructor_args=(stages.work, partial(_count_attempt, attempts)),
            compute=pool.strategy(len(blocks)),
            num_cpus=pool.cpus,
            num_gpus=1 if pool.on_gpu else 0,
            **tables,
        )
    )
    if stages.write is not None:
        pictures = pictures.map_batches(stages.write, num_cpus=pool.task_cpus, **tables)
    for table in pictures.iter_batches(**tables):
        for index, state in unpack(table):
            if isinstance(state, Unable):
                raise state.error
            yield index, state
