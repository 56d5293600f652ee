"""What a bulk run is to do, known from names alone.

A million headers are not read here but where the pictures are. Only where a name says
that something may be in the way, as a result that is there already, is a picture looked
at before the run begins, so that it is refused as the local engine refuses it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath

from srcli.errors import UsageError
from srcli.imaging.formats import format_of
from srcli.inference.jobs import check_existing, check_names, choose_sources, plan_job
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
) -> tuple[Place | None, list[Order]]:
    """The folder that results go to, and what is to be done; touches nothing.

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
    folder, kept = choose_sources(sources, naming)
    _check_shared(kept, naming)
    homes = [_home(source, naming, folder) for source in kept]
    there = _find_there(kept, homes, naming, folder)
    doubtful = _find_doubtful(kept, homes, there, naming)
    plan = partial(plan_job, naming=naming, folder=folder)
    with ThreadPoolExecutor(_THREADS, "look") as pool:
        for chunk in _by_stem(doubtful, kept, homes):
            jobs = list(pool.map(plan, chunk))
            check_names(jobs, kept)
            check_existing(jobs, naming.existing)
    return folder, [
        Order(index, source, found)
        for index, (source, found) in enumerate(zip(kept, there, strict=True))
    ]


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


def _home(source: Source, naming: Naming, folder: Place | None) -> Place:
    """The folder of a source's result."""
    assert source.path is not None
    if folder is not None:
        return folder.joinpath(*source.branch.parts)
    if naming.output is not None:
        return locate(naming.output).parent
    return source.path.parent


def _find_there(
    sources: Sequence[Source],
    homes: Sequence[Place],
    naming: Naming,
    folder: Place | None,
) -> list[tuple[str, ...]]:
    """For each source, the names in its result's folder that may be its result."""
    if folder is None and naming.output is not None:  # one file for one picture
        name = locate(naming.output).name
        wanted = {name, f"{name}.html"}
        return [tuple(sorted(wanted & list_names(homes[0])))]
    owned: dict[Place, Mapping[str, tuple[str, ...]]] = {}
    for home in dict.fromkeys(homes):
        owned[home] = _index_results(list_names(home), naming)
    return [
        owned[home].get(source.path.stem, ()) if source.path is not None else ()
        for source, home in zip(sources, homes, strict=True)
    ]


def _index_results(
    names: Iterable[str], naming: Naming
) -> Mapping[str, tuple[str, ...]]:
    """Names that look like results of the command, by the stems of their sources."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        path = PurePath(name.removesuffix(".html"))
        is_plain = naming.suffix == ""  # then any name is that of a result
        if format_of(path) is None or not (is_plain or naming.is_result(path.stem)):
            continue
        stem = _without_tag(path.stem, naming)
        found[stem].append(name)
        framed = _FRAME.fullmatch(stem)
        if framed is not None:
            found[framed[1]].append(name)
    return {stem: tuple(each) for stem, each in found.items()}


def _without_tag(stem: str, naming: Naming) -> str:
    """A result's stem without what the command added to its source's."""
    if naming.suffix is None and naming.goal.is_sized:
        return stem[: stem.rindex(f"_{naming.model}_")]
    return stem.removesuffix(naming.tag(0, 0))


def _find_doubtful(
    sources: Sequence[Source],
    homes: Sequence[Place],
    there: Sequence[tuple[str, ...]],
    naming: Naming,
) -> list[int]:
    """The sources whose jobs have to be planned to know that nothing is in the way."""
    stems = [source.path.stem for source in sources if source.path is not None]
    shared = Counter(zip(homes, stems, strict=True))
    read = {source.path for source in sources}
    doubtful = []
    for index, (home, stem) in enumerate(zip(homes, stems, strict=True)):
        refused = naming.existing == "refuse" and there[index]
        replaces = any(home / name in read for name in there[index])
        if refused or replaces or shared[home, stem] > 1:
            doubtful.append(index)
    return doubtful


def _by_stem(
    indices: Iterable[int], sources: Sequence[Source], homes: Sequence[Place]
) -> Iterator[list[Source]]:
    """The sources in chunks that keep together what could share a result's name."""
    groups: defaultdict[tuple[Place, str], list[Source]] = defaultdict(list)
    for index in indices:
        path = sources[index].path
        assert path is not None
        groups[homes[index], path.stem].append(sources[index])
    chunk: list[Source] = []
    for group in groups.values():
        chunk += group
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def find_homes(
    orders: Iterable[Order], naming: Naming, folder: Place | None
) -> list[Place]:
    """The folders that results go to."""
    homes = (_home(order.source, naming, folder) for order in orders)
    return list(dict.fromkeys(homes))
