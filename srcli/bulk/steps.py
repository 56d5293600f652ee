"""The steps of a bulk run: pictures read, enlarged and written, each somewhere else.

A step takes a table of pictures and gives tables of pictures. Nothing here knows Ray:
it only calls. Every failure becomes the result of the picture that it befell.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from srcli.bulk.orders import Order
from srcli.errors import DeviceError, InputError, SrcliError
from srcli.imaging.pillow import quiet
from srcli.inference.batch import (
    Piece,
    ResultFile,
    attempt,
    enlarge_piece,
    read_pieces,
)
from srcli.inference.jobs import Job, Result, plan_job
from srcli.inference.naming import Naming
from srcli.storage import fetch

if TYPE_CHECKING:
    from srcli.inference.tiling import Region

log = logging.getLogger(__name__)

# One picture a row; its state, pickled, may take more than 2 GB.
SCHEMA = pa.schema([("index", pa.int64()), ("state", pa.large_binary())])
# Bytes of a remote file up to which it is fetched whole, and not by window.
_FETCHED = 1 << 30
_TRIES = 3  # of a picture whose worker ends meanwhile


@dataclass(frozen=True, slots=True)
class RegionOrder:
    """A region of a large picture to enlarge."""

    job: Job
    region: Region
    count: int  # regions that the picture has
    levels: tuple[float, float]  # `Picture.levels` of the whole


# What a picture is between two steps; a `Result` goes through all that follow, as does
# the `Job` of a large picture, which is enlarged by itself, region by region. An error
# is what keeps a worker from enlarging any picture.
State: TypeAlias = "Order | RegionOrder | Piece | Job | Result | SrcliError"


@dataclass(frozen=True, kw_only=True)
class Work:
    """The settings that all workers of a run share."""

    naming: Naming  # as `take_orders` gives it, with the name of the run
    upscaler: dict[str, Any]  # the fields of `Upscaler`, `weights` and `device` apart
    # Name and content of a weight file: it need not lie where the worker is.
    weights: tuple[str, bytes] | None = field(default=None, repr=False)
    workers: int | None = None  # that enlarge, at most; None is as many as have room
    on_gpu: bool = False  # each
    sharers: int = 1  # workers that share the memory of a machine, at most
    base: Path = field(default_factory=Path.cwd)  # that relative paths are meant from

    def enter(self) -> None:
        """Have relative paths mean in this process what they mean in the first one.

        Where there is no such folder, they lead nowhere, and are reported so.
        """
        with suppress(OSError):
            os.chdir(self.base)

    def make_upscaler(self, **changed: Any) -> Any:  # noqa: ANN401 - loads torch late
        """The upscaler of one worker; keywords replace its fields."""
        from srcli.inference.upscaler import Upscaler  # noqa: PLC0415

        fields = {**self.upscaler, "device": "cuda" if self.on_gpu else "cpu"} | changed
        if self.weights is None:
            return Upscaler(**fields)
        name, content = self.weights
        with tempfile.TemporaryDirectory(prefix="srcli-") as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            return Upscaler(**fields, weights=path)

    def make_planner(self) -> Any:  # noqa: ANN401
        """An upscaler that knows what the workers' will need, and enlarges nothing."""
        return self.make_upscaler(precision="auto", device="cpu")


def pack(states: Iterable[tuple[int, State]]) -> pa.Table:
    """A table of pictures in their states, by their indices."""
    indices, pickled = [], []
    for index, state in states:
        indices.append(index)
        pickled.append(pickle.dumps(state, protocol=5))
    return pa.table({"index": indices, "state": pickled}, schema=SCHEMA)


def unpack(table: pa.Table) -> Iterator[tuple[int, Any]]:
    """The pictures of a table."""
    indices = table["index"].to_pylist()
    states = (value for chunk in table["state"].chunks for value in chunk)
    for index, value in zip(indices, states, strict=True):
        yield index, pickle.loads(value.as_buffer())


def read_pictures(table: pa.Table, work: Work) -> Iterator[pa.Table]:
    """The first step: orders become pictures."""
    work.enter()
    for index, order in unpack(table):
        if isinstance(order, RegionOrder):
            state = _guard(order.job, _read_region, order)
        else:
            job = Job(source=order.source, naming=work.naming)
            state = _guard(job, _read_picture, order, work.naming)
        yield pack([(index, state)])


class Worker:
    """The second step, made once in each worker: pictures become larger."""

    def __init__(self, work: Work, begin: Callable[[int], int]) -> None:
        """Load the networks; a failure is told with the first picture.

        `begin` says how often a picture, by its index, has been begun by now.
        """
        import torch  # noqa: PLC0415 - those who only read and write do without

        from srcli.inference.device import share_memory  # noqa: PLC0415

        self._unable: SrcliError | None = None
        self._begin = begin
        work.enter()
        share_memory(work.sharers)
        if not work.on_gpu:
            # Workers of one core each, so that none waits for another (docs/design.md).
            torch.set_num_threads(1)
        try:
            self._upscaler = work.make_upscaler()
        except SrcliError as error:
            self._unable = error

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """The larger pictures of a table."""
        for index, state in unpack(table):
            if isinstance(state, Piece):
                state = self._enlarge(index, state)
            yield pack([(index, state)])

    def _enlarge(self, index: int, piece: Piece) -> State:
        if self._unable is not None:
            return self._unable
        if self._begin(index) > _TRIES:
            said = f"its worker ended {_TRIES} times, perhaps for want of memory"
            lost = DeviceError(f"{piece.job.source.name}: {said}")
            return Result(piece.job, "failed", error=lost)
        return _guard(piece.job, enlarge_piece, piece, self._upscaler)


def write_pictures(table: pa.Table, work: Work) -> pa.Table:
    """The last step: larger pictures become files, and what is left are results."""
    work.enter()
    return pack(
        (index, _guard(state.job, ResultFile(state.job).add, state))
        if isinstance(state, Piece)
        else (index, state)
        for index, state in unpack(table)
    )


def _read_picture(order: Order, naming: Naming) -> State:
    """The picture of an order, or its result where there is nothing more to do."""
    source = order.source
    if not isinstance(source.path, Path) and source.size <= _FETCHED:
        assert source.path is not None
        content = fetch(source.path)  # once, for the header and the pixels
        if not content:
            raise InputError(f"{source.name} is empty")
        source = replace(source, data=content)
    job = plan_job(source, naming)
    is_there = job.output is not None and job.output.name in order.there
    is_done = naming.existing == "skip" and is_there
    kept = replace(job, source=order.source, is_done=is_done)
    if kept.settled is not None or job.is_large:
        return kept.settled or kept
    (piece,) = read_pieces(job)
    return replace(piece, job=kept)


def _read_region(order: RegionOrder) -> Piece:
    (piece,) = read_pieces(order.job, (order.region,), order.levels)
    return replace(piece, count=order.count)


def _guard(job: Job, step: Callable[..., Any], *given: Any) -> Any:  # noqa: ANN401
    """What a step gives; a failure of it, or a defect, stops no other picture."""
    try:
        with quiet():
            return attempt(job, step, *given)
    except Exception as error:
        name = job.source.name
        log.debug("%s", name, exc_info=True)
        said = f"{name}: a defect in srcli: {type(error).__name__}: {error}"
        return Result(job, "failed", error=SrcliError(said))
