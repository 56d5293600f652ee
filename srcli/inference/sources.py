"""From what the user typed to pictures: files, folders, patterns, standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from srcli.errors import InputError, UsageError
from srcli.imaging.formats import PICTURE_SUFFIXES
from srcli.storage import (
    Place,
    is_remote,
    list_files,
    locate,
    match_files,
    reached,
    relative,
)

if TYPE_CHECKING:
    from upath import UPath

STREAM = "-"  # standard input or output

_MAGIC = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Source:
    """One picture to read.

    Attributes:
        path: The file, here or remote; None is standard input.
        root: The input folder, or the fixed part of the pattern, that it was found
            below; None where the file itself was named.
        data: What standard input held; of a file, what it holds if that has been read.
        error: Why there is nothing to read: a folder that may not be looked into.
        listed: Bytes of the file where a listing told them.
    """

    path: Place | None
    root: Place | None = None
    data: bytes = field(default=b"", repr=False)
    error: InputError | None = None
    listed: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path else "standard input"

    @property
    def content(self) -> Place | bytes:
        """What `read_picture` takes."""
        return self.data if self.data or self.path is None else self.path

    @property
    def size(self) -> int:
        """Bytes of the file; 0 where it cannot be told."""
        if self.data or self.path is None:
            return len(self.data)
        if self.listed is not None or is_remote(self.path):
            return self.listed or 0
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def branch(self) -> PurePath:
        """Its folder below `root`."""
        if self.path is None or self.root is None:
            return PurePath()
        return relative(self.path.parent, self.root)


def expand_inputs(inputs: Sequence[str], *, recursive: bool = False) -> list[Source]:
    """Every picture that the inputs stand for, once, in their order.

    Files that are named are taken as they are, even if they do not exist: each has its
    own error later. Folders and patterns give the files whose suffix is a picture's and
    whose name does not begin with a dot.

    Args:
        inputs: Files, folders, patterns with *, ? or [, all of them paths or URLs, and
            "-" for standard input.
        recursive: Whether folders in folders are entered.

    Raises:
        InputError: If a folder or a pattern gives no picture.
        UsageError: If standard input is a terminal, or a URL cannot be reached.
    """
    found: dict[Place | None, Source] = {}
    for text in inputs:
        for source in _expand(text, recursive):
            found.setdefault(source.path and source.path.absolute(), source)
    return list(found.values())


def _expand(text: str, recursive: bool) -> list[Source]:
    if text == STREAM:
        return [_read_stream()]
    path = locate(text)
    if not isinstance(path, Path):
        return _expand_remote(path, text, recursive)
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
    closed: list[OSError] = []
    if recursive:
        tree = os.walk(folder, onerror=closed.append)
        paths = [Path(place, name) for place, _, names in tree for name in names]
    else:
        paths = list(folder.iterdir())
    found = [path for path in sorted(paths) if _is_picture(path, folder)]
    pictures = [Source(path, folder) for path in found]
    for error in closed:
        place, reason = Path(error.filename), error.strerror or str(error)
        failure = InputError(f"folder {place} cannot be read: {reason}")
        pictures.append(Source(place, folder, error=failure))
    return _require(pictures, folder, recursive)


def _require(pictures: list[Source], folder: Place, recursive: bool) -> list[Source]:
    """The pictures of a folder.

    Raises:
        InputError: If there are none.
    """
    if not pictures:
        hint = "" if recursive else "; --recursive looks into its folders too"
        raise InputError(f"folder {folder} holds no pictures{hint}")
    return pictures


def _expand_remote(place: UPath, text: str, recursive: bool) -> list[Source]:
    """`_expand` for a URL."""
    with reached(text, InputError, "read"):
        is_pattern = not _MAGIC.isdisjoint(text) and not place.exists()
        is_folder = not is_pattern and (text.endswith("/") or place.is_dir())
    if is_pattern:
        base = place
        while not _MAGIC.isdisjoint(str(base)):
            base = base.parent
        listed = match_files(place, base)
    elif is_folder:
        base, listed = place, list_files(place, recursive=recursive)
    else:
        return [Source(place)]
    pictures = [
        Source(path, base, listed=size)
        for path, size in listed
        if _has_picture_name(path, base)
    ]
    if is_pattern and not pictures:
        raise InputError(f"no picture matches {text}")
    return _require(pictures, place, recursive)


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
    """Whether a listed file is a picture by its name, and not hidden.

    A link that leads nowhere counts, so that it is reported as missing.
    """
    if not _has_picture_name(path, base):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def _has_picture_name(path: Place, base: Place) -> bool:
    """Whether a listed file is a picture by its name, and not hidden."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        return False
    return not any(part.startswith(".") for part in relative(path, base).parts)
