"""From pictures to jobs: under which name, in which format, at which size.

Everything that can be known without decoding a picture is checked here, before any work
begins: nothing is written, and nothing is half done, when a name is refused.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.imaging.files import PictureInfo, probe_picture
from srcli.imaging.formats import FORMATS, find_misfit, format_of
from srcli.inference.sizes import Goal
from srcli.inference.sources import STREAM, Source

log = logging.getLogger(__name__)

Existing = Literal["refuse", "overwrite", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How results are named.

    Attributes:
        model: What they are named after, for example "mrnet", "rrrn_dn", or the name
            of a weight file.
        goal: The size wanted.
        output: A file, a folder, or "-", as typed; None is beside the input.
        format: "auto" or a key of `FORMATS`.
        suffix: Instead of "_<model>_x<scale>" or "_<model>_<width>x<height>".
        existing: What happens where a result is there already.
    """

    model: str
    goal: Goal
    output: str | None = None
    format: str = "auto"
    suffix: str | None = None
    existing: Existing = "refuse"

    def __post_init__(self) -> None:
        name = f"x{self.suffix or ''}"
        if Path(name).name != name:
            raise UsageError(f"suffix {self.suffix!r} must not name a folder")

    def tag(self, height: int, width: int) -> str:
        """What is added to the name of a picture with a result of this size."""
        if self.suffix is not None:
            return self.suffix
        if self.goal.is_sized:
            return f"_{self.model}_{width}x{height}"
        return f"_{self.model}_x{self.goal.scale:g}"

    def is_result(self, stem: str) -> bool:
        """Whether a file's name looks like a result of the same command."""
        if self.suffix is None and self.goal.is_sized:
            return bool(re.search(rf"_{re.escape(self.model)}_\d+x\d+$", stem))
        tag = self.tag(0, 0)
        return bool(tag) and stem.endswith(tag)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to enlarge.

    Attributes:
        source: What is read.
        output: The file to write; None is standard output, or that `error` is set.
        format: A key of `FORMATS`.
        width: Of the result, in pixels.
        height: Of the result, in pixels.
        is_done: Whether the result is there already and shall stay.
        error: Why nothing can come of it.
    """

    source: Source
    output: Path | None = None
    format: str = "png"
    width: int = 0
    height: int = 0
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


def prepare_folders(jobs: Iterable[Job]) -> None:
    """Make the folders that results go to, and see that they can be written to.

    Raises:
        OutputError: If one cannot be made or written to.
    """
    outputs = [job.output for job in jobs if job.output and job.is_open]
    for folder in dict.fromkeys(output.parent for output in outputs):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"folder {folder} cannot be written: {reason}") from error


def _plan_all(sources: Sequence[Source], naming: Naming) -> list[Job]:
    """`plan_jobs`, except that what the operating system refuses is raised as it is."""
    folder = _choose_folder(sources, naming)
    kept = [source for source in sources if not _is_earlier(source, naming, folder)]
    if len(kept) < len(sources):
        log.info("%d earlier results are left out", len(sources) - len(kept))
    if not kept:
        raise InputError("every picture found is an earlier result: nothing to do")
    jobs = [_plan(source, naming, folder) for source in kept]
    _check_names(jobs)
    return _check_existing(jobs, naming.existing)


def _choose_folder(sources: Sequence[Source], naming: Naming) -> Path | None:
    """The folder that `naming.output` names, or None where it names none."""
    if naming.output is None:
        return None
    several = len(sources) > 1 or sources[0].root is not None
    if naming.output == STREAM:
        if several:
            raise UsageError("standard output takes one picture: -o needs a folder")
        return None
    path = Path(naming.output)
    if path.is_dir() or naming.output.endswith(("/", "\\")):
        return path
    if not several:
        _check_file_name(path, naming.format)
        if not path.parent.is_dir():
            raise OutputError(f"folder {path.parent} does not exist: make it first")
        return None
    if format_of(path) is not None or path.exists():
        raise UsageError(f"{path} is one file for several pictures: name a folder")
    return path


def _check_file_name(path: Path, format: str) -> None:
    """Refuse a file name that says nothing of its format, or another than was asked."""
    named = format_of(path)
    if format == "auto":
        if named is None:
            raise UsageError(
                f"{path} does not say its format: end it in .png or another format, "
                "add --format, or end it in / for a folder"
            )
    elif named not in (None, format):
        raise UsageError(f"{path} and --format {format} contradict each other")


def _is_earlier(source: Source, naming: Naming, folder: Path | None) -> bool:
    """Whether a listed file is a result that the same command left there before."""
    if source.root is None or source.path is None:
        return False
    if folder is None or folder.resolve() == source.root.resolve():
        return naming.is_result(source.path.stem)
    # A folder for results inside the folder of the pictures.
    is_inside = folder.resolve().is_relative_to(source.root.resolve())
    return is_inside and source.path.resolve().is_relative_to(folder.resolve())


def _plan(source: Source, naming: Naming, folder: Path | None) -> Job:
    """The job for one source; what is wrong with it alone is in its `error`."""
    try:
        info = probe_picture(source.content, name=source.name)
        # The factor is checked before the size: it has the clearer message.
        naming.goal.factor(info.height, info.width)
        height, width = naming.goal.size(info.height, info.width)
        format = _choose_format(source, naming, folder, info, (height, width))
        output = _name_output(source, naming, folder, format, (height, width))
    except SrcliError as error:
        return Job(source=source, error=error)
    return Job(source=source, output=output, format=format, width=width, height=height)


def _choose_format(
    source: Source,
    naming: Naming,
    folder: Path | None,
    info: PictureInfo,
    size: tuple[int, int],
) -> str:
    """The format of a result of `size`: as asked, or the input's own, or PNG.

    Raises:
        OutputError: If the format asked for cannot hold the result.
    """
    asked = None if naming.format == "auto" else naming.format
    if asked is None and folder is None and naming.output not in (None, STREAM):
        asked = format_of(Path(naming.output or ""))
    height, width = size
    if asked is not None:
        # Transparency may yet turn out to be opaque everywhere. A format that is asked
        # for gets the depth that it has.
        misfit = find_misfit(asked, width, height, alpha=False, depth=8)
        if misfit is not None:
            raise OutputError(f"{source.name} cannot be written: {misfit}; choose png")
        return asked
    kind = {"alpha": info.alpha, "depth": info.depth}
    misfit = find_misfit(info.format, width, height, **kind)
    if misfit is None:
        return info.format
    fallback = next(
        name
        for name in ("png", "tiff")
        if find_misfit(name, width, height, **kind) is None
    )
    title = FORMATS[fallback].title
    log.info("%s: %s: it becomes a %s", source.name, misfit, title)
    return fallback


def _name_output(
    source: Source,
    naming: Naming,
    folder: Path | None,
    format: str,
    size: tuple[int, int],
) -> Path | None:
    """Where the result goes; None is standard output."""
    if naming.output == STREAM or (naming.output is None and source.path is None):
        return None
    if naming.output is not None and folder is None:
        return Path(naming.output)
    original = source.path or Path("stdin")
    own = original.suffix if format_of(original) == format else None
    name = original.stem + naming.tag(*size) + (own or FORMATS[format].suffixes[0])
    home = original.parent if folder is None else folder / source.branch
    return home / name


def _check_names(jobs: Sequence[Job]) -> None:
    """Refuse results that would share a name or replace a source."""
    sources = {job.source.path.resolve() for job in jobs if job.source.path is not None}
    taken: dict[Path, Job] = {}
    for job in jobs:
        if job.output is None:
            continue
        place = job.output.resolve()
        if place in sources:
            raise OutputError(
                f"{job.output} is itself an input: choose another name or folder"
            )
        other = taken.setdefault(place, job)
        if other is not job:
            raise OutputError(
                f"{other.source.name} and {job.source.name} would both become "
                f"{job.output}: enlarge them into different folders"
            )


def _check_existing(jobs: Sequence[Job], existing: Existing) -> list[Job]:
    """Refuse, mark or accept results that are there already."""
    there = [job.output for job in jobs if job.output and job.output.exists()]
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
