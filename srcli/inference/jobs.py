"""From pictures to jobs: what is to be done with each.

Everything that can be known without decoding a picture is checked here, before any work
begins: nothing is written, and nothing is half done, when a name is refused.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.imaging.files import PictureInfo, probe_picture
from srcli.inference.naming import (
    Existing,
    Naming,
    choose_folder,
    choose_format,
    drop_earlier,
    name_output,
    name_page,
)
from srcli.inference.sizes import is_large
from srcli.inference.sources import Source
from srcli.inference.space import estimate_room
from srcli.storage import Place, find_existing
from srcli.writing import check_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to enlarge.

    Attributes:
        source: What is read.
        output: The file to write; None is standard output, or that `error` is set.
        format: A key of `FORMATS`.
        width: Of the result, in pixels.
        height: Of the result, in pixels.
        info: What the header of the source says; None where `error` is set.
        frame: Which of several frames is read, from 1; None is the only one.
        room: Bytes that its file will take, about.
        is_large: Whether it is enlarged by region, as it is larger than memory.
        page: Where a comparison goes; None is nowhere.
        may_replace: Whether what is there by then may be replaced.
        is_done: Whether the result is there already and shall stay.
        error: Why nothing can come of it.
    """

    source: Source
    output: Place | None = None
    format: str = "png"
    width: int = 0
    height: int = 0
    info: PictureInfo | None = None
    frame: int | None = None
    room: int = 0
    is_large: bool = False
    page: Place | None = None
    may_replace: bool = False
    is_done: bool = False
    error: SrcliError | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is anything to do."""
        return not self.is_done and self.error is None


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
        return _plan_all(sources, naming)
    except OSError as error:  # a folder on the way may not be looked into
        reason = error.strerror or str(error)
        raise OutputError(f"{error.filename} cannot be written: {reason}") from error


def choose_sources(
    sources: Sequence[Source], naming: Naming
) -> tuple[Place | None, list[Source]]:
    """The folder for results, and the sources without earlier results among them.

    Raises:
        UsageError: If `naming` does not fit the sources.
        InputError: If all of them are earlier results.
        OutputError: If the folder of a file is not there.
    """
    folder = choose_folder(sources, naming)
    kept = drop_earlier(sources, naming, folder)
    if len(kept) < len(sources):
        log.info("%d earlier results are left out", len(sources) - len(kept))
    if not kept:
        raise InputError("every picture found is an earlier result: nothing to do")
    return folder, kept


def prepare_folders(folders: Iterable[Place]) -> None:
    """Make the folders that results go to, and see that they can be written to.

    Raises:
        OutputError: If one cannot be made or written to.
    """
    for folder in dict.fromkeys(folders):
        if not isinstance(folder, Path):
            continue  # it comes with its files
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"folder {folder} cannot be written: {reason}") from error


def _plan_all(sources: Sequence[Source], naming: Naming) -> list[Job]:
    """`plan_jobs`, except that what the operating system refuses is raised as it is."""
    folder, kept = choose_sources(sources, naming)
    jobs = [plan_job(source, naming, folder) for source in kept]
    check_names(jobs, kept)
    return check_existing(jobs, naming.existing)


def plan_job(source: Source, naming: Naming, folder: Place | None) -> Job:
    """The job for one source; what is wrong with it alone is in its `error`.

    Args:
        source: What to enlarge.
        naming: How its result is named.
        folder: As `choose_folder` gives it.

    Raises:
        UsageError: If `naming` contradicts itself.
    """
    try:
        if source.error is not None:
            raise source.error
        info = probe_picture(source.content, name=source.name, frame=naming.frame)
        # The factor is checked before the size: it has the clearer message.
        naming.goal.factor(info.height, info.width)
        height, width = naming.goal.size(info.height, info.width)
        format = choose_format(source, naming, folder, info, (height, width))
        tag = naming.tag(height, width)
        if info.frames > 1 and naming.frame is not None:
            tag = f"_frame{naming.frame}{tag}"
        output = name_output(source, naming, folder, format, tag)
        if output is not None:
            check_name(name_page(output) if naming.compare else output)
        by_region = is_large(info, format, height, width)
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
        width=width,
        height=height,
        info=info,
        frame=naming.frame,
        is_large=by_region,
        page=name_page(output) if naming.compare and output else None,
        room=estimate_room(info, format, width * height, source.size),
        may_replace=naming.existing == "overwrite",
    )


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
