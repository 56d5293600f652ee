"""Downloads, against a server that cuts, stalls, lies and changes its mind."""

from __future__ import annotations

import errno
import hashlib
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from srcli.errors import InputError, OutputError, WeightsError
from srcli.pretrained import part as part_module
from srcli.pretrained.download import fetch
from srcli.pretrained.part import Part, Stamp, open_part
from srcli.pretrained.transfer import Patience, Source


class Recorder:
    """A `Progress` that adds up, and may be interrupted."""

    def __init__(self, interrupt_after=None):
        self.tasks = []
        self.interrupt_after = interrupt_after

    def start(self, description, total):
        self.tasks.append([description, total, 0.0])

    def advance(self, amount=1):
        self.tasks[-1][2] += amount
        if self.interrupt_after and self.tasks[-1][2] > self.interrupt_after:
            raise KeyboardInterrupt


@pytest.fixture
def naps():
    """How long was waited between attempts."""
    return []


@pytest.fixture
def patience(naps):
    return Patience(attempts=3, connect_s=60, read_s=60, sleep=naps.append)


def source_of(server, **known):
    return Source(server.url, "some.bin", **known)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def names_in(folder: Path):
    return sorted(path.name for path in folder.iterdir())


def fail_midway(server, folder, patience, after=300_000):
    """A download that ends after `after` bytes and keeps them."""
    server.plan = [server.cut(after)] + [server.answer(503)] * 2
    with pytest.raises(InputError):
        fetch(source_of(server), folder, patience=patience)
    assert names_in(folder) == ["some.bin.part", "some.bin.part.json"]
    server.asked.clear()


def test_a_file_arrives_whole_checked_and_with_progress(file_server, tmp_path):
    body = file_server.body
    source = source_of(
        file_server,
        size=len(body),
        sha256=sha256(body),
        md5=hashlib.md5(body).hexdigest(),
    )
    recorder = Recorder()
    fetched = fetch(source, tmp_path / "new" / "folder", progress=recorder)
    assert fetched.path == tmp_path / "new" / "folder" / "some.bin"
    assert fetched.path.read_bytes() == body
    assert (fetched.size, fetched.sha256, fetched.fresh) == (
        len(body),
        sha256(body),
        True,
    )
    assert names_in(fetched.path.parent) == ["some.bin"]
    for _, total, done in recorder.tasks:
        assert total == pytest.approx(len(body) / 1e6)
        assert done == pytest.approx(total)
    assert len(recorder.tasks) == 2


def test_a_file_that_is_there_is_checked_and_kept(file_server, tmp_path):
    (tmp_path / "some.bin").write_bytes(b"mine")
    fetched = fetch(source_of(file_server, sha256=sha256(b"mine")), tmp_path)
    assert not fetched.fresh
    assert not file_server.asked
    assert names_in(tmp_path) == ["some.bin"]


def test_a_damaged_file_that_is_there_is_replaced(file_server, tmp_path):
    (tmp_path / "some.bin").write_bytes(b"damaged")
    source = source_of(file_server, sha256=sha256(file_server.body))
    assert fetch(source, tmp_path).fresh
    assert (tmp_path / "some.bin").read_bytes() == file_server.body


def test_a_cut_connection_goes_on_where_it_stopped(
    file_server, tmp_path, patience, naps
):
    file_server.plan = [file_server.cut(300_000)]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None, "bytes=300000-"]
    assert file_server.asked[1]["If-Range"] == '"v1"'
    assert naps == [1.0]


def test_attempts_that_gain_something_do_not_count(
    file_server, tmp_path, patience, naps
):
    file_server.body *= 8
    file_server.plan = [file_server.cut_rest(2**20 + 9)] * 6
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert naps == [1.0] * 6


def test_the_next_call_goes_on_where_the_last_one_stopped(
    file_server, tmp_path, patience
):
    fail_midway(file_server, tmp_path, patience)
    recorder = Recorder()
    fetched = fetch(
        source_of(file_server), tmp_path, patience=patience, progress=recorder
    )
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == ["bytes=300000-"]
    assert recorder.tasks[0][2] == pytest.approx(len(file_server.body) / 1e6)
    assert names_in(tmp_path) == ["some.bin"]


def test_a_part_of_another_address_is_not_continued(file_server, tmp_path, patience):
    fail_midway(file_server, tmp_path, patience)
    other = Source(file_server.url + "?mirror", "some.bin")
    assert fetch(other, tmp_path, patience=patience).size == len(file_server.body)
    assert file_server.ranges() == [None]


@pytest.mark.parametrize("note", [None, "{", "[1]", '{"validator": 5}', '{"x": 1}'])
def test_a_part_that_nothing_is_known_about_is_not_continued(
    file_server, tmp_path, patience, note
):
    fail_midway(file_server, tmp_path, patience)
    path = tmp_path / "some.bin.part.json"
    path.unlink() if note is None else path.write_text(note)
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None]


