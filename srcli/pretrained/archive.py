"""Unpacking of tar, tgz and zip archives that nobody vouches for.

What could write outside the folder or fill the disk is refused before the first file
is written; `tarfile` (PEP 706) and `zipfile` keep to the folder by themselves, too.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path, PureWindowsPath
from typing import TypeAlias

from srcli.errors import InputError, OutputError
from srcli.progress import SILENT, Progress
from srcli.storage import show_path

MB = 1e6
_GROWTH = 20  # unpacked bytes per packed byte; pictures hardly shrink
_SLACK = 2**20
_MOST_FILES = 100_000
# What macOS and Windows leave in archives; a "._baby.png" would pass for a picture.
_LITTER = ("._", ".DS_Store", "Thumbs.db", "desktop.ini")

# Its name, its bytes, and what writes it; None for a folder.
_Member: TypeAlias = tuple[str, int, Callable[[], object] | None]


class _BadArchiveError(Exception):
    """The archive asks for something that is refused."""


def unpack(archive: Path, folder: Path, progress: Progress = SILENT) -> None:
    """Write an archive's files below `folder`, which must exist and be empty.

    Args:
        archive: A .zip or .tgz file, or else an uncompressed .tar.
        folder: Where they go; whatever came of it stays there on failure.
        progress: Receives megabytes.

    Raises:
        InputError: If the archive is damaged, or holds absolute or climbing paths,
            links, devices, or far more than its size allows.
        OutputError: If there is no room, or the folder cannot be written.
    """
    most = _GROWTH * archive.stat().st_size + _SLACK
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as opened_zip:
                _write(_list_zip(opened_zip, folder), folder, most, progress)
            return
        is_packed = archive.suffix == ".tgz"
        tar = _decompress(archive, folder / ".tar", most) if is_packed else archive
        with tarfile.open(tar, "r:") as opened_tar:
            _write(_list_tar(opened_tar, folder), folder, most, progress)
    except (
        _BadArchiveError,
        tarfile.TarError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        MemoryError,  # headers that claim to be huge
        RuntimeError,  # a password, or a kind of zip that Python lacks
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


def _list_zip(archive: zipfile.ZipFile, folder: Path) -> Iterator[_Member]:
    for member in archive.infolist():
        # Old archivers of Windows write its own separator, against the format's 4.4.17.
        member.filename = member.filename.replace("\\", "/")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _BadArchiveError(f"'{show_path(member.filename)}' is a link")
        write = None if member.is_dir() else partial(archive.extract, member, folder)
        yield member.filename, member.file_size, write


def _list_tar(archive: tarfile.TarFile, folder: Path) -> Iterator[_Member]:
    for member in archive:
        if not (member.isreg() or member.isdir()):
            raise _BadArchiveError(f"'{show_path(member.name)}' is a link or a device")
        write = partial(archive.extract, member, folder, filter="data")
        yield member.name, member.size, write if member.isreg() else None


def _decompress(archive: Path, target: Path, most: int) -> Path:
    """The tar of a .tgz, written beside what is unpacked."""
    with gzip.open(archive) as packed, target.open("wb") as tar:
        while data := packed.read(2**18):
            tar.write(data)
            if tar.tell() > most:
                raise _BadArchiveError("it holds far more than its size allows")
    return target


def _write(
    listed: Iterable[_Member], folder: Path, most: int, progress: Progress
) -> None:
    """Write the files, unless a name leads out of the folder, or it is too much."""
    members = list(islice(listed, _MOST_FILES + 1))
    for name, _, _ in members:
        path = PureWindowsPath(name)  # which takes the separators of all systems
        if path.anchor or ".." in path.parts:
            raise _BadArchiveError(f"'{show_path(name)}' would leave the folder")
    total = sum(size for _, size, _ in members)
    if total > most or len(members) > _MOST_FILES:
        raise _BadArchiveError("it holds far more than its size allows")
    free = shutil.disk_usage(folder).free
    if total > free:
        raise OutputError(
            f"{folder.parent} has no room for {total / MB:.0f} MB ({free / MB:.0f} MB "
            "are free): make room, or choose another folder"
        )
    progress.start("unpacking (MB)", total / MB)
    for name, size, write in members:
        if write is not None and not _is_litter(name):
            write()
            progress.advance(size / MB)


def _is_litter(name: str) -> bool:
    path = Path(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(_LITTER)
