"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from srcli.errors import OutputError


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it takes its place when the block ends.

    Where the block fails, also by Ctrl-C, `path` stays as it was and nothing is left.

    Raises:
        OutputError: If the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # Nothing to remove, or no way to: what happened before counts.
        with suppress(OSError):
            part.unlink()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {path}: {error.strerror}") from error
