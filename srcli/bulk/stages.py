"""What is done to each picture: read, enlarged and written, each somewhere else.

A stage takes a table of pictures and gives tables of pictures. Nothing here knows Ray:
it only calls. Every failure becomes the result of the picture that it befell.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from srcli.bulk.orders import Order
from srcli.errors import DeviceError, InputError, SrcliError
from srcli.imaging.files import Picture
from srcli.imaging.pillow import quiet
from srcli.inference.batch import (
    FileOptions,
    Pair,
    enlarge,
    finish,
    read_source,
    settle,
)
from srcli.inference.jobs import Job, plan_job
from srcli.inference.naming import Naming
from srcli.inference.results import Result
from srcli.inference.sources import Source
from srcli.storage import Place, fetch

if TYPE_CHECKING:
    from srcli.inference.regions import Region
    from srcli.inference.runner import RunStats

log = logging.getLogger(__name__)

# One picture a row; its state, pickled, may take more than 2 GB.
SCHEMA = pa.schema([("index", pa.int64()), ("state", pa.large_binary())])
# Bytes of a remote file up to which it is fetched whole, and not by window.
_FETCHED = 1 << 30
_TRIES = 3  # of a picture whose worker ends meanwhile


@dataclass(frozen=True, slots=True)
class Read:
    """A picture that has been read."""

    job: Job
    picture: Picture


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A picture that has been enlarged, on its way to its file."""

    result: Result
    pair: Pair


@dataclass(frozen=True, slots=True)
class Large:
    """A picture that is larger than memory: it is enlarged by itself, in regions."""

    job: Job


@dataclass(frozen=True, slots=True)
class Part:
    """A region of a large picture: read, or enlarged already."""

    source: Source
    region: Region
    picture: Picture
    stats: RunStats | None = None  # what it took to enlarge


@dataclass(frozen=True, slots=True)
class Unable:
    """What keeps a worker from enlarging any picture."""

    error: SrcliError


