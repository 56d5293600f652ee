"""A file that is being downloaded: `NAME.part`, its lock, and what the server said."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from srcli.writing import claim


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one version of a file on a server from the next.

    Without a validator (an entity tag or a date; RFC 9110, section 8.8) nothing proves
    that the rest still belongs to the part, so the download starts over.
    """

    url: str = ""
    validator: str = ""  # empty: the server gave none
    total: int | None = None  # bytes of the whole file, where the server said so


class Part:
    """The bytes so far and their stamp; `open_part` makes one."""

    def __init__(self, target: Path, handle: BinaryIO) -> None:
        self.target = target
        self.path = part_path(target)
        self.size = os.fstat(handle.fileno()).st_size
        self._handle = handle
        self._note = self.path.with_name(self.path.name + ".json")
        self._ended = False

    def read_stamp(self) -> Stamp:
        """What the server said about these bytes; empty if that is not known."""
        try:
            stamp = Stamp(**json.loads(self._note.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return Stamp()
        return stamp if isinstance(stamp.validator, str) else Stamp()

    def write_stamp(self, stamp: Stamp) -> None:
        """Keep what the server said, for the next attempt or the next process."""
        self._note.write_text(json.dumps(asdict(stamp)), "utf-8")

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        self._handle.write(data)
        self.size += len(data)

    def clear(self) -> None:
        """Forget the bytes and the stamp, but keep the lock."""
        self._handle.seek(0)
        self._handle.truncate()
        self._note.unlink(missing_ok=True)
        self.size = 0

    def flush(self) -> None:
        """Make sure that the bytes are on the disk."""
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def finish(self) -> None:
        """Give the file its name."""
        self._handle.close()  # Windows renames no open file
        self._note.unlink(missing_ok=True)
        self.path.replace(self.target)
        self._ended = True

    def drop_if_empty(self) -> None:
        """Leave nothing behind where nothing was gained."""
        if self.size == 0 and not self._ended:
            self._handle.close()
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)


def part_path(target: Path) -> Path:
    """Where the bytes of a file are gathered before it gets its name."""
    return target.with_name(target.name + ".part")


@contextmanager
def open_part(target: Path) -> Iterator[Part]:
    """The part of `target`, with its bytes so far, for this process alone.

    Raises:
        BlockingIOError: If another process has it open.
        OSError: If it cannot be written.
    """
    path = part_path(target)
    with claim(path), path.open("ab") as handle:
        part = Part(target, handle)
        try:
            yield part
        finally:
            part.drop_if_empty()
