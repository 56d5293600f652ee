"""From pictures to jobs: what is to be done with each.

Everything that can be known without decoding a picture is checked here, before any work
begins: nothing is written, and nothing is half done, when a name is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.imaging.files import probe_picture
from srcli.imaging.picture import PictureInfo
from srcli.imaging.pillow import MAX_PIXELS
from srcli.inference.jobs import Job
from srcli.inference.naming import Existing, Naming
from srcli.inference.sources import Source
from srcli.inference.space import estimate_room
from srcli.storage import Place, find_existing
from srcli.writing import check_name

log = logging.getLogger(__name__)

LARGE = 1 << 30  # bytes of a result from which on it is made by region


def plan_jobs(sources: Sequence[Source], naming: Naming) -> list[Job]:
    """What is to be done, in order; touches nothing.

    Args:
        sources: As `expand_inputs` gives them.
        naming: How results are named.

    Returns:
        A job for each source. A source that cannot be read, or whose result no file can
        hold, has its error in its job.

    Raises:
        UsageError: If `naming` does not fit the sources or contradicts itself.
        InputError: If every picture of the folders is an earlier result.
        OutputError: If two results would share a name, a result would replace a source,
            or results are there already and `naming.existing` is "refuse".
    """
    try:
        naming, kept = choose_sources(sources, naming)
        jobs = [plan_job(source, naming) for source in kept]
        check_names(jobs, kept)
        return check_existing(jobs, naming.existing)
    except OSError as error:  # a folder on the way may not be looked into
        reason = error.strerror or str(error)
        raise OutputError(f"{error.filename} cannot be written: {reason}") from error


def choose_sources(
    sources: Sequence[Source], naming: Naming
) -> tuple[Naming, list[Source]]:
    """The naming with its folder, and the sources without earlier results among them.

    Raises:
        UsageError: If `naming` does not fit the sources.
        InputError: If all of them are earlier results.
        OutputError: If the folder of a file is not there.
    """
    naming = naming.for_sources(sources)
    kept = naming.drop_earlier(sources)
    if len(kept) < len(sources):
        log.info("%d earlier results are left out", len(sources) - len(kept))
    if not kept:
        raise InputError("every picture found is an earlier result: nothing to do")
    return naming, kept


def plan_job(source: Source, naming: Naming) -> Job:
    """The job for one source; what is wrong with it alone is in its `error`.

    Args:
        source: What to enlarge.
        naming: How its result is named, with its folder.

    Raises:
        UsageError: If `naming` contradicts itself.
    """
    try:
        if source.error is not None:
            raise source.error
        info = probe_picture(source.content, name=source.name, frame=naming.frame)
        size = naming.goal.size(info.height, info.width)
        format = naming.choose_format(source, info, size)
        output = naming.name_output(source, info, size, format)
        page = None
        if output is not None and naming.compare:
            page = output.with_name(f"{output.name}.html")
        if output is not None:
            check_name(page or output)
        by_region = is_large(info, format, *size)
        if by_region:
            _check_large(source, naming, output)
    except SrcliError as error:
        return Job(source=source, error=error)
    if naming.compare and output is None:
        raise UsageError("a comparison goes beside a file: --compare needs -o FILE")
    return Job(
        source=source,
        output=output,
        format=format,
        width=size[1],
        height=size[0],
        info=info,
        frame=naming.frame,
        is_large=by_region,
        page=page,
        room=estimate_room(info, format, size[0] * size[1], source.size),
        may_replace=naming.existing == "overwrite",
    )


def is_large(info: PictureInfo, format: str, height: int, width: int) -> bool:
    """Whether a picture is enlarged by region: TIFF to TIFF, and much of it.

    Args:
        info: Of the picture.
        format: Of the result, a key of `srcli.imaging.formats.FORMATS`.
        height: Of the result, in pixels.
        width: Of the result, in pixels.
    """
    if not info.is_windowed or format != "tiff":
        return False
    is_too_large = info.width * info.height > MAX_PIXELS
    return is_too_large or height * width * info.pixel_bytes > LARGE


def _check_large(source: Source, naming: Naming, output: Place | None) -> None:
    """Refuse what can only be done with all of a picture in memory.

    Raises:
        OutputError: If it is asked for.
    """
    if naming.compare:
        raise OutputError(
            f"{source.name} is too large for a page: leave --compare out for it"
        )
    if output is None:
        raise OutputError(f"{source.name} is too large for a stream: choose -o FILE")


def check_names(jobs: Iterable[Job], sources: Iterable[Source]) -> None:
    """Refuse results that would share a name or replace a source.

    Raises:
        OutputError: If one would.
    """
    read = {source.path.resolve() for source in sources if source.path is not None}
    taken: dict[Place, Job] = {}
    for job in jobs:
        for output in (job.output, job.page):
            if output is None:
                continue
            place = output.resolve()
            if place in read:
                raise OutputError(
                    f"{output} is itself an input: choose another name or folder"
                )
            other = taken.setdefault(place, job)
            if other is not job:
                raise OutputError(
                    f"{other.source.name} and {job.source.name} would both become "
                    f"{output}: enlarge them into different folders"
                )


def check_existing(jobs: Sequence[Job], existing: Existing) -> list[Job]:
    """The jobs, marked where their results are there already and shall stay.

    Raises:
        OutputError: If results are there, and shall not be.
    """
    wanted = [path for job in jobs for path in (job.output, job.page) if path]
    there = find_existing(wanted)
    for output in there:
        if output.is_dir():
            raise OutputError(f"{output} is a folder: choose another name")
    if there and existing == "refuse":
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]} exists already{more}: choose --overwrite or --skip-existing"
        )
    skipped = set(there) if existing == "skip" else set()
    return [replace(job, is_done=job.output in skipped) for job in jobs]
