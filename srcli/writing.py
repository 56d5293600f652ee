"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srcli.errors import OutputError
from srcli.storage import Place, can_refuse, is_whole_at_once, reached

if TYPE_CHECKING:
    from upath import UPath

_BLOCK = 1 << 20  # bytes compared at a time
# What file systems say that have no locks, or no second names for a file.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EINVAL)


@contextmanager
def write_whole(
    path: Place, *, replace: bool = True, run: str | None = None
) -> Iterator[Path]:
    """A file to write to; it takes its place at `path` when the block ends.

    It lies beside `path`, or among the temporary files where that is remote. Where the
    block fails, also by Ctrl-C, `path` stays as it was and nothing is left. A program
    that is killed outright leaves the other file, which the next one to write to `path`
    takes over; what a run leaves, `sweep` removes.

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
    part = path.with_name(path.name + ".part") if run is None else _own_part(path, run)
    try:
        if run is not None:  # on a machine that may not have seen the folder yet
            path.parent.mkdir(parents=True, exist_ok=True)
        with _claim(path, part) if run is None else nullcontext():
            try:
                yield part
                _settle(part, path, replace, run)
            finally:
                # Nothing to remove, or no way to: what happened before counts.
                with suppress(OSError):
                    part.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {path}: {error.strerror}") from error


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
                for part in folder.glob(f"*.{run}.*.part"):
                    part.unlink()


def _own_part(path: Place, run: str) -> Any:  # noqa: ANN401 - of the kind of `path`
    """A name beside `path` that no other process has."""
    return path.with_name(f"{path.name}.{run}.{uuid.uuid4().hex[:12]}.part")


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
    beside = _own_part(path, run or "srcli")
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
def _claim(path: Path, part: Path) -> Iterator[None]:
    """Hold `part` against other programs that would write the same file.

    Raises:
        OutputError: If one does.
    """
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"cannot write {path}: another program is writing it"
            ) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        yield
    finally:
        os.close(descriptor)


def _settle(part: Path, path: Path, replace: bool, run: str | None) -> None:
    """Give a written file its name, and not before it is on the disk.

    Raises:
        OutputError: If the name is taken and may not be.
    """
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if _is_written(part, path, run):
        return
    if not replace:
        try:
            os.link(part, path)  # unlike a renaming, fails if the name is taken
        except FileExistsError as error:
            if _is_written(part, path, run):
                return
            raise OutputError(f"{path} has appeared meanwhile: left alone") from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
        if path.exists():
            raise OutputError(f"{path} has appeared meanwhile: left alone")
    part.replace(path)
