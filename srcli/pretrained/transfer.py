"""Downloads that are whole and checked, or not there at all.

The only code of the program that uses the network. A file is gathered in `NAME.part`
and gets its name once its size and checksum are right. A broken transfer goes on where
it stopped, in the next call too; that the rest still belongs to the part, the checksum
says, or the file is fetched again from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import BinaryIO

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
_LONGEST_WAIT_S = 60.0  # whatever the server asks for
_GAIN = 2**20
_CHUNK = 2**16
_LARGEST = 64 * 2**30  # bytes accepted where the size is not known
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_RANGE = re.compile(r"bytes (\d+)-(\d+)/.+")
_HEADERS = {
    "User-Agent": f"srcli/{__version__}",
    "Accept-Encoding": "identity",  # offsets count the file's own bytes
}


class _TransferError(Exception):
    """The transfer failed for good; the text says why."""


class _BrokenOffError(Exception):
    """The attempt failed in a way that the next one may not.

    `wait` is what the server asks for: the seconds of a Retry-After.
    """

    def __init__(self, reason: str, wait: str = "") -> None:
        super().__init__(reason)
        self.wait_s = min(float(wait), _LONGEST_WAIT_S) if wait.isdecimal() else None


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    progress: Progress = SILENT,
    failure: type[SrcliError] = InputError,
) -> tuple[str, bool]:
    """Have a file of a server at `target`: the one that is there, or else downloaded.

    Args:
        url: Where it is fetched from.
        target: The file; its folder is made if missing.
        size: Bytes, where known exactly.
        sha256: In hexadecimal, where known.
        md5: The same; finds damage, not malice.
        progress: Receives megabytes.
        failure: Raised where the server or the file is at fault.

    Returns:
        The SHA-256 that was found, and whether the file was downloaded just now.

    Raises:
        SrcliError: `failure` if the file cannot be had, or is not the one expected; it
            is deleted then.
        OutputError: If the file cannot be written.
    """
    known = {"SHA-256": sha256, "MD5": md5}
    try:
        if not url.startswith(("http://", "https://")):
            raise _TransferError("only http and https addresses are fetched")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with claim(part):
            return _Transfer(url, target, part, size, known, progress).have()
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


@dataclass(slots=True)
class _Transfer:
    """Fills a part with a file's bytes, in as many attempts as it takes."""

    url: str
    target: Path
    part: Path
    size: int | None
    known: dict[str, str | None]  # hashes by their kind
    progress: Progress

    def have(self) -> tuple[str, bool]:
        """The file's hash, and whether it had to be downloaded."""
        try:
            if self.target.is_file():
                try:
                    return self._check(self.target), False
                except _TransferError as error:
                    log.warning("%s: %s: downloading it again", self.target, error)
            with self.part.open("ab") as file:
                # A part may be of another version: then all of it is missing.
                is_fresh = file.tell() == 0
                found = self._fill(file, is_last=is_fresh) or self._fill(file)
            self.part.replace(self.target)
            return found, True
        finally:
            if self.part.exists() and self.part.stat().st_size == 0:
                self.part.unlink()

    def _fill(self, file: BinaryIO, *, is_last: bool = True) -> str:
        """Fetch what is missing; the hash, or "" where it is wrong and not the last."""
        self._receive_all(file)
        file.flush()
        os.fsync(file.fileno())
        try:
            return self._check(self.part)
        except _TransferError:
            _clear(file)
            if is_last:
                raise
            return ""

    def _check(self, path: Path) -> str:
        """The SHA-256 of a file that has the right size and hashes."""
        size = path.stat().st_size
        if self.size not in (None, size):
            raise _TransferError(f"{size} bytes came, not {self.size}")
        sums = {"SHA-256": hashlib.sha256(), "MD5": hashlib.md5(usedforsecurity=False)}
        self.progress.start(f"checking {self.target.name} (MB)", size / MB)
        with path.open("rb") as file:
            while data := file.read(2**20):
                for each in sums.values():
                    each.update(data)
                self.progress.advance(len(data) / MB)
        for kind, expected in self.known.items():
            if expected not in (None, found := sums[kind].hexdigest()):
                raise _TransferError(f"wrong {kind}: {found}, not {expected}")
        return sums["SHA-256"].hexdigest()

    def _receive_all(self, file: BinaryIO) -> None:
        failures = 0
        with requests.Session() as session:
            session.headers.update(_HEADERS)
            while True:
                before = file.tell()
                try:
                    return self._attempt(session, file)
                except _BrokenOffError as error:
                    failures = 1 if file.tell() - before >= _GAIN else failures + 1
                    if failures >= ATTEMPTS:
                        kept = f" ({file.tell() / MB:.1f} MB are kept)"
                        raise _TransferError(f"{error}{kept}") from error
                    wait_s = error.wait_s
                    if wait_s is None:
                        wait_s = 2.0 ** (failures - 1)
                    words = self.target.name, error, wait_s
                    log.warning("%s: %s; next attempt in %g s", *words)
                    sleep(wait_s)

    def _attempt(self, session: requests.Session, file: BinaryIO) -> None:
        if not any(self.known.values()):
            _clear(file)  # nothing would show that the rest is of the same file
        done = file.tell()
        if done and done == self.size:
            return
        headers = {"Range": f"bytes={done}-"} if done else {}
        limits = (CONNECT_S, READ_S)
        try:
            with session.get(
                self.url, headers=headers, stream=True, timeout=limits
            ) as response:
                if response.status_code == 416 and done:
                    return  # nothing is missing; if that is wrong, the hash is
                total = self._accept(response, file)
                self._receive(response, file, total)
        except requests.exceptions.SSLError as error:
            raise _TransferError("its certificate cannot be verified") from error
        except (requests.Timeout, requests.ConnectionError) as error:
            raise _BrokenOffError("the server cannot be reached") from error
        except requests.RequestException as error:
            raise _TransferError(str(error)) from error
        except HTTPError as error:
            raise _BrokenOffError("the connection broke off") from error

    def _accept(self, response: requests.Response, file: BinaryIO) -> int | None:
        """Make sure that the body is the file or its rest; the bytes of the whole."""
        status, said = response.status_code, response.headers
        answer = f"the server answers {status} {response.reason}"
        if status in _PASSING:
            raise _BrokenOffError(answer, said.get("Retry-After", ""))
        match = _RANGE.fullmatch(said.get("Content-Range", ""))
        if status == 206 and (match is None or int(match[1]) != file.tell()):
            _clear(file)
            raise _BrokenOffError("the server sends another part than asked")
        if status not in (200, 206):
            raise _TransferError(answer)
        if said.get("Content-Type", "").startswith("text/html"):
            raise _TransferError("the server sends a web page instead of the file")
        length = said.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if match is not None and status == 206:
            total = int(match[2]) + 1
        if None not in (self.size, total) and total != self.size:
            raise _TransferError(
                f"the server's file has {total} bytes, not {self.size}"
            )
        if status == 200:  # and not before: the part may be good for the next call
            _clear(file)
        return self.size if total is None else total

    def _receive(
        self, response: requests.Response, file: BinaryIO, total: int | None
    ) -> None:
        """Append the body to the part."""
        missing = (total or 0) - file.tell()
        free = shutil.disk_usage(self.target.parent).free
        if missing > free:
            raise OutputError(
                f"{self.target} needs {missing / MB:.0f} MB more and only "
                f"{free / MB:.0f} MB are free: make room, or choose another folder"
            )
        known_mb = None if total is None else total / MB
        self.progress.start(f"downloading {self.target.name} (MB)", known_mb)
        self.progress.advance(file.tell() / MB)
        for data in response.raw.stream(_CHUNK, decode_content=False):
            if file.tell() + len(data) > (total or _LARGEST):
                _clear(file)
                raise _TransferError("the server sends more than the file should have")
            file.write(data)
            self.progress.advance(len(data) / MB)
        if total not in (None, file.tell()):
            raise _BrokenOffError("the server ended too early")


def _clear(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()
