"""The orders of a bulk run, made from names alone.

A million headers are not read here but where the pictures are. Only where a name says
that something may be in the way, as a result that is there already, is a picture looked
at before the run begins, so that it is refused as the local engine refuses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import PurePath

from srcli.errors import UsageError
from srcli.imaging.formats import format_of
from srcli.inference.jobs import (
    check_existing,
    check_names,
    choose_sources,
    plan_job,
)
from srcli.inference.naming import Naming
from srcli.inference.sources import STREAM, Source
from srcli.storage import Place, is_shared, list_names

_THREADS = 16  # that look into files at once
_CHUNK = 256  # groups of pictures looked into before what was found is checked


@dataclass(frozen=True, slots=True)
class Order:
    """One picture to enlarge, whose job is planned by who reads it."""

    index: int  # its place among the inputs, from 0
    source: Source
    home: Place  # the folder of its result
    there: tuple[str, ...] = ()  # names in it that may be an earlier run's result


def take_orders(
    sources: Sequence[Source], naming: Naming
) -> tuple[Naming, list[Order]]:
    """The naming for the sources, and what is to be done; touches nothing.

    Raises:
        SrcliError: As `plan_jobs`; a UsageError if standard input or output, or memory,
            would have to be shared.
    """
    naming, kept = choose_sources(sources, naming)
    _check_shared(kept, naming)
    folders: dict[Place, Mapping[str, tuple[str, ...]]] = {}
    orders = []
    for index, source in enumerate(kept):
        home = naming.name_home(source)
        if home not in folders:
            folders[home] = _index_results(home, naming)
        there = folders[home].get(_stem(source, naming), ())
        orders.append(Order(index, source, home, there))
    groups = _find_doubtful(orders, naming)
    with ThreadPoolExecutor(_THREADS, "look") as pool:
        for start in range(0, len(groups), _CHUNK):
            chunk = chain.from_iterable(groups[start : start + _CHUNK])
            jobs = list(pool.map(partial(plan_job, naming=naming), chunk))
            check_names(jobs, kept)
            check_existing(jobs, naming.existing)
    return naming, orders


def _check_shared(sources: Iterable[Source], naming: Naming) -> None:
    """Refuse what other processes do not see."""
    if naming.output == STREAM or any(source.path is None for source in sources):
        raise UsageError("--engine ray takes no standard input or output: name files")
    places = [source.path for source in sources]
    for place in (*places, naming.folder or naming.file):
        if place is not None and not is_shared(place):
            raise UsageError(f"{place} is this process's own: --engine ray needs files")


def _stem(source: Source, naming: Naming) -> str:
    """What the result is named after: the source, or one file for one picture."""
    assert source.path is not None
    return naming.file.name if naming.file is not None else source.path.stem


def _index_results(home: Place, naming: Naming) -> Mapping[str, tuple[str, ...]]:
    """Names in a folder that may be results of the command, by what they come from."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for name in list_names(home):
        path = PurePath(name.removesuffix(".html"))
        if naming.file is not None:
            found[path.name] += (name,)
        elif format_of(path) is not None:
            stem = naming.find_stem(path.stem)
            if stem is not None:
                # Only a header tells whether the source has several frames.
                for key in {stem, stem.removesuffix(f"_frame{naming.frame}")}:
                    found[key] += (name,)
    return found


def _find_doubtful(orders: Sequence[Order], naming: Naming) -> list[list[Source]]:
    """Where jobs have to be planned to know that nothing is in the way.

    What could share a result's name is one group.
    """
    groups: defaultdict[tuple[Place, str], list[Order]] = defaultdict(list)
    for order in orders:
        groups[order.home, _stem(order.source, naming)].append(order)
    read = {order.source.path for order in orders}
    doubtful = []
    for (home, _), group in groups.items():
        there = [name for order in group for name in order.there]
        is_refused = there and naming.existing == "refuse"
        if is_refused or len(group) > 1 or any(home / name in read for name in there):
            doubtful.append([order.source for order in group])
    return doubtful
