"""Downloads that are whole and checked, or not there at all.

The only code of the program that uses the network. A file is gathered in `NAME.part`
and gets its name once its size and checksum are right. A broken transfer goes on where
it stopped, in the next call too, but only if the server confirms that the file is still
the same one (If-Range, RFC 9110, section 13.1.5).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import BinaryIO
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from srcli import __version__
from srcli.errors import InputError, OutputError, SrcliError
from srcli.progress import SILENT, Progress
from srcli.writing import claim

log = logging.getLogger(__name__)

MB = 1e6
ATTEMPTS = 5  # in a row, without gaining a mebibyte
CONNECT_S = 10.0
READ_S = 30.0  # without a byte
_BACK_OFF_S = 1.0  # before the second attempt; doubles
_LONGEST_WAIT_S = 60.0
_LARGEST = 64 * 2**30  # bytes accepted where the size is not known
_GAIN = 2**20
_CHUNK = 2**16
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_HEADERS = {
    "User-Agent": f"srcli/{__version__}",
    "Accept-Encoding": "identity",  # offsets count the file's own bytes
}


class _TransferError(Exception):
    """The transfer failed for good; the text says why."""


class _BrokenOffError(Exception):
    """The attempt failed in a way that the next one may not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # None: the usual back-off


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is there and was checked."""

    sha256: str
    fresh: bool  # downloaded just now


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    progress: Progress = SILENT,
    failure: type[SrcliError] = InputError,
) -> Fetched:
    """Have a file of a server at `target`: the one that is there, or else downloaded.

    Args:
        url: Where it is fetched from.
        target: The file; its folder is made if missing.
        size: Bytes, where known exactly.
        sha256: In hexadecimal; None is not known.
        md5: The same; finds damage, not malice.
        progress: Receives megabytes.
        failure: Raised where the server or the file is at fault.

    Raises:
        SrcliError: `failure` if the file cannot be had, or is not the one expected; it
            is deleted then.
        OutputError: If the file cannot be written.
    """
    hashes = {"SHA-256": sha256, "MD5": md5}
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise _TransferError("only http and https addresses are fetched")
        target.parent.mkdir(parents=True, exist_ok=True)
        with claim(_part_of(target)):
            return _Transfer(url, target, size, hashes, progress).have()
    except _TransferError as error:
        raise failure(
            f"cannot download {url}: {error}; run the command again later, or put the "
            f"file at {target} yourself (it is checked there, too)"
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


def _part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


class _Transfer:
    """Fills a part with a file's bytes, in as many attempts as it takes.

    Without a validator (an entity tag or a date; RFC 9110, section 8.8) nothing proves
    that the rest still belongs to the part, so the download starts over.
    """

    _file: BinaryIO  # the part, open at its end

    def __init__(
        self,
        url: str,
        target: Path,
        size: int | None,
        hashes: dict[str, str | None],
        progress: Progress,
    ) -> None:
        self._url = url
        self._target = target
        self._size = size
        self._hashes = hashes
        self._progress = progress
        self._part = _part_of(target)
        # What the server said about the bytes that are there.
        self._note = self._part.with_name(f"{self._part.name}.json")
        self._validator = ""
        self._total: int | None = None  # bytes of the whole file
        with suppress(OSError, ValueError, TypeError, KeyError):
            said = json.loads(self._note.read_text("utf-8"))
            if said["url"] == url:
                self._validator, self._total = str(said["validator"]), said["total"]

    def have(self) -> Fetched:
        """The file that is there, or is now."""
        try:
            if self._target.is_file():
                try:
                    return Fetched(self._check(self._target), fresh=False)
                except _TransferError:
                    damaged = "%s is damaged: downloading it again"
                    log.warning(damaged, self._target)
            with self._part.open("ab") as self._file:
                self._run()
                self._file.flush()
                os.fsync(self._file.fileno())
            try:
                found = self._check(self._part)
            except _TransferError:
                self._part.write_bytes(b"")
                raise
            self._part.replace(self._target)
            self._note.unlink(missing_ok=True)
            return Fetched(found, fresh=True)
        finally:
            if self._part.exists() and self._part.stat().st_size == 0:
                self._part.unlink()
                self._note.unlink(missing_ok=True)

    def _check(self, path: Path) -> str:
        """The SHA-256 of a file that has the right size and hashes."""
        size = path.stat().st_size
        if self._size not in (None, size):
            raise _TransferError(f"{size} bytes came, not {self._size}")
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self._progress.start(f"checking {self._target.name} (MB)", size / MB)
        with path.open("rb") as file:
            while data := file.read(2**20):
                sha256.update(data)
                md5.update(data)
                self._progress.advance(len(data) / MB)
        for kind, found in (("SHA-256", sha256.hexdigest()), ("MD5", md5.hexdigest())):
            if self._hashes[kind] not in (None, found):
                expected = self._hashes[kind]
                raise _TransferError(f"wrong {kind}: {found}, not {expected}")
        return sha256.hexdigest()

    @property
    def _done(self) -> int:
        return self._file.tell()

    def _run(self) -> None:
        """Fetch what is missing."""
        failures = 0
        with requests.Session() as session:
            session.headers.update(_HEADERS)
            while self._done == 0 or self._done != self._total:
                before = self._done
                try:
                    return self._attempt(session)
                except _BrokenOffError as error:
                    gained = self._done - before >= _GAIN
                    failures = 1 if gained else failures + 1
                    self._wait(failures, error)

    def _wait(self, failures: int, error: _BrokenOffError) -> None:
        if failures >= ATTEMPTS:
            kept = f" ({self._done / MB:.1f} MB are kept)" if self._done else ""
            raise _TransferError(f"{error}{kept}") from error
        back_off = _BACK_OFF_S * 2 ** (failures - 1)
        wait_s = min(
            back_off if error.wait_s is None else error.wait_s, _LONGEST_WAIT_S
        )
        log.warning("%s: %s; next attempt in %g s", self._target.name, error, wait_s)
        sleep(wait_s)

    def _attempt(self, session: requests.Session) -> None:
        if not self._validator:
            self._start_over()
        headers = {}
        if self._done:
            headers = {"Range": f"bytes={self._done}-", "If-Range": self._validator}
        limits = (CONNECT_S, READ_S)
        try:
            with session.get(
                self._url, headers=headers, stream=True, timeout=limits
            ) as response:
                self._accept(response)
                self._receive(response)
        except requests.exceptions.SSLError as error:
            raise _TransferError("its certificate cannot be verified") from error
        except (requests.Timeout, requests.ConnectionError) as error:
            raise _BrokenOffError("the server cannot be reached") from error
        except requests.RequestException as error:
            raise _TransferError(str(error)) from error
        except HTTPError as error:
            raise _BrokenOffError("the connection broke off") from error

    def _accept(self, response: requests.Response) -> None:
        """Decide from status and headers what the body is, and where it goes."""
        status = response.status_code
        answer = f"the server answers {status} {response.reason}"
        if status in _PASSING:
            asked = response.headers.get("Retry-After", "")
            raise _BrokenOffError(answer, float(asked) if asked.isdecimal() else None)
        tag = response.headers.get("ETag", "")
        # A weak tag promises the same meaning, not the same bytes.
        validator = tag if tag[:1] == '"' else response.headers.get("Last-Modified", "")
        if status in (206, 416) and self._done:
            self._continue_with(response, validator)
        elif status != 200:
            raise _TransferError(answer)
        elif response.headers.get("Content-Type", "").startswith("text/html"):
            raise _TransferError("the server sends a web page instead of the file")
        else:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            self._check_total(total)  # before the part is given up for it
            self._start_over()
            self._validator, self._total = validator, total
        self._check_room()
        said = {"url": self._url, "validator": self._validator, "total": self._total}
        self._note.write_text(json.dumps(said), "utf-8")
        total_mb = None if self._total is None else self._total / MB
        self._progress.start(f"downloading {self._target.name} (MB)", total_mb)
        self._progress.advance(self._done / MB)

    def _continue_with(self, response: requests.Response, validator: str) -> None:
        """Make sure that a partial answer continues the part; not all servers do."""
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if (
            match is None
            or int(match[1]) != self._done
            or self._total not in (None, int(match[2]))
            or validator not in ("", self._validator)
        ):
            self._start_over()
            raise _BrokenOffError("the file has changed on the server", 0)
        self._total = int(match[2])
        self._check_total(self._total)

    def _check_total(self, total: int | None) -> None:
        """Make sure that the size that the server states can be right."""
        if total is None:
            return
        if self._size not in (None, total):
            raise _TransferError(
                f"the server's file has {total} bytes, not {self._size}"
            )
        if total > _LARGEST:
            raise _TransferError(f"the server's file is too large ({total} bytes)")

    def _check_room(self) -> None:
        missing = (self._total or self._size or 0) - self._done
        free = shutil.disk_usage(self._target.parent).free
        if missing > free:
            raise OutputError(
                f"{self._target} needs {missing / MB:.0f} MB more and only "
                f"{free / MB:.0f} MB are free: make room, or choose another folder"
            )

    def _receive(self, response: requests.Response) -> None:
        """Append the body to the part."""
        whole = self._total or self._size
        most = whole or _LARGEST
        for data in response.raw.stream(_CHUNK, decode_content=False):
            if self._done + len(data) > most:
                self._start_over()
                raise _TransferError(f"the server sends more than {most} bytes")
            self._file.write(data)
            self._progress.advance(len(data) / MB)
        if whole not in (None, self._done):
            raise _BrokenOffError("the server ended too early")

    def _start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._note.unlink(missing_ok=True)
        self._validator, self._total = "", None
