"""Places of files: folders of this machine, and whatever fsspec reaches by URL.

A place is a `pathlib.Path` here and a `upath.UPath` elsewhere (s3://, gs://, memory://
and so on), which has the same methods.
"""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeAlias

from srcli.errors import InputError, SrcliError, UsageError

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = "Path | UPath"

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


def locate(text: str) -> Place:
    """The place that a path or URL names.

    Raises:
        UsageError: If the URL is of an unknown kind, or needs a package that is not
            installed.
    """
    found = _URL.match(text)
    if found is None:
        return Path(text)
    if found[1].lower() in ("file", "local"):
        from urllib.request import url2pathname  # noqa: PLC0415 - slow to load

        return Path(url2pathname(text[found.end() :]))
    from upath import UPath  # noqa: PLC0415 - most places are local

    try:
        place = UPath(text)
        place.fs  # noqa: B018 - made here, so that what it needs is missed here
    except ImportError as error:
        raise UsageError(f"{text}: {error}".rstrip(".")) from error
    except Exception as error:
        raise UsageError(f"{text} cannot be reached: {explain(error)}") from error
    return place


def is_remote(place: Place) -> bool:
    """Whether a place is reached by URL."""
    return not isinstance(place, Path)


def is_shared(place: Place) -> bool:
    """Whether other processes find the same there."""
    return isinstance(place, Path) or place.protocol != "memory"


def explain(error: BaseException) -> str:
    """What a file system said, in one line."""
    code, replaced = getattr(error, "winerror", 0), getattr(error, "filename2", None)
    # Windows lets nobody take the place of an open file or a read-only one.
    if code in (32, 33) or (code == 5 and replaced and os.access(replaced, os.W_OK)):
        return "it is in use by another program: close it"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(said).split())


@contextmanager
def reached(name: object, kind: type[SrcliError], verb: str) -> Iterator[None]:
    """Whatever a remote file system raises inside, as one error.

    Args:
        name: What the message calls the place.
        kind: Of the error.
        verb: What could not be done: "read" or "written".

    Raises:
        SrcliError: Of that kind, if anything fails.
    """
    try:
        yield
    except SrcliError:
        raise
    except FileNotFoundError as error:
        raise kind(f"{name} does not exist") from error
    except Exception as error:
        raise kind(f"{name} cannot be {verb}: {explain(error)}") from error


def fetch(place: UPath) -> bytes:
    """All that a remote file holds.

    Raises:
        InputError: If it cannot be read.
    """
    with reached(place, InputError, "read"):
        return bytes(place.read_bytes())


def list_files(folder: UPath, *, recursive: bool) -> list[tuple[UPath, int]]:
    """The files in a remote folder, sorted by name, with their bytes.

    Raises:
        InputError: If it cannot be listed.
    """
    with reached(folder, InputError, "read"):
        folder.fs.invalidate_cache()  # others may have written meanwhile
        depth = None if recursive else 1
        return _sort(folder.fs.find(folder.path, maxdepth=depth, detail=True), folder)


def match_files(pattern: UPath, base: UPath) -> list[tuple[UPath, int]]:
    """The files that a remote pattern matches, sorted by name, with their bytes.

    Args:
        pattern: With *, ? or [.
        base: The folder that its fixed part names.

    Raises:
        InputError: If they cannot be listed.
    """
    with reached(pattern, InputError, "read"):
        pattern.fs.invalidate_cache()
        return _sort(pattern.fs.glob(pattern.path, detail=True), base)


def _sort(found: dict[str, Any], base: UPath) -> list[tuple[UPath, int]]:
    """Of what a file system has listed, the files."""
    return [
        (base / posixpath.relpath(name, base.path), int(info.get("size") or 0))
        for name, info in sorted(found.items())
        if info.get("type") == "file"
    ]


def find_existing(places: Iterable[Place]) -> list[Place]:
    """Those of the places where a file or folder is.

    Remote folders are listed once each, as many questions would take long.

    Raises:
        OSError: If a folder of this machine may not be looked into.
        InputError: If a remote folder cannot be listed.
    """
    names = cache(list_names)
    return [
        place
        for place in places
        if (
            place.exists()
            if isinstance(place, Path)
            else place.name in names(place.parent)
        )
    ]


def list_names(folder: Place) -> set[str]:
    """The names of all that is in a folder; none where it does not exist.

    Raises:
        OSError: If a folder of this machine may not be looked into.
        InputError: If a remote folder cannot be listed.
    """
    if isinstance(folder, Path):
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    with reached(folder, InputError, "read"):
        folder.fs.invalidate_cache()
        try:
            names = folder.fs.ls(folder.path, detail=False)
        except FileNotFoundError:
            return set()
        return {posixpath.basename(name.rstrip("/")) for name in names}


def contains(folder: Place, place: Place) -> bool:
    """Whether a place lies in a folder, or is it."""
    if is_remote(folder) != is_remote(place):
        return False
    return bool(place.resolve().is_relative_to(folder.resolve()))  # type: ignore[arg-type]


def relative(place: Place, root: Place) -> PurePath:
    """The way from a folder to a place in it."""
    return PurePath(str(place.relative_to(root)))  # type: ignore[arg-type]


_ODD = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_IN_NAMES = re.compile(rf"[\\{_ODD}]")
_IN_MESSAGES = re.compile(rf"\\[\\']|\\x[0-9a-f]{{2}}|[\\{_ODD}]")


def show_path(path: Place | str) -> str:
    r"""A path or name as texts have it: each name in one way, on one line.

    Bytes that are no UTF-8, and those of control characters and of other line breaks,
    are written `\xNN`; where names are bytes (POSIX) a backslash is `\\`.
    """
    return _IN_NAMES.sub(_show_odd, str(path))


def show_message(text: str) -> str:
    """A message on one line, the names in it as `show_path` has them."""
    return _IN_MESSAGES.sub(_show_odd, re.sub(r"\r?\n", " ", text))


def quote_path(path: Place | str) -> str:
    """A path or name as a word of a shell's command."""
    text, shown = str(path), show_path(path)
    if shown == text:
        return shlex.quote(text)
    return "$'{}'".format(shown.replace("'", r"\'"))  # bash, zsh, POSIX 2024


def _show_odd(found: re.Match[str]) -> str:
    odd, is_posix = found[0], os.name == "posix"
    if odd.startswith("\\"):
        return "\\\\" if odd == "\\" and is_posix else odd
    is_byte = is_posix and "\udc80" <= odd <= "\udcff"
    name = odd.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(rf"\x{byte:02x}" for byte in name)
