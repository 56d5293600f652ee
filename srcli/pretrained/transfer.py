"""One file over HTTP: the only code of the program that uses the network.

A broken transfer goes on where it stopped, but only if the server confirms that the
file is still the same one (If-Range, RFC 9110, section 13.1.5).
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from srcli import __version__
from srcli.errors import OutputError
from srcli.pretrained.part import Part, Stamp
from srcli.progress import Progress

log = logging.getLogger(__name__)

MB = 1e6
_CHUNK = 2**16
_GAIN = 2**20  # bytes after which an attempt counts as a success
_LONGEST_WAIT_S = 60.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class Source:
    """A file on a server."""

    url: str
    file: str  # its name here
    size: int | None = None  # bytes, where known exactly
    sha256: str | None = None
    md5: str | None = None  # what old data sets publish; finds damage, not malice
    voucher: str = ""  # who states the checksum, where it is not the publisher
    limit: int = 64 * 2**30  # bytes accepted where the size is not known


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait and how often to try."""

    attempts: int = 5  # in a row, without gaining a mebibyte
    connect_s: float = 10.0
    read_s: float = 30.0  # without a byte
    back_off_s: float = 1.0  # before the second attempt; doubles, up to a minute
    sleep: Callable[[float], None] = time.sleep


PATIENT = Patience()


class TransferError(Exception):
    """The transfer failed for good; the text says why."""