def test_a_complete_part_is_not_fetched_again(file_server, tmp_path):
    with open_part(tmp_path / "some.bin") as part:
        part.write_stamp(Stamp(file_server.url, '"v1"', len(file_server.body)))
        part.append(file_server.body)
    fetched = fetch(source_of(file_server), tmp_path)
    assert fetched.sha256 == sha256(file_server.body)
    assert not file_server.asked


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_a_date_serves_where_there_is_no_strong_tag(
    file_server, tmp_path, patience, etag
):
    file_server.etag = etag
    file_server.date = "Tue, 14 Feb 2017 14:27:11 GMT"
    file_server.plan = [file_server.cut(300_000)]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.asked[1]["If-Range"] == file_server.date


def test_without_tag_and_date_it_starts_over(file_server, tmp_path, patience):
    file_server.etag = ""
    file_server.plan = [file_server.cut(300_000)]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None, None]


def test_a_stalled_server_is_left_and_asked_again(file_server, tmp_path, naps):
    # Many attempts: on a busy machine a healthy answer may take too long, too.
    patience = Patience(attempts=100, connect_s=60, read_s=0.5, sleep=naps.append)
    file_server.plan = [file_server.stall(300_000)]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert len(file_server.asked) >= 2
    assert len(naps) == len(file_server.asked) - 1


def test_a_server_that_always_claims_more_than_it_sends(
    file_server, tmp_path, patience, naps
):
    lie = str(len(file_server.body) + 5)
    file_server.plan = [file_server.answer(200, file_server.body, Content_Length=lie)]
    file_server.plan += [file_server.answer(200, b"", Content_Length=lie)] * 2
    with pytest.raises(InputError, match="cannot download http://127"):
        fetch(source_of(file_server), tmp_path, patience=patience)
    assert naps == [1.0, 2.0]
    assert "some.bin" not in names_in(tmp_path)


def test_a_server_that_claims_less_than_the_file_has(file_server, tmp_path, patience):
    body = file_server.body
    file_server.plan = [file_server.answer(200, body, Content_Length="1000")]
    with pytest.raises(InputError, match=f"has 1000 bytes, not {len(body)}"):
        fetch(source_of(file_server, size=len(body)), tmp_path, patience=patience)
    assert names_in(tmp_path) == []


def test_a_server_that_sends_more_than_the_file_has(file_server, tmp_path, patience):
    file_server.plan = [file_server.send_chunks]
    source = source_of(file_server, size=1000)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        fetch(source, tmp_path, patience=patience)
    assert names_in(tmp_path) == []


def test_a_file_without_a_length_ends_where_the_server_says(file_server, tmp_path):
    file_server.plan = [file_server.send_chunks]
    fetched = fetch(source_of(file_server), tmp_path)
    assert fetched.path.read_bytes() == file_server.body


def test_a_file_too_large_to_be_true_is_refused(file_server, tmp_path):
    with pytest.raises(InputError, match="too large"):
        fetch(source_of(file_server, limit=1000), tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("failure", [InputError, WeightsError])
@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_wrong_bytes_are_deleted(file_server, tmp_path, patience, failure, known):
    source = source_of(file_server, **known)
    with pytest.raises(failure, match=r"wrong (SHA-256|MD5)"):
        fetch(source, tmp_path, patience=patience, failure=failure)
    assert names_in(tmp_path) == []


def test_a_server_that_ignores_ranges_sends_all_of_it(file_server, tmp_path, patience):
    fail_midway(file_server, tmp_path, patience)
    file_server.plan = [file_server.answer(200, file_server.body)]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == ["bytes=300000-"]


def test_a_changed_file_is_not_glued_to_the_old_one(file_server, tmp_path, patience):
    fail_midway(file_server, tmp_path, patience)
    file_server.body = file_server.body[::-1]
    file_server.etag = '"v2"'
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body


@pytest.mark.parametrize("change", ["etag", "length", "both"])
def test_nor_is_it_where_the_server_ignores_the_condition(
    file_server, tmp_path, patience, change
):
    fail_midway(file_server, tmp_path, patience)
    if change in ("etag", "both"):
        file_server.etag = '"v2"'
    if change in ("length", "both"):
        file_server.body += b"more"
    file_server.body = b"\0" + file_server.body[1:]
    file_server.plan = [file_server.ignore_if_range]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == ["bytes=300000-", None]


@pytest.mark.parametrize("content_range", ["bytes 5-999999/1024000", "nonsense", ""])
def test_a_partial_answer_must_begin_where_the_part_ends(
    file_server, tmp_path, patience, content_range
):
    fail_midway(file_server, tmp_path, patience)
    file_server.plan = [
        file_server.answer(206, b"wrong place", Content_Range=content_range)
    ]
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body


def test_a_part_longer_than_the_file_starts_over(file_server, tmp_path, patience):
    fail_midway(file_server, tmp_path, patience)
    with open_part(tmp_path / "some.bin") as part:
        part.append(file_server.body)
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [f"bytes={300_000 + len(file_server.body)}-", None]


def test_a_missing_file_fails_at_once(file_server, tmp_path, patience, naps):
    file_server.plan = [file_server.answer(404)]
    with pytest.raises(WeightsError, match="404") as caught:
        fetch(source_of(file_server), tmp_path, patience=patience, failure=WeightsError)
    assert file_server.url in str(caught.value)
    assert str(tmp_path / "some.bin") in str(caught.value)
    assert naps == []
    assert names_in(tmp_path) == []


def test_a_troubled_server_is_asked_again(file_server, tmp_path, patience, naps):
    file_server.plan = [
        file_server.answer(500),
        file_server.answer(503, Retry_After="7"),
    ]
    assert fetch(source_of(file_server), tmp_path, patience=patience).fresh
    assert naps == [1.0, 7.0]


def test_nobody_is_waited_for_longer_than_a_minute(
    file_server, tmp_path, patience, naps
):
    file_server.plan = [file_server.answer(429, Retry_After="86400")]
    assert fetch(source_of(file_server), tmp_path, patience=patience).fresh
    assert naps == [60.0]


def test_an_unreachable_server(tmp_path, patience, naps, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}/x.bin"
        with pytest.raises(InputError, match="cannot be reached") as caught:
            fetch(Source(url, "x.bin"), tmp_path, patience=patience)
    assert url in str(caught.value)
    assert naps == [1.0, 2.0]
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "x"])
def test_other_kinds_of_address_are_refused(tmp_path, url):
    with pytest.raises(InputError, match="only http and https"):
        fetch(Source(url, "x"), tmp_path)