# What a picture is between two stages; a `Result` goes through all that follow.
State: TypeAlias = "Order | Region | Read | Enlarged | Large | Part | Unable | Result"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What all workers of a run know.

    Attributes:
        naming: How results are named.
        folder: As `take_orders` gives it.
        options: How results are written; `options.run` names the run.
        upscaler: The fields of `Upscaler`, `weights` and `device` apart.
        weights: Name and content of a weight file: it need not lie where the worker is.
        on_gpu: Whether each worker has a GPU.
        sharers: Workers that share the memory of a machine, at most.
        base: The folder that relative paths are meant from.
    """

    naming: Naming
    folder: Place | None
    options: FileOptions
    upscaler: dict[str, Any]
    weights: tuple[str, bytes] | None = field(default=None, repr=False)
    on_gpu: bool = False
    sharers: int = 1
    base: Path = field(default_factory=Path.cwd)

    def enter(self) -> None:
        """Have relative paths mean in this process what they mean in the first one.

        Where there is no such folder, they lead nowhere, and are reported so.
        """
        with suppress(OSError):
            os.chdir(self.base)

    def make_upscaler(self) -> Any:  # noqa: ANN401 - torch is imported by workers only
        """The upscaler of one worker.

        Raises:
            SrcliError: If the machine lacks what it takes.
        """
        import torch  # noqa: PLC0415

        from srcli.inference.device import share_memory  # noqa: PLC0415

        share_memory(self.sharers)
        if not self.on_gpu:
            # Workers of one core each, so that none waits for another (docs/design.md).
            torch.set_num_threads(1)
        return self._make(self.upscaler, "cuda" if self.on_gpu else "cpu")

    def make_planner(self) -> Any:  # noqa: ANN401
        """An upscaler that knows what the workers' will need, and enlarges nothing.

        Raises:
            SrcliError: If the model, its weights or the factor are not valid.
        """
        return self._make({**self.upscaler, "precision": "auto"}, "cpu")

    def _make(self, fields: dict[str, Any], device: str) -> Any:  # noqa: ANN401
        from srcli.inference.upscaler import Upscaler  # noqa: PLC0415 - torch

        if self.weights is None:
            return Upscaler(**fields, device=device)
        name, content = self.weights
        with tempfile.TemporaryDirectory(prefix="srcli-") as folder:
            path = Path(folder, name)
            path.write_bytes(content)
            return Upscaler(**fields, weights=path, device=device)


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


def read_orders(table: pa.Table, work: Work) -> Iterator[pa.Table]:
    """The first stage: orders become pictures."""
    work.enter()
    for index, order in unpack(table):
        yield pack([(index, guard(order.source, _read, order, work))])


class Enlarger:
    """The second stage, made once in each worker: pictures become larger."""

    def __init__(self, work: Work, begin: Callable[[int], int]) -> None:
        """Load the networks; a failure is told with the first picture.

        Args:
            work: What all workers know.
            begin: Says how often a picture, by its index, has been begun by now.
        """
        self._unable: Unable | None = None
        self._begin = begin
        work.enter()
        try:
            self._upscaler = work.make_upscaler()
        except SrcliError as error:
            self._unable = Unable(error)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """The larger pictures of a table."""
        for index, state in unpack(table):
            if isinstance(state, Read):
                state = guard(state.job.source, self._enlarge, index, state)
            elif isinstance(state, Part):
                state = guard(state.source, self._enlarge_part, index, state)
            yield pack([(index, state)])

    def _hinder(self, index: int, source: Source) -> Unable | Result | None:
        """What keeps a picture from being enlarged before it is begun."""
        if self._unable is None and self._begin(index) > _TRIES:
            said = f"its worker ended {_TRIES} times, perhaps for want of memory"
            return fail(source, DeviceError(f"{source.name}: {said}"))
        return self._unable

    def _enlarge_part(self, index: int, state: Part) -> State:
        from srcli.inference.regions import enlarge_region  # noqa: PLC0415 - torch

        hindrance = self._hinder(index, state.source)
        if hindrance is not None:
            return hindrance
        try:
            larger = enlarge_region(self._upscaler, state.picture, state.region)
        except SrcliError as error:
            return fail(state.source, error)
        stats = self._upscaler.stats
        return dataclasses.replace(state, picture=larger, stats=stats)

    def _enlarge(self, index: int, state: Read) -> State:
        hindrance = self._hinder(index, state.job.source)
        if hindrance is not None:
            return hindrance
        result, pair = enlarge(state.job, lambda: state.picture, self._upscaler)
        return result if pair is None else Enlarged(result, pair)


def write_pictures(table: pa.Table, work: Work) -> pa.Table:
    """The last stage: larger pictures become files, and what is left are results."""
    work.enter()
    done = []
    for index, state in unpack(table):
        if isinstance(state, Enlarged):
            result, pair = state.result, state.pair
            state = guard(result.job.source, finish, result, pair, work.options)
        done.append((index, state))
    return pack(done)


def _read(order: Order, work: Work) -> State:
    """The picture of an order, or its result where there is nothing more to do."""
    source = order.source
    try:
        if isinstance(source.path, Path) or source.size > _FETCHED:
            job = plan_job(source, work.naming, work.folder)
        else:  # once, for the header and the pixels
            assert source.path is not None
            content = fetch(source.path)
            if not content:
                raise InputError(f"{source.name} is empty")
            whole = dataclasses.replace(source, data=content)
            job = plan_job(whole, work.naming, work.folder)
        kept = dataclasses.replace(job, source=source)
        is_there = job.output is not None and job.output.name in order.there
        if work.naming.existing == "skip" and is_there:
            kept = dataclasses.replace(kept, is_done=True)
        settled = settle(kept)
        if settled is None and job.is_large:
            return Large(kept)
        return settled or Read(kept, read_source(job, work.options))
    except SrcliError as error:
        return fail(source, error)


def fail(source: Source, error: SrcliError) -> Result:
    """The result of a picture that nothing came of."""
    return Result(job=Job(source=source, error=error), status="failed", error=error)


def guard(source: Source, step: Callable[..., State], *arguments: Any) -> State:  # noqa: ANN401
    """What a step gives; a defect in it is this picture's, and stops no other."""
    try:
        with quiet():
            return step(*arguments)
    except Exception as error:
        log.debug("%s", source.name, exc_info=True)
        said = f"{type(error).__name__}: {error}"
        return fail(source, SrcliError(f"{source.name}: a defect in srcli: {said}"))
