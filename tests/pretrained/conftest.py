"""A file server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from srcli.errors import InputError
from srcli.pretrained import transfer
from srcli.pretrained.transfer import fetch


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing the server waits for them

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""


class FileServer:
    """Serves `body`; every request takes the next step of `plan`, then `serve`."""

    def __init__(self):
        self.body = bytes(range(256)) * 4000  # 1 MB
        self.plan = []
        self.asked = []  # the headers of every request
        self._end = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.asked.append(self.headers)
                self.close_connection = True
                step = server.plan.pop(0) if server.plan else server.serve
                step(self)

            def log_message(self, *arguments):
                """Say nothing."""

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_address[1]}/files/some.bin"

    def close(self):
        self._end.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def ranges(self):
        return [headers["Range"] for headers in self.asked]

    def serve(self, handler):
        """The whole file, or the rest that was asked for."""
        start = self._start(handler)
        if start >= len(self.body):
            self.send(handler, 416, {"Content-Range": f"bytes */{len(self.body)}"})
        elif start:
            self.send(handler, 206, self._part_headers(start), self.body[start:])
        else:
            self.send(handler, 200, {}, self.body)

    def _start(self, handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "")
        return int(asked[1]) if asked else 0

    def _part_headers(self, start):
        end = len(self.body)
        return {"Content-Range": f"bytes {start}-{end - 1}/{end}"}

    def send(self, handler, status, headers, body=b"", sent=None):
        handler.send_response(status)
        own = {"Content-Length": str(len(body)), "Connection": "close"}
        for name, value in (own | headers).items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:sent])
        handler.wfile.flush()

    # Steps for `plan`.

    def answer(self, status, body=b"", sent=None, **headers):
        """A fixed answer; `sent` bytes of the body, headers with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return lambda handler: self.send(handler, status, named, body, sent)

    def cut(self, after):
        """The file from the start, but the connection ends early."""
        return self.answer(200, self.body, sent=after)

    def stall(self, after):
        """The file from the start, but after some bytes nothing more comes."""

        def step(handler):
            self.send(handler, 200, {}, self.body, after)
            self._end.wait(600)

        return step

    def cut_rest(self, after):
        """What was asked for, but the connection ends after some bytes of it."""

        def step(handler):
            start = self._start(handler)
            rest = self.body[start:]
            if start:
                self.send(handler, 206, self._part_headers(start), rest, after)
            else:
                self.send(handler, 200, {}, rest, after)

        return step

    def send_chunks(self, handler):
        """The file without a length."""
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(self.body), 2**16):
            data = self.body[start : start + 2**16]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def naps(monkeypatch):
    """How long was waited between attempts; nobody really waits."""
    naps = []
    monkeypatch.setattr(transfer, "sleep", naps.append)
    return naps


@pytest.fixture
def file_server(monkeypatch, naps):
    """A `FileServer`, reached without any proxy, and asked three times in a row."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "ATTEMPTS", 3)
    # Time limits that every healthy answer meets.
    monkeypatch.setattr(transfer, "CONNECT_S", 600)
    monkeypatch.setattr(transfer, "READ_S", 600)
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def half_done(file_server, tmp_path, naps):
    """A download into `tmp_path` that ended for good after 300,000 bytes."""
    file_server.plan = [file_server.cut(300_000)] + [file_server.answer(503)] * 2
    known = hashlib.sha256(file_server.body).hexdigest()
    with pytest.raises(InputError):
        fetch(file_server.url, tmp_path / "some.bin", sha256=known)
    assert [path.name for path in tmp_path.iterdir()] == ["some.bin.part"]
    file_server.asked.clear()
    naps.clear()
