"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from srcli.errors import OutputError
from srcli.storage import Place, explain

if TYPE_CHECKING:
    from upath import UPath

# Stores that can refuse a taken name in the request that writes.
_REFUSING_STORES = frozenset(("s3", "s3a", "gs", "gcs"))
# Stores whose files appear whole: an upload that breaks off leaves nothing.
_WHOLE_STORES = _REFUSING_STORES | {
    "az", "abfs", "abfss", "adl", "oss", "oci", "memory"
}  # fmt: skip
# Windows: such a file goes with its handle, also where its program is killed.
_TEMPORARY = getattr(os, "O_TEMPORARY", 0)
_BLOCK = 1 << 20  # bytes compared at a time
_LONGEST_NAME = 255  # bytes; of NTFS UTF-16 units
_REFUSED_BY_WINDOWS = re.compile(
    r'[\x00-\x1f<>:"/\\|?*]|[. ]$'
    r"|^(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[1-9\xb9\xb2\xb3]) *(\.|$)",
    re.IGNORECASE,
)


@contextmanager
def write_whole(
    path: Place, *, replace: bool = True, run: str | None = None
) -> Iterator[Path]:
    """A file to write to; it takes its place at `path` when the block ends.

    It lies beside `path`, hidden, under a short name made from its own, or among the
    temporary files where that is remote. Where the block fails, also by Ctrl-C, `path`
    stays as it was and nothing is left. A program that is killed outright leaves the
    other file, which the next one to write to `path` takes over; what a run leaves,
    `sweep` removes.

    Args:
        path: The file.
        replace: Whether it may be there by then.
        run: The name of a run whose processes may write the same file twice, also at
            the same time; one that is there may then have the same content.

    Raises:
        OutputError: If the file cannot be written, is there already and may not be
            replaced, or is just being written by another program.
    """
    try:
        with _open_part(path, run) as part:
            yield part
            try:
                if isinstance(path, Path):
                    _rename(part, path, replace)
                else:
                    _upload(part, path, replace, run)
            except FileExistsError as error:
                if run is None or not _are_equal(part, path):
                    raise OutputError(
                        f"{path} has appeared meanwhile: left alone"
                    ) from error
                part.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {explain(error)}") from error


@contextmanager
def _open_part(path: Place, run: str | None) -> Iterator[Path]:
    """Where `path` is written first; it is gone if the block fails."""
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="srcli-") as folder:
            part = Path(folder, "part")
            part.touch()
            yield part
        return
    if run is not None:  # on a machine that may not have seen the folder yet
        make_folder(path.parent)
    part = _name_part(path, run)
    with claim(part) if run is None else nullcontext():
        try:
            yield part
        except BaseException:
            # Nothing to remove, or no way to: what happened before counts.
            with suppress(OSError):
                part.unlink()
            raise


def _name_part(path: Place, run: str | None) -> Any:  # noqa: ANN401 - of the kind of `path`
    """A hidden name beside `path`; of a run, one that no other process uses."""
    # A name that is spelled otherwise is the same file on Windows.
    key = hashlib.sha256(os.fsencode(os.path.normcase(path.name))).hexdigest()[:16]
    own = f".{run}.{uuid.uuid4().hex[:12]}" if run else ""
    return path.with_name(f".srcli-{key}{own}.part")


def _rename(part: Path, path: Path, replace: bool) -> None:
    """Give a written file its name, and not before it is on the disk.

    Raises:
        FileExistsError: If the name is taken and may not be.
    """
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    if replace:
        part.replace(path)
        return  # the old name may be another program's by now
    try:
        os.link(part, path)  # unlike a renaming, fails if the name is taken
    except FileExistsError:
        raise
    except OSError as error:  # file systems without second names are looked at
        if path.exists():
            raise FileExistsError(path) from error
        part.replace(path)
    else:
        part.unlink()


def _are_equal(part: Path, path: Place) -> bool:
    """Whether both files hold the same; they may be larger than memory."""
    with part.open("rb") as ours, path.open("rb") as theirs:
        while (block := ours.read(_BLOCK)) == theirs.read(_BLOCK):
            if not block:
                return True
    return False


def _upload(part: Path, path: UPath, replace: bool, run: str | None) -> None:
    """Put a local file at a remote place, where it appears whole.

    Raises:
        FileExistsError: If the name is taken and may not be.
        OutputError: If it cannot be written.
    """
    files = path.fs
    try:
        if path.protocol in _REFUSING_STORES:
            mode = "overwrite" if replace else "create"
            files.put_file(str(part), path.path, mode=mode)
        elif not replace and path.exists():
            raise FileExistsError(path)
        elif path.protocol in _WHOLE_STORES:
            files.put_file(str(part), path.path)
        else:
            files.makedirs(path.parent.path, exist_ok=True)
            beside = _name_part(path, run or "srcli")
            try:
                files.put_file(str(part), beside.path)
                files.mv(beside.path, path.path)
            except BaseException:
                with suppress(Exception):
                    files.rm_file(beside.path)
                raise
    except FileExistsError:
        raise
    except Exception as error:  # whatever a file system raises
        raise OutputError(f"cannot write {path}: {explain(error)}") from error


@contextmanager
def claim(part: Path) -> Iterator[None]:
    """Hold a file that grows beside its target against other programs.

    A lock ends with its program. File systems without locks are left to chance.

    Args:
        part: The file; made empty where it is not there.

    Raises:
        BlockingIOError: If another program holds it.
        OSError: If it cannot be made.
    """
    from filelock import lock_descriptor  # noqa: PLC0415 - slow to load

    # Windows lets nobody read or rename what is locked: there it is a file of its own.
    lock = part.with_suffix(".lock") if _TEMPORARY else part
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | _TEMPORARY, 0o666)
        try:
            is_free = True
            with suppress(OSError):  # a network folder without locks
                is_free = lock_descriptor(descriptor, blocking=False)
            if not is_free:
                raise BlockingIOError(errno.EAGAIN, "another program is writing it")
            # Whoever held it may have given its name away meanwhile.
            if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {path}: {explain(error)}") from error


def sweep(folders: Iterable[Place], run: str) -> None:
    """Remove from folders what processes of a run left that were killed."""
    for folder in folders:
        # There may be none, or no way to remove it; the results count.
        with suppress(Exception):
            if isinstance(folder, Path) or folder.protocol not in _WHOLE_STORES:
                for part in folder.glob(f".srcli-*.{run}.*.part"):
                    part.unlink()


def check_name(path: Place | PurePath) -> None:
    """See that a file of this name can exist, and the folders to be made for it.

    Args:
        path: The file, here or remote; a `PureWindowsPath` is held to Windows' rules.

    Raises:
        OutputError: If a name is too long, or none that Windows takes.
    """
    if not isinstance(path, PurePath):
        return
    on_windows = isinstance(path, PureWindowsPath)
    for name in path.parts[bool(path.anchor) :]:
        units = len(name.encode("utf-16-le", "surrogatepass")) // 2
        if (units if on_windows else len(os.fsencode(name))) > _LONGEST_NAME:
            raise OutputError(
                f"cannot write {path}: its name is too long: choose a shorter one"
            )
        if on_windows and name != ".." and _REFUSED_BY_WINDOWS.search(name):
            raise OutputError(f"cannot write {path}: Windows takes no name {name!r}")