def test_redirections_lead_to_http_only(file_server, tmp_path, patience):
    file_server.plan = [file_server.answer(302, Location="/elsewhere")]
    assert fetch(source_of(file_server), tmp_path, patience=patience).fresh
    (tmp_path / "some.bin").unlink()
    file_server.plan = [file_server.answer(302, Location="file:///etc/hostname")]
    with pytest.raises(InputError, match="cannot download"):
        fetch(source_of(file_server), tmp_path, patience=patience)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("known", "refused"), [({}, True), ({"md5": "0"}, False)])
def test_https_is_not_left_without_a_checksum(tmp_path, monkeypatch, known, refused):
    answer = requests.Response()
    answer.status_code = 404
    answer.url = "http://elsewhere.example/x"
    answer._content_consumed = True
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: answer)
    with pytest.raises(InputError, match="unsafe" if refused else "404"):
        fetch(Source("https://some.example/x", "x", **known), tmp_path)


def test_an_encoding_that_was_not_asked_for_is_refused(file_server, tmp_path, patience):
    file_server.plan = [file_server.answer(200, b"x", Content_Encoding="gzip")]
    with pytest.raises(InputError, match="encoding"):
        fetch(source_of(file_server), tmp_path, patience=patience)
    assert file_server.asked[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("portal", [{"Content_Type": "text/html"}, {}])
def test_a_web_page_does_not_cost_what_was_gained(
    file_server, tmp_path, patience, portal
):
    fail_midway(file_server, tmp_path, patience)
    source = source_of(file_server, size=len(file_server.body))
    file_server.plan = [file_server.answer(200, b"<html>log in", **portal)]
    with pytest.raises(InputError, match=r"a web page|has 12 bytes"):
        fetch(source, tmp_path, patience=patience)
    assert (tmp_path / "some.bin.part").stat().st_size == 300_000
    assert fetch(source, tmp_path, patience=patience).sha256 == sha256(file_server.body)
    assert file_server.ranges() == ["bytes=300000-"] * 2


def test_a_folder_that_cannot_be_written(file_server, tmp_path):
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(OutputError, match="cannot write"):
        fetch(source_of(file_server), tmp_path / "folder")


def test_too_little_room_is_seen_before_the_transfer(
    file_server, tmp_path, monkeypatch
):
    nearly_full = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly_full)
    with pytest.raises(OutputError, match="make room"):
        fetch(source_of(file_server), tmp_path)
    assert names_in(tmp_path) == []


def test_a_full_disk(file_server, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Part, "append", fail)
    with pytest.raises(OutputError, match="No space left"):
        fetch(source_of(file_server), tmp_path)
    assert names_in(tmp_path) == []


def test_an_interrupted_download_goes_on_later(file_server, tmp_path, patience):
    with pytest.raises(KeyboardInterrupt):
        fetch(source_of(file_server), tmp_path, progress=Recorder(interrupt_after=0.3))
    assert names_in(tmp_path) == ["some.bin.part", "some.bin.part.json"]
    kept = (tmp_path / "some.bin.part").stat().st_size
    assert kept > 300_000
    fetched = fetch(source_of(file_server), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None, f"bytes={kept}-"]


@pytest.mark.skipif(part_module.fcntl is None, reason="no locks on this system")
def test_two_downloads_of_one_file_do_not_mix(file_server, tmp_path):
    with (
        open_part(tmp_path / "some.bin"),
        pytest.raises(InputError, match="another process"),
    ):
        fetch(source_of(file_server), tmp_path)
    assert not file_server.asked
    assert fetch(source_of(file_server), tmp_path).fresh