class _BrokenOffError(Exception):
    """The attempt failed in a way that the next one may not."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # None: the usual back-off


class Transfer:
    """Fills a part with a source's bytes, in as many attempts as it takes."""

    def __init__(
        self, source: Source, part: Part, progress: Progress, patience: Patience
    ) -> None:
        self._source = source
        self._part = part
        self._progress = progress
        self._patience = patience
        self._stamp = part.read_stamp()
        if self._stamp.url != source.url or not self._stamp.validator:
            self._start_over()

    def run(self) -> None:
        """Fetch what is missing.

        Raises:
            TransferError: If the server does not give the file.
        """
        failures = 0
        with requests.Session() as session:
            session.headers.update(
                {
                    "User-Agent": f"srcli/{__version__}",
                    "Accept-Encoding": "identity",  # offsets count the file's own bytes
                }
            )
            while self._part.size == 0 or self._part.size != self._stamp.total:
                before = self._part.size
                try:
                    return self._attempt(session)
                except _BrokenOffError as error:
                    gained = self._part.size - before >= _GAIN
                    failures = 1 if gained else failures + 1
                    self._wait(failures, error)

    def _wait(self, failures: int, error: _BrokenOffError) -> None:
        if failures >= self._patience.attempts:
            kept = (
                f" ({self._part.size / MB:.1f} MB are kept)" if self._part.size else ""
            )
            raise TransferError(f"{error}{kept}") from error
        wait_s = error.wait_s
        if wait_s is None:
            wait_s = self._patience.back_off_s * 2 ** (failures - 1)
        wait_s = min(wait_s, _LONGEST_WAIT_S)
        log.warning("%s: %s; next attempt in %g s", self._source.file, error, wait_s)
        self._patience.sleep(wait_s)

    def _attempt(self, session: requests.Session) -> None:
        if self._part.size and not self._stamp.validator:
            self._start_over()
        headers = {}
        if self._part.size:
            headers["Range"] = f"bytes={self._part.size}-"
            headers["If-Range"] = self._stamp.validator
        limits = (self._patience.connect_s, self._patience.read_s)
        try:
            with session.get(
                self._source.url, headers=headers, stream=True, timeout=limits
            ) as response:
                self._accept(response)
                self._receive(response)
        except requests.exceptions.SSLError as error:
            raise TransferError("its certificate cannot be verified") from error
        except requests.Timeout as error:
            raise _BrokenOffError("the server does not answer") from error
        except requests.ConnectionError as error:
            raise _BrokenOffError("the server cannot be reached") from error
        except requests.RequestException as error:
            raise TransferError(str(error)) from error

    def _accept(self, response: requests.Response) -> None:
        """Decide from status and headers what the body is, and where it goes."""
        self._refuse_downgrade(response)
        self._check_answer(response)
        stamp = _read_stamp(self._source.url, response)
        if response.status_code == 206:
            self._continue_with(stamp, response.headers.get("Content-Range", ""))
        else:
            self._check_total(stamp.total)  # before the part is given up for it
            self._start_over()
            self._stamp = stamp
        self._check_room()
        self._part.write_stamp(self._stamp)
        self._progress.start(
            f"downloading {self._source.file} (MB)",
            self._stamp.total and self._stamp.total / MB,
        )
        self._progress.advance(self._part.size / MB)

    def _check_answer(self, response: requests.Response) -> None:
        """Make sure that the body is the file or the rest of it."""
        answer = f"the server answers {response.status_code} {response.reason}"
        if response.status_code in _PASSING:
            wait_s = _read_seconds(response.headers.get("Retry-After"))
            raise _BrokenOffError(answer, wait_s)
        if response.status_code == 416 and self._part.size:
            self._start_over()
            raise _BrokenOffError("the part does not fit the server's file", 0)
        if response.status_code != 200 and (
            response.status_code != 206 or not self._part.size
        ):
            raise TransferError(answer)
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        # Some servers call a .tgz file's own packing an encoding.
        packed = self._source.file.endswith(".tgz") and encoding in ("gzip", "x-gzip")
        if encoding != "identity" and not packed:
            raise TransferError("the server sends it in another encoding than asked")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise TransferError("the server sends a web page instead of the file")

    def _continue_with(self, stamp: Stamp, content_range: str) -> None:
        """Make sure that a partial answer continues the part; not all servers do."""
        match = _RANGE.fullmatch(content_range)
        fits = (
            match is not None
            and int(match[1]) == self._part.size
            and self._stamp.total in (None, int(match[2]))
            and stamp.validator in ("", self._stamp.validator)
        )
        if match is None or not fits:
            self._start_over()
            raise _BrokenOffError("the file has changed on the server", 0)
        self._check_total(int(match[2]))
        self._stamp = replace(self._stamp, total=int(match[2]))

    def _refuse_downgrade(self, response: requests.Response) -> None:
        known = self._source.sha256 or self._source.md5
        hops = [hop.url for hop in (*response.history, response)]
        if not known and any(
            urlsplit(hop).scheme != urlsplit(self._source.url).scheme == "https"
            for hop in hops
        ):
            raise TransferError("the server leads from https to an unsafe address")

    def _check_total(self, total: int | None) -> None:
        """Make sure that the size that the server states can be right."""
        expected = self._source.size
        if total is None:
            return
        if expected not in (None, total):
            raise TransferError(f"the server's file has {total} bytes, not {expected}")
        if total > self._source.limit:
            raise TransferError(f"the server's file is too large ({total} bytes)")

    def _check_room(self) -> None:
        missing = (self._stamp.total or self._source.size or 0) - self._part.size
        free = shutil.disk_usage(self._part.path.parent).free
        if missing > free:
            raise OutputError(
                f"{self._part.target} needs {missing / MB:.0f} MB more and only "
                f"{free / MB:.0f} MB are free: make room, or choose another folder"
            )

    def _receive(self, response: requests.Response) -> None:
        """Append the body to the part."""
        whole = self._stamp.total or self._source.size
        most = whole or self._source.limit
        try:
            for data in response.raw.stream(_CHUNK, decode_content=False):
                if self._part.size + len(data) > most:
                    self._start_over()
                    raise TransferError(f"the server sends more than {most} bytes")
                self._part.append(data)
                self._progress.advance(len(data) / MB)
        except ReadTimeoutError as error:
            raise _BrokenOffError("the server has gone silent") from error
        except HTTPError as error:
            raise _BrokenOffError("the connection broke off") from error
        if whole not in (None, self._part.size):
            raise _BrokenOffError("the server ended too early")

    def _start_over(self) -> None:
        self._part.clear()
        self._stamp = Stamp()


def _read_stamp(url: str, response: requests.Response) -> Stamp:
    tag = response.headers.get("ETag", "")
    # A weak tag promises the same meaning, not the same bytes.
    date = response.headers.get("Last-Modified", "")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    return Stamp(url, tag if tag.startswith('"') else date, total)


def _read_seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
