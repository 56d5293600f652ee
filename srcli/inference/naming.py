"""Names and formats of results."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from srcli.errors import OutputError, UsageError
from srcli.imaging.formats import FORMATS, find_misfit, format_of
from srcli.imaging.picture import PictureInfo
from srcli.inference.sizes import Goal
from srcli.inference.sources import STREAM, Source
from srcli.storage import Place, contains, is_remote, locate, reached

log = logging.getLogger(__name__)

Existing = Literal["refuse", "overwrite", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """The rules by which results are named and written."""

    model: str  # that they are named after: "mrnet", "rrrn_dn", or a weight file's name
    goal: Goal
    # A file, a folder (a path or URL each), or "-", as typed; None is beside the input.
    output: str | None = None
    format: str = "auto"  # or a key of `FORMATS`
    suffix: str | None = None  # for "_<model>_x<scale>" or "_<model>_<width>x<height>"
    existing: Existing = "refuse"  # where a result is there already
    frame: int | None = None  # of several frames or pages, from 1; None is the only one
    compare: bool = False  # a page beside each result compares it with bicubic
    quality: int = 95  # of JPEG, WebP and AVIF, 1 to 100
    keep_metadata: bool = True  # or none of it, and the colours in sRGB
    run: str | None = None  # see `srcli.writing.write_whole`
    # What `output` names, once `for_sources` has found out which: or else neither.
    folder: Place | None = None
    file: Place | None = None

    def __post_init__(self) -> None:
        name = f"x{self.suffix or ''}"
        if Path(name).name != name:
            raise UsageError(f"suffix {self.suffix!r} must not name a folder")

    def for_sources(self, sources: Sequence[Source]) -> Naming:
        """The same with its `folder` or `file`.

        Raises:
            UsageError: If `output` cannot take the sources, contradicts the format, or
                is a URL that cannot be reached.
            OutputError: If the folder of a file is not there.
        """
        several = len(sources) > 1 or sources[0].root is not None
        if self.output == STREAM and several:
            raise UsageError("standard output takes one picture: -o needs a folder")
        if self.output in (None, STREAM):
            return self
        path = locate(self.output)
        if self.output.endswith(("/", "\\")):
            return replace(self, folder=path)
        checks = reached(path, OutputError, "written")
        with checks if is_remote(path) else nullcontext():
            is_folder, is_there = path.is_dir(), path.exists()
        named = format_of(path)
        if several and not is_folder and (named is not None or is_there):
            raise UsageError(f"{path} is one file for several pictures: name a folder")
        if several or is_folder:
            return replace(self, folder=path)
        if self.format == "auto" and named is None:
            raise UsageError(
                f"{path} does not say its format: end it in .png or another format, "
                "add --format, or end it in / for a folder"
            )
        if self.format != "auto" and named not in (None, self.format):
            raise UsageError(f"{path} and --format {self.format} contradict each other")
        # The folders of a store are but a part of its names.
        if not is_remote(path) and not path.parent.is_dir():
            raise OutputError(f"folder {path.parent} does not exist: make it first")
        return replace(self, file=path)

    def tag(self, height: int, width: int) -> str:
        """What is added to the name of a picture with a result of this size."""
        if self.suffix is not None:
            return self.suffix
        if self.goal.is_sized:
            return f"_{self.model}_{width}x{height}"
        return f"_{self.model}_x{self.goal.scale:g}"

    def find_stem(self, stem: str) -> str | None:
        """The stem of what a file of this stem is a result of; None if of nothing."""
        if self.suffix is None and self.goal.is_sized:
            pattern = rf"(?s)(.*)_{re.escape(self.model)}_\d+x\d+"
            found = re.fullmatch(pattern, stem)
            return found and found[1]
        tag = self.tag(0, 0)
        return stem.removesuffix(tag) if stem.endswith(tag) else None

    def drop_earlier(self, sources: Sequence[Source]) -> list[Source]:
        """The sources without listed files that the same command left there before."""
        # Of a million pictures in one folder, that folder is asked about once.
        roots = {source.root for source in sources if source.root is not None}
        folder = self.folder
        own = {r for r in roots if folder is None or folder.resolve() == r.resolve()}
        inner = {r for r in roots - own if folder and contains(r, folder)}

        def is_earlier(source: Source) -> bool:
            path = source.path
            if path is None or source.root is None:
                return False
            if source.root in own:
                return self.suffix != "" and self.find_stem(path.stem) is not None
            return bool(folder and source.root in inner and contains(folder, path))

        return [source for source in sources if not is_earlier(source)]

    def choose_format(
        self, source: Source, info: PictureInfo, size: tuple[int, int]
    ) -> str:
        """The format of a result of `size`: as asked, or the input's own, or PNG.

        Raises:
            OutputError: If the format asked for cannot hold the result.
        """
        asked = None if self.format == "auto" else self.format
        if asked is None and self.file is not None:
            asked = format_of(self.file)
        height, width = size
        if asked is not None:
            # Transparency may yet turn out to be opaque everywhere. A format that is
            # asked for gets the depth that it has.
            misfit = find_misfit(asked, width, height, alpha=False, depth=8)
            if misfit is not None:
                other = "tiff" if asked == "png" else "png"
                raise OutputError(
                    f"{source.name} cannot be written: {misfit}; choose {other}"
                )
            return asked
        misfits = {
            name: find_misfit(name, width, height, alpha=info.alpha, depth=info.depth)
            for name in (info.format, "png", "tiff")
        }
        chosen = next(name for name, misfit in misfits.items() if misfit is None)
        if chosen != info.format:
            misfit, title = misfits[info.format], FORMATS[chosen].title
            log.info("%s: %s: it becomes a %s", source.name, misfit, title)
        return chosen

    def name_output(
        self, source: Source, info: PictureInfo, size: tuple[int, int], format: str
    ) -> Place | None:
        """Where a result of `size` goes; None is standard output."""
        if self.output == STREAM or (self.output is None and source.path is None):
            return None
        if self.file is not None:
            return self.file
        original: Place = source.path or Path("stdin")
        own = original.suffix if format_of(original) == format else None
        frame = f"_frame{self.frame}" if self.frame and info.frames > 1 else ""
        suffix = own or FORMATS[format].suffixes[0]
        name = original.stem + frame + self.tag(*size) + suffix
        return self.name_home(source) / name

    def name_home(self, source: Source) -> Place:
        """The folder of a source's result."""
        if self.folder is not None:
            return self.folder.joinpath(*source.branch.parts)
        return (self.file or source.path or Path("stdin")).parent
