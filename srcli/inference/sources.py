"""Sources of pictures as the user types them: files, folders, patterns, stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath

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
    show_path,
)

STREAM = "-"  # standard input or output

_MAGIC = frozenset("*?[")
_LONG = "\\\\?\\"  # what a long path begins with on Windows


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to read."""

    path: Place | None  # here or remote; None is standard input
    # The input folder, or the fixed part of the pattern, that it was found below; None
    # where the file itself was named.
    root: Place | None = None
    data: bytes = field(default=b"", repr=False)  # what it holds, if that has been read
    error: InputError | None = None  # a folder that may not be looked into
    listed: int | None = None  # bytes of the file where a listing told them

    @property
    def name(self) -> str:
        """What messages call it."""
        return show_path(self.path) if self.path else "standard input"

    @property
    def content(self) -> Place | bytes:
        """What `open_picture` takes."""
        return self.data if self.data or self.path is None else self.path

    @property
    def size(self) -> int:
        """Bytes of the file; 0 where it cannot be told."""
        if self.data or self.path is None:
            return len(self.data)
        if self.listed is None and not is_remote(self.path):
            with suppress(OSError):
                return self.path.stat().st_size
        return self.listed or 0

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
        recursive: Also looks into folders in folders.

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
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal: pipe a picture into it")
        return [Source(None, data=sys.stdin.buffer.read())]
    place = locate(text)
    with reached(text, InputError, "read"):
        is_pattern = _has_magic(text) and not place.exists()
        is_named_folder = is_remote(place) and text.endswith("/")
        if is_pattern:
            found = _match(place)
        elif is_named_folder or place.is_dir():
            found = _list(place, recursive)
        else:
            return [Source(place)]
    if not found and is_pattern:
        raise InputError(f"no picture matches {text}")
    if not found:
        hint = "" if recursive else "; --recursive looks into its folders too"
        raise InputError(f"folder {place} holds no pictures{hint}")
    return found


def _has_magic(text: str) -> bool:
    return not _MAGIC.isdisjoint(text.removeprefix(_LONG))


def _list(folder: Place, recursive: bool) -> list[Source]:
    """The pictures of a folder, and what keeps parts of it from being looked into."""
    if not isinstance(folder, Path):
        return _choose_pictures(list_files(folder, recursive=recursive), folder)
    closed: list[OSError] = []
    if recursive:
        tree = os.walk(folder, onerror=closed.append)
        paths = [Path(place, name) for place, _, names in tree for name in names]
    else:
        paths = list(folder.iterdir())
    pictures = _choose_pictures([(path, None) for path in sorted(paths)], folder)
    for error in closed:
        place, reason = Path(error.filename), error.strerror or str(error)
        failure = InputError(f"folder {place} cannot be read: {reason}")
        pictures.append(Source(place, folder, error=failure))
    return pictures


def _match(pattern: Place) -> list[Source]:
    """The pictures that a pattern matches."""
    base = pattern
    while _has_magic(str(base)):
        base = base.parent
    if not isinstance(pattern, Path) and not isinstance(base, Path):
        return _choose_pictures(match_files(pattern, base), base)
    assert isinstance(base, Path)
    paths = sorted(base.glob(str(relative(pattern, base))))
    return _choose_pictures([(path, None) for path in paths], base)


def _choose_pictures(
    listed: Iterable[tuple[Place, int | None]], base: Place
) -> list[Source]:
    """Of files, with their bytes where these are known, the pictures by their names."""
    return [
        Source(path, base, listed=size)
        for path, size in listed
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in relative(path, base).parts)
        # A link that leads nowhere counts, so that it is reported as missing.
        and (size is not None or path.is_file() or not path.exists())
    ]
