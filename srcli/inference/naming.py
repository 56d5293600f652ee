"""Under which names, and in which formats, results are written."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from srcli.errors import OutputError, UsageError
from srcli.imaging.files import PictureInfo
from srcli.imaging.formats import FORMATS, find_misfit, format_of
from srcli.inference.sizes import Goal
from srcli.inference.sources import STREAM, Source
from srcli.storage import Place, contains, is_remote, locate, reached

log = logging.getLogger(__name__)

Existing = Literal["refuse", "overwrite", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How results are named.

    Attributes:
        model: What they are named after, for example "mrnet", "rrrn_dn", or the name
            of a weight file.
        goal: The size wanted.
        output: A file, a folder (a path or URL each), or "-", as typed; None is beside
            the input.
        format: "auto" or a key of `FORMATS`.
        suffix: Instead of "_<model>_x<scale>" or "_<model>_<width>x<height>".
        existing: What happens where a result is there already.
        frame: Which of several frames or pages is enlarged, from 1; None is the only
            one.
        compare: Whether a page goes beside each result that compares it with bicubic.
    """

    model: str
    goal: Goal
    output: str | None = None
    format: str = "auto"
    suffix: str | None = None
    existing: Existing = "refuse"
    frame: int | None = None
    compare: bool = False

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


def choose_folder(sources: Sequence[Source], naming: Naming) -> Place | None:
    """The folder that `naming.output` names, or None where it names none.

    Raises:
        UsageError: If it cannot take the sources, contradicts the format, or is a URL
            that cannot be reached.
        OutputError: If the folder of a file is not there.
    """
    if naming.output is None:
        return None
    several = len(sources) > 1 or sources[0].root is not None
    if naming.output == STREAM:
        if several:
            raise UsageError("standard output takes one picture: -o needs a folder")
        return None
    path = locate(naming.output)
    if naming.output.endswith(("/", "\\")):
        return path
    with reached(path, OutputError, "written") if is_remote(path) else nullcontext():
        if path.is_dir():
            return path
        is_there = path.exists()
    if not several:
        _check_file_name(path, naming.format)
        # The folders of a store are but a part of its names.
        if not is_remote(path) and not path.parent.is_dir():
            raise OutputError(f"folder {path.parent} does not exist: make it first")
        return None
    if format_of(path) is not None or is_there:
        raise UsageError(f"{path} is one file for several pictures: name a folder")
    return path


def drop_earlier(
    sources: Sequence[Source], naming: Naming, folder: Place | None
) -> list[Source]:
    """The sources without listed files that the same command left there before."""
    # Of a million pictures in one folder, that folder is asked about once.
    nested = {root: _nest(root, folder) for root in {source.root for source in sources}}
    return [s for s in sources if not _is_earlier(s, naming, folder, nested[s.root])]


def _nest(root: Place | None, folder: Place | None) -> Literal["same", "in", "apart"]:
    """Where the folder for results lies beside that of the pictures."""
    if root is None:
        return "apart"
    if folder is None or folder.resolve() == root.resolve():
        return "same"
    return "in" if contains(root, folder) else "apart"


def _is_earlier(
    source: Source,
    naming: Naming,
    folder: Place | None,
    nested: Literal["same", "in", "apart"],
) -> bool:
    if source.root is None or source.path is None:
        return False
    if nested == "same":
        return naming.is_result(source.path.stem)
    # A folder for results inside the folder of the pictures.
    return nested == "in" and folder is not None and contains(folder, source.path)


def choose_format(
    source: Source,
    naming: Naming,
    folder: Place | None,
    info: PictureInfo,
    size: tuple[int, int],
) -> str:
    """The format of a result of `size`: as asked, or the input's own, or PNG.

    Raises:
        OutputError: If the format asked for cannot hold the result.
    """
    asked = None if naming.format == "auto" else naming.format
    if asked is None and folder is None and naming.output not in (None, STREAM):
        asked = format_of(locate(naming.output or ""))
    height, width = size
    if asked is not None:
        # Transparency may yet turn out to be opaque everywhere. A format that is asked
        # for gets the depth that it has.
        misfit = find_misfit(asked, width, height, alpha=False, depth=8)
        if misfit is not None:
            raise OutputError(f"{source.name} cannot be written: {misfit}; choose png")
        return asked
    misfits = {
        name: find_misfit(name, width, height, alpha=info.alpha, depth=info.depth)
        for name in (info.format, "png", "tiff")
    }
    misfit = misfits[info.format]
    if misfit is None:
        return info.format
    fallback = next(name for name, reason in misfits.items() if reason is None)
    title = FORMATS[fallback].title
    log.info("%s: %s: it becomes a %s", source.name, misfit, title)
    return fallback


def name_output(
    source: Source,
    naming: Naming,
    folder: Place | None,
    format: str,
    tag: str,
) -> Place | None:
    """Where the result goes; None is standard output."""
    if naming.output == STREAM or (naming.output is None and source.path is None):
        return None
    if naming.output is not None and folder is None:
        return locate(naming.output)
    original: Place = source.path or Path("stdin")
    own = original.suffix if format_of(original) == format else None
    name = original.stem + tag + (own or FORMATS[format].suffixes[0])
    if folder is None:
        return original.parent / name
    return folder.joinpath(*source.branch.parts, name)


def name_page(output: Place) -> Place:
    """Where the comparison beside a result goes."""
    return output.with_name(f"{output.name}.html")


def _check_file_name(path: Place, format: str) -> None:
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
