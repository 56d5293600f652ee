"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from srcli.errors import OutputError
from srcli.storage import Place, can_refuse, explain, is_whole_at_once, reached

if TYPE_CHECKING:
    from upath import UPath

_BLOCK = 1 << 20  # bytes compared at a time
# What file systems say that have no second names for a file.
_NO_LINKS = (errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EINVAL)
# Windows: such a file goes with its handle, also where its program is killed.
_TEMPORARY = getattr(os, "O_TEMPORARY", 0)
_NTFS_NAME = 255  # UTF-16 units
_TOO_LONG = "its name is too long: choose a shorter one"
_PORTS = (f"{port}{n}" for port in ("COM", "LPT") for n in "123456789\xb9\xb2\xb3")
_DEVICES = frozenset(("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *_PORTS))


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
    if not isinstance(path, Path):
        with _write_remotely(path, replace, run) as part:
            yield part
        return
    part = _part_of(path, run)
    try:
        if run is not None:  # on a machine that may not have seen the folder yet
            path.parent.mkdir(parents=True, exist_ok=True)
        with claim(part) if run is None else nullcontext():
            try:
                yield part
                _settle(part, path, replace, run)
            except BaseException:
                # Nothing to remove, or no way to: what happened before counts.
                with suppress(OSError):
                    part.unlink()
                raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {explain(error)}") from error


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
    """Remove what processes of a run left that were killed while they wrote.

    Args:
        folders: Where they wrote.
        run: Its name.
    """
    for folder in folders:
        # There may be none, or no way to remove it; the results count.
        with suppress(Exception):
            if isinstance(folder, Path) or not is_whole_at_once(folder):
                for part in folder.glob(f".srcli-*.{run}.*.part"):
                    part.unlink()


def check_name(path: Place | PurePath) -> None:
    """See that a file of this name can exist, and the folders to be made for it.

    Args:
        path: The file, here or remote; a `PureWindowsPath` is held to Windows' rules.

    Raises:
        OutputError: If a name is too long, or none that Windows takes, or its drive or
            server is not there.
    """
    if not isinstance(path, PurePath):
        return
    folder = Path(path.anchor)
    if isinstance(path, Path) and not folder.exists():
        raise OutputError(f"cannot write {path}: there is no {path.anchor}")
    for name in path.parts[bool(path.anchor) :]:
        fault = None
        if isinstance(path, PureWindowsPath):
            fault = _refused_by_windows(name)
        else:
            try:
                (folder / name).lstat()
                folder /= name
            except OSError as error:  # else it is yet to be made, in this folder
                fault = _TOO_LONG if error.errno == errno.ENAMETOOLONG else None
        if fault is not None:
            raise OutputError(f"cannot write {path}: {fault}")


def _refused_by_windows(name: str) -> str | None:
    """What is wrong with a part of a path."""
    if name in (".", ".."):
        return None
    if len(name.encode("utf-16-le", "surrogatepass")) // 2 > _NTFS_NAME:
        return _TOO_LONG
    if name.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        return f"{name!r} is a device of Windows"
    if name.endswith((".", " ")):
        return f"Windows would cut off the end of {name!r}"
    if bad := sorted({c for c in name if c < " " or c in '<>:"/\\|?*'}):
        return f"Windows takes no {bad[0]!r} in a name"
    return None


def _part_of(path: Place, run: str | None) -> Any:  # noqa: ANN401 - of the kind of `path`
    """Where `path` is written first; of a run, where no other process does."""
    # A name that is spelled otherwise is the same file on Windows.
    key = hashlib.sha256(os.fsencode(os.path.normcase(path.name))).hexdigest()[:16]
    own = f".{run}.{uuid.uuid4().hex[:12]}" if run else ""
    return path.with_name(f".srcli-{key}{own}.part")


@contextmanager
def _write_remotely(path: UPath, replace: bool, run: str | None) -> Iterator[Path]:
    """`write_whole` for a remote file."""
    with tempfile.TemporaryDirectory(prefix="srcli-") as folder:
        part = Path(folder, "part")
        part.touch()
        yield part
        with reached(path, OutputError, "written"):
            try:
                _upload(part, path, replace, run)
            except FileExistsError as error:
                if run is None or not _read_equal(part, path):
                    raise OutputError(
                        f"{path} has appeared meanwhile: left alone"
                    ) from error


def _upload(part: Path, path: UPath, replace: bool, run: str | None) -> None:
    """Put a local file at a remote place, where it appears whole.

    Raises:
        FileExistsError: If the name is taken and may not be.
    """
    files = path.fs
    if can_refuse(path):  # in the same request that writes
        mode = "overwrite" if replace else "create"
        files.put_file(str(part), path.path, mode=mode)
        return
    if not replace and path.exists():
        raise FileExistsError(path)
    if is_whole_at_once(path):
        files.put_file(str(part), path.path)
        return
    files.makedirs(path.parent.path, exist_ok=True)
    beside = _part_of(path, run or "srcli")
    try:
        files.put_file(str(part), beside.path)
        files.mv(beside.path, path.path)
    except BaseException:
        with suppress(Exception):
            files.rm_file(beside.path)
        raise


def _is_written(part: Path, path: Path, run: str | None) -> bool:
    """Whether another process of the run has written the same file."""
    return run is not None and path.is_file() and _read_equal(part, path)


def _read_equal(part: Path, path: Place) -> bool:
    """Whether both files have the same content."""
    if part.stat().st_size != path.stat().st_size:
        return False
    with part.open("rb") as ours, path.open("rb") as theirs:
        while block := ours.read(_BLOCK):
            if theirs.read(len(block)) != block:
                return False
    return True


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
    # Windows lets nobody read or rename what is locked: there it is a file of its own.
    lock = part.with_suffix(".lock") if _TEMPORARY else part
    descriptor = _open_locked(lock)
    try:
        yield
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """A descriptor of the file, made if need be, that holds its lock."""
    from filelock import lock_descriptor  # noqa: PLC0415 - slow to load

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _TEMPORARY, 0o666)
        try:
            is_free = lock_descriptor(descriptor, blocking=False)
        except OSError:
            is_free = True  # a network folder without locks
        # Whoever held it may have given its name away meanwhile.
        if is_free and _is_named(descriptor, path):
            return descriptor
        os.close(descriptor)
        if not is_free:
            raise BlockingIOError(errno.EAGAIN, "another program is writing it")


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _settle(part: Path, path: Path, replace: bool, run: str | None) -> None:
    """Give a written file its name, and not before it is on the disk.

    Raises:
        OutputError: If the name is taken and may not be.
    """
    with part.open("r+b") as file:
        os.fsync(file.fileno())
    if replace and not _is_written(part, path, run):
        part.replace(path)
        return  # the old name may be another program's by now
    if not replace:
        taken = OutputError(f"{path} has appeared meanwhile: left alone")
        try:
            os.link(part, path)  # unlike a renaming, fails if the name is taken
        except FileExistsError as error:
            if not _is_written(part, path, run):
                raise taken from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not path.exists():
                part.replace(path)
                return
            if not _is_written(part, path, run):
                raise taken from error
    with suppress(OSError):
        part.unlink()
