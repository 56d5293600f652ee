"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srcli.errors import OutputError

# What file systems say that have no locks, or no second names for a file.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EPERM, errno.EINVAL)


@contextmanager
def write_whole(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A file beside `path` to write to; it takes its place when the block ends.

    Where the block fails, also by Ctrl-C, `path` stays as it was and nothing is left. A
    program that is killed outright leaves the other file, which the next one to write
    to `path` takes over.

    Args:
        path: The file.
        replace: Whether it may be there by then.

    Raises:
        OutputError: If the file cannot be written, is there already and may not be
            replaced, or is just being written by another program.
    """
    part = path.with_name(path.name + ".part")
    try:
        with _claim(path, part):
            try:
                yield part
                _settle(part, path, replace)
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


def _settle(part: Path, path: Path, replace: bool) -> None:
    """Give a written file its name, and not before it is on the disk.

    Raises:
        OutputError: If the name is taken and may not be.
    """
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if not replace:
        try:
            os.link(part, path)  # unlike a renaming, fails if the name is taken
        except FileExistsError as error:
            raise OutputError(f"{path} has appeared meanwhile: left alone") from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
        if path.exists():
            raise OutputError(f"{path} has appeared meanwhile: left alone")
    part.replace(path)
