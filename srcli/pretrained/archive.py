"""Unpacking of tar, tgz and zip archives that nobody vouches for.

Everything that could write outside the folder or fill the disk is refused before the
first byte is written: stricter than tarfile's own "data" filter (PEP 706), which takes
links that stay inside, and the same for zip.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from srcli.errors import InputError, OutputError
from srcli.progress import SILENT, Progress
from srcli.storage import show_path
from srcli.writing import check_name

MB = 1e6
_GROWTH = 20  # unpacked bytes per packed byte; pictures hardly shrink
_SLACK = 2**20
_MOST_FILES = 100_000
_CHUNK = 2**18
_HEADERS = 2**11  # bytes of headers and padding that one file of a tar may take
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What macOS and Windows leave in archives; a "._baby.png" would pass for a picture.
_LITTER = ("._", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class _Member:
    """One regular file of an archive."""

    path: PurePosixPath
    size: int  # bytes it claims to have
    open: Callable[[], IO[bytes] | None]


class _BadArchiveError(Exception):
    """The archive is damaged or asks for something that is refused."""


def _blame(name: object, fault: str) -> _BadArchiveError:
    """What is wrong with a member."""
    return _BadArchiveError(f"'{show_path(str(name))}' {fault}")


class _BoundedGzip(gzip.GzipFile):
    """The tar inside a .tgz, of which no more comes than it may hold.

    The sizes of a tar's files are checked before they are read, but not those of its
    headers, which a small .tgz can make as large as it likes.
    """

    def __init__(self, archive: Path) -> None:
        super().__init__(archive, "rb")
        self._most = _limit(archive.stat().st_size) + _MOST_FILES * _HEADERS

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, as `gzip.GzipFile.read`.

        Raises:
            _BadArchiveError: If there are more of them than the archive may hold.
        """
        wanted = self._most + 1 if size is None or size < 0 else size
        if self.tell() + wanted > self._most:
            raise _BadArchiveError("it holds far more than its size allows")
        return super().read(size)


def unpack(archive: Path, folder: Path, progress: Progress = SILENT) -> None:
    """Write an archive's regular files below `folder`, which must exist and be empty.

    Args:
        archive: A .zip or .tgz file, or else an uncompressed .tar.
        folder: Where they go; whatever came of it stays there on failure.
        progress: Receives megabytes.

    Raises:
        InputError: If the archive is damaged, or holds absolute or climbing paths,
            links, devices, one name twice, or far more than its size allows.
        OutputError: If there is no room, the folder cannot be written, or a file cannot
            have its name there.
    """
    try:
        with _open_members(archive) as found:
            members = _check_members(found, archive.stat().st_size)
            for member in members:
                check_name(folder / member.path)
            total = sum(member.size for member in members)
            _check_room(total, folder)
            progress.start(f"unpacking {archive.name} (MB)", total / MB)
            for member in members:
                _write(member, folder, progress)
    except (
        _BadArchiveError,
        tarfile.TarError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a kind of zip that Python lacks
        ValueError,  # headers that make no sense
    ) as error:
        raise InputError(
            f"{archive} is not unpacked: {error or 'it is cut off'}; download it "
            "again, or unpack a copy you trust yourself"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot unpack {archive} into {folder}: {error.strerror or error}"
        ) from error


@contextmanager
def _open_members(archive: Path) -> Iterator[Iterator[_Member]]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            yield _list_zip(opened)
    elif archive.suffix == ".tgz":
        with (
            _BoundedGzip(archive) as stream,
            tarfile.open(fileobj=stream, mode="r:") as opened_tar,
        ):
            yield _list_tar(opened_tar)
    else:
        with tarfile.open(archive, "r:") as opened_tar:
            yield _list_tar(opened_tar)


def _list_tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        path = _check_path(info.name)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise _blame(info.name, "is a link, a device or sparse")
        yield _Member(path, info.size, partial(archive.extractfile, info))


def _list_zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        # Old archivers of Windows write its own separator, against the format's 4.4.17.
        name = info.filename.replace("\\", "/")
        path = _check_path(name)
        if name.endswith("/"):
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _blame(info.filename, "is a link or a device")
        if info.compress_type not in _PACKINGS or info.flag_bits & 1:
            raise _blame(info.filename, "is packed in an unusual way")
        yield _Member(path, info.file_size, partial(archive.open, info))


def _check_path(name: str) -> PurePosixPath:
    """The path of a member: relative and without `..`, drive or stream (Windows)."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or ":" in name
        or not name.isprintable()
    ):
        raise _blame(name, "would leave the folder or is no plain name")
    return path


def _check_members(found: Iterator[_Member], packed: int) -> list[_Member]:
    """The members to write, once all of them are known to be harmless."""
    members: dict[str, _Member] = {}
    total = 0
    for count, member in enumerate(found, start=1):
        total += member.size
        if total > _limit(packed) or count > _MOST_FILES:
            raise _BadArchiveError("it holds far more than its size allows")
        # Folded: on macOS and Windows "A.png" and "a.png" are one file.
        key = str(member.path).casefold()
        if key in members or not member.path.parts:
            raise _blame(member.path, "is in it twice")
        members[key] = member
    return [member for member in members.values() if not _is_litter(member.path)]


def _limit(packed: int) -> int:
    """The most bytes that an archive of `packed` bytes may unpack to."""
    return _GROWTH * packed + _SLACK


def _is_litter(path: PurePosixPath) -> bool:
    return path.parts[0] == "__MACOSX" or path.name.startswith(_LITTER)


def _check_room(total: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if total > free:
        raise OutputError(
            f"{folder.parent} has no room for {total / MB:.0f} MB ({free / MB:.0f} MB "
            "are free): make room, or choose another folder"
        )


def _write(member: _Member, folder: Path, progress: Progress) -> None:
    path = folder / member.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise _blame(member.path, "is a file and a folder") from error
    with target:
        source = member.open()
        if source is None:
            raise _blame(member.path, "has no content")
        with source:
            while data := source.read(_CHUNK):
                target.write(data)
                progress.advance(len(data) / MB)
        if target.tell() != member.size:
            raise _blame(member.path, "is cut off")
