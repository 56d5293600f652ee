"""From what the user typed to jobs: which pictures, under which names, in which format.

Everything that can be known without decoding a picture is checked here, before any work
begins: nothing is written, and nothing is half done, when a name is refused.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.imaging.files import PictureInfo, probe_picture
from srcli.imaging.formats import FORMATS, PICTURE_SUFFIXES, find_misfit, format_of
from srcli.inference.sizes import Goal

log = logging.getLogger(__name__)

STREAM = "-"  # standard input or output
Existing = Literal["refuse", "overwrite", "skip"]

_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Source:
    """One picture to read.

    Attributes:
        path: The file; None is standard input.
        root: The input folder, or the fixed part of the pattern, that it was found
            below; None where the file itself was named.
        data: What standard input held.
    """

    path: Path | None
    root: Path | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path else "standard input"

    @property
    def content(self) -> Path | bytes:
        """What `read_picture` takes."""
        return self.path or self.data

    @property
    def branch(self) -> Path:
        """Its folder below `root`."""
        if self.path is None or self.root is None:
            return Path()
        return self.path.parent.relative_to(self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How results are named.

    Attributes:
        model: Name of the network.
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


def expand_inputs(inputs: Sequence[str], *, recursive: bool = False) -> list[Source]:
    """Every picture that the inputs stand for, once, in their order.

    Files that are named are taken as they are, even if they do not exist: each has its
    own error later. Folders and patterns give the files whose suffix is a picture's and
    whose name does not begin with a dot.

    Args:
        inputs: Files, folders, patterns with *, ? or [, and "-" for standard input.
        recursive: Whether folders in folders are entered.

    Raises:
        InputError: If a folder or a pattern gives no picture.
        UsageError: If standard input is a terminal.
    """
    found: dict[Path | None, Source] = {}
    for text in inputs:
        for source in _expand(text, recursive):
            found.setdefault(source.path.resolve() if source.path else None, source)
    return list(found.values())


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
    outputs = [job.output for job in jobs if job.output and not job.is_done]
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


def _expand(text: str, recursive: bool) -> list[Source]:
    path = Path(text)
    if text == STREAM:
        return [_read_stream()]
    try:
        if path.is_dir():
            return _list_folder(path, recursive)
        if _MAGIC.isdisjoint(text) or path.exists():
            return [Source(path)]
        return _match_pattern(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{text} cannot be read: {reason}") from error


def _read_stream() -> Source:
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal: pipe a picture into it")
    return Source(None, data=sys.stdin.buffer.read())


def _list_folder(folder: Path, recursive: bool) -> list[Source]:
    paths = sorted(folder.rglob("*") if recursive else folder.iterdir())
    pictures = [Source(path, folder) for path in paths if _is_picture(path, folder)]
    if not pictures:
        hint = "" if recursive else "; --recursive looks into its folders too"
        raise InputError(f"folder {folder} holds no pictures{hint}")
    return pictures


def _match_pattern(pattern: Path) -> list[Source]:
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if not _MAGIC.isdisjoint(part))
    base = Path(*parts[:fixed])
    paths = sorted(base.glob(str(Path(*parts[fixed:]))))
    pictures = [Source(path, base) for path in paths if _is_picture(path, base)]
    if not pictures:
        raise InputError(f"no picture matches {pattern}")
    return pictures


def _is_picture(path: Path, base: Path) -> bool:
    """Whether a listed file is a picture by its name, and not hidden."""
    hidden = any(part.startswith(".") for part in path.relative_to(base).parts)
    return not hidden and path.suffix.lower() in PICTURE_SUFFIXES and path.is_file()


def _choose_folder(sources: Sequence[Source], naming: Naming) -> Path | None:
    """The folder that `naming.output` names, or None where it names none."""
    if (
        naming.suffix is not None
        and Path(f"x{naming.suffix}").name != f"x{naming.suffix}"
    ):
        raise UsageError(f"suffix {naming.suffix!r} must not name a folder")
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
    format = asked or info.format
    # Transparency asked for in JPEG may yet turn out to be opaque everywhere.
    alpha = info.alpha and asked is None
    misfit = find_misfit(format, width, height, alpha=alpha, deep=info.deep)
    if misfit is None:
        return format
    if asked is not None:
        raise OutputError(f"{source.name} cannot be written: {misfit}; choose png")
    log.info("%s: %s: it becomes a PNG", source.name, misfit)
    return "png"


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
    there = [job for job in jobs if job.output is not None and job.output.exists()]
    for job in there:
        if job.output is not None and job.output.is_dir():
            raise OutputError(f"{job.output} is a folder: choose another name")
    if there and existing == "refuse":
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0].output} exists already{more}: choose --overwrite or "
            "--skip-existing"
        )
    if existing == "overwrite":
        return list(jobs)
    return [replace(job, is_done=True) if job in there else job for job in jobs]
