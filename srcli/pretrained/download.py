"""Downloads that are whole and checked, or not there at all.

A file is gathered in `NAME.part`, which the next call continues after an interruption,
and gets its name only once its size and checksum are right.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from srcli.errors import InputError, OutputError, SrcliError
from srcli.pretrained.part import Part, open_part
from srcli.pretrained.transfer import (
    MB,
    PATIENT,
    Patience,
    Source,
    Transfer,
    TransferError,
)
from srcli.progress import SILENT, Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is there and was checked."""

    path: Path
    size: int
    sha256: str
    fresh: bool  # downloaded just now


def fetch(
    source: Source,
    folder: Path,
    *,
    progress: Progress = SILENT,
    patience: Patience = PATIENT,
    failure: type[SrcliError] = InputError,
) -> Fetched:
    """The source's file in `folder`: the one already there, or else downloaded.

    Args:
        source: What to fetch, and what it must be.
        folder: Where it goes; made if missing.
        progress: Receives megabytes.
        patience: Time limits and number of attempts.
        failure: Raised where the server or the file is at fault.

    Raises:
        SrcliError: `failure` if the file cannot be had, or is not the one expected; it
            is deleted then.
        OutputError: If the file cannot be written.
    """
    target = folder / source.file
    try:
        if urlsplit(source.url).scheme not in ("http", "https"):
            raise TransferError("only http and https addresses are fetched")
        folder.mkdir(parents=True, exist_ok=True)
        with open_part(target) as part:
            return _use_present(source, target, progress) or _download(
                source, part, progress, patience
            )
    except TransferError as error:
        raise failure(
            f"cannot download {source.url}: {error}; run the command again later, or "
            f"put the file at {target} yourself (it is checked there, too)"
        ) from error
    except BlockingIOError as error:
        raise failure(
            f"{target} is being downloaded by another process: wait until it is done"
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}; make room, or choose "
            "another folder"
        ) from error
    except KeyboardInterrupt:
        log.warning("run the command again to go on with %s", target)
        raise


def _use_present(source: Source, target: Path, progress: Progress) -> Fetched | None:
    """The file that is already there, if it is the right one."""
    if not target.is_file():
        return None
    try:
        return Fetched(target, *_check(source, target, progress), fresh=False)
    except TransferError:
        log.warning("%s is damaged: downloading it again", target)
        return None


def _download(
    source: Source, part: Part, progress: Progress, patience: Patience
) -> Fetched:
    Transfer(source, part, progress, patience).run()
    part.flush()
    try:
        size, sha256 = _check(source, part.path, progress)
    except TransferError:
        part.clear()
        raise
    part.finish()
    return Fetched(part.target, size, sha256, fresh=True)


def _check(source: Source, path: Path, progress: Progress) -> tuple[int, str]:
    """The size in bytes and the SHA-256 of a file that is what the source says."""
    size = path.stat().st_size
    if source.size not in (None, size):
        raise TransferError(f"{size} bytes came, not {source.size}")
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False)
    progress.start(f"checking {source.file} (MB)", size / MB)
    with path.open("rb") as file:
        while data := file.read(2**20):
            sha256.update(data)
            if source.md5:
                md5.update(data)
            progress.advance(len(data) / MB)
    for kind, found, expected in (
        ("SHA-256", sha256.hexdigest(), source.sha256),
        ("MD5", md5.hexdigest(), source.md5),
    ):
        if expected not in (None, found):
            voucher = f" as in {source.voucher}" if source.voucher else ""
            raise TransferError(f"wrong {kind}: {found}, not {expected}{voucher}")
    return size, sha256.hexdigest()
