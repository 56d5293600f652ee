"""What a bulk run is to do, known from names alone.

A million headers are not read here but where the pictures are. Only where a name says
that something may be in the way, as a result that is there already, is a picture looked
at before the run begins, so that it is refused as the local engine refuses it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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
from srcli.storage import Place, is_shared, list_names, locate

_THREADS = 16  # that look into files at once
_CHUNK = 512  # pictures looked into before what was found is checked
_FRAME = re.compile(r"(.*)_frame\d+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Order:
    """One picture to enlarge, whose job is planned by who reads it.

    Attributes:
        index: Its place among the inputs, from 0.
        source: What is read.
        there: Names beside its result that may be the result of an earlier run.
    """

    index: int
    source: Source
    there: tuple[str, ...] = ()


def take_orders(
    sources: Sequence[Source], naming: Naming
) -> tuple[Naming, list[Order]]:
    """The naming with its folder, and what is to be done; touches nothing.

    Args:
        sources: As `expand_inputs` gives them.
        naming: How results are named.

    Raises:
        UsageError: If `naming` does not fit the sources or contradicts itself, or
            standard input or output, or memory, would have to be shared.
        InputError: If every picture of the folders is an earlier result.
        OutputError: If two results would share a name, a result would replace a source,
            or results are there already and `naming.existing` is "refuse".
    """
    naming, kept = choose_sources(sources, naming)
    _check_shared(kept, naming)
    there = _find_there(kept, naming)
    orders = [Order(i, *each) for i, each in enumerate(zip(kept, there, strict=True))]
    plan = partial(plan_job, naming=naming)
    with ThreadPoolExecutor(_THREADS, "look") as pool:
        for chunk in _find_doubtful(orders, naming):
            jobs = list(pool.map(plan, chunk))
            check_names(jobs, kept)
            check_existing(jobs, naming.existing)
    return naming, orders


def find_homes(orders: Iterable[Order], naming: Naming) -> list[Place]:
    """The folders that results go to."""
    return list(dict.fromkeys(_home(order.source, naming) for order in orders))


def _check_shared(sources: Iterable[Source], naming: Naming) -> None:
    """Refuse what other processes do not see.

    Raises:
        UsageError: If there is any.
    """
    if naming.output == STREAM or any(source.path is None for source in sources):
        raise UsageError("--engine ray takes no standard input or output: name files")
    places = [source.path for source in sources if source.path is not None]
    if naming.output is not None:
        places.append(locate(naming.output))
    for place in places:
        if not is_shared(place):
            raise UsageError(f"{place} is this process's own: --engine ray needs files")


def _home(source: Source, naming: Naming) -> Place:
    """The folder of a source's result."""
    assert source.path is not None
    if naming.folder is not None:
        return naming.folder.joinpath(*source.branch.parts)
    if naming.output is not None:
        return locate(naming.output).parent
    return source.path.parent


def _stem(source: Source) -> str:
    assert source.path is not None
    return source.path.stem


def _find_there(sources: Sequence[Source], naming: Naming) -> Iterable[tuple[str, ...]]:
    """For each source, the names in its result's folder that may be its result."""
    if naming.folder is None and naming.output is not None:  # one file for one picture
        output = locate(naming.output)
        wanted = {output.name, f"{output.name}.html"}
        return [tuple(sorted(wanted & list_names(output.parent)))]
    homes = [_home(source, naming) for source in sources]
    owned = {home: _index_results(home, naming) for home in dict.fromkeys(homes)}
    return (
        owned[home].get(_stem(source), ())
        for source, home in zip(sources, homes, strict=True)
    )


def _index_results(home: Place, naming: Naming) -> Mapping[str, tuple[str, ...]]:
    """Names that look like results of the command, by the stems of their sources."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for name in list_names(home):
        path = PurePath(name.removesuffix(".html"))
        is_plain = naming.suffix == ""  # then any name is that of a result
        if format_of(path) is None or not (is_plain or naming.is_result(path.stem)):
            continue
        if naming.suffix is None and naming.goal.is_sized:
            stem = path.stem[: path.stem.rindex(f"_{naming.model}_")]
        else:
            stem = path.stem.removesuffix(naming.tag(0, 0))
        found[stem] += (name,)
        framed = _FRAME.fullmatch(stem)
        if framed is not None:
            found[framed[1]] += (name,)
    return found


def _find_doubtful(orders: Sequence[Order], naming: Naming) -> Iterator[list[Source]]:
    """The sources whose jobs have to be planned to know that nothing is in the way.

    They come in chunks that keep together what could share a result's name.
    """
    groups: defaultdict[tuple[Place, str], list[Order]] = defaultdict(list)
    for order in orders:
        groups[_home(order.source, naming), _stem(order.source)].append(order)
    read = {order.source.path for order in orders}
    chunk: list[Source] = []
    for (home, _), group in groups.items():
        there = [name for order in group for name in order.there]
        is_refused = there and naming.existing == "refuse"
        if is_refused or len(group) > 1 or any(home / name in read for name in there):
            chunk += [order.source for order in group]
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
