"""Downloads: whole, checked and resumed, from a server that cuts, stalls and lies."""

from __future__ import annotations

import hashlib
import socket
from types import SimpleNamespace

import pytest

from srcli.errors import InputError, OutputError, WeightsError
from srcli.pretrained import transfer
from srcli.pretrained.transfer import fetch
from srcli.writing import claim


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


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def get(file_server, tmp_path):
    """A function that fetches the server's file and checks what then lies there."""

    def run(**known):
        known.setdefault("sha256", sha256(file_server.body))
        found, fresh = fetch(file_server.url, tmp_path / "some.bin", **known)
        assert (tmp_path / "some.bin").read_bytes() == file_server.body
        assert [path.name for path in tmp_path.iterdir()] == ["some.bin"]
        assert (found, fresh) == (sha256(file_server.body), True)

    return run


@pytest.fixture
def refused(file_server, tmp_path):
    """A function that fetches in vain; what is said has `words`, nothing is left."""

    def run(words, error=InputError, left=(), **known):
        with pytest.raises(error, match=words):
            fetch(file_server.url, tmp_path / "some.bin", **known)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)

    return run


def test_a_file_arrives_whole_checked_and_with_progress(file_server, tmp_path):
    body, recorder = file_server.body, Recorder()
    target = tmp_path / "new" / "folder" / "some.bin"
    known = {"size": len(body), "sha256": sha256(body)}
    known["md5"] = hashlib.md5(body).hexdigest()
    found = fetch(file_server.url, target, progress=recorder, **known)
    assert target.read_bytes() == body
    assert found == (sha256(body), True)
    assert [path.name for path in target.parent.iterdir()] == ["some.bin"]
    for _, total, done in recorder.tasks:
        assert total == pytest.approx(len(body) / 1e6)
        assert done == pytest.approx(total)
    assert len(recorder.tasks) == 2
    # The next call checks it and asks nobody; what is damaged is replaced.
    assert fetch(file_server.url, target, **known) == (sha256(body), False)
    assert len(file_server.asked) == 1
    target.write_bytes(b"damaged")
    assert fetch(file_server.url, target, **known) == (sha256(body), True)


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_wrong_bytes_are_deleted(refused, known):
    refused(r"wrong (SHA-256|MD5)", WeightsError, failure=WeightsError, **known)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "x"])
def test_other_kinds_of_address_are_refused(tmp_path, url):
    with pytest.raises(InputError, match="only http and https"):
        fetch(url, tmp_path / "x")


def test_what_cannot_be_written(file_server, refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write"):
        fetch(file_server.url, tmp_path / "file" / "some.bin")
    (tmp_path / "file").unlink()
    nearly_full = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly_full)
    refused("make room", OutputError)


def test_two_downloads_of_one_file_do_not_mix(file_server, refused, get, tmp_path):
    with claim(tmp_path / "some.bin.part"):
        refused("another process", left=["some.bin.part"])
    assert not file_server.asked
    get()


# Going on


@pytest.mark.parametrize("checked", [True, False])
def test_a_cut_connection_goes_on_where_it_stopped(file_server, get, naps, checked):
    file_server.plan = [file_server.cut(300_000)]
    get() if checked else get(sha256=None)
    # Without a checksum nothing shows that the rest is of the same file.
    assert file_server.ranges() == [None, "bytes=300000-" if checked else None]
    assert naps == [1.0]


def test_attempts_that_gain_something_do_not_count(file_server, get, naps):
    file_server.body *= 8
    file_server.plan = [file_server.cut_rest(2**20 + 9)] * 6
    get()
    assert naps == [1.0] * 6


def test_a_stalled_server_is_left_and_asked_again(file_server, get, naps, monkeypatch):
    monkeypatch.setattr(transfer, "READ_S", 0.5)
    # Many attempts: on a busy machine a healthy answer may take too long, too.
    monkeypatch.setattr(transfer, "ATTEMPTS", 100)
    file_server.plan = [file_server.stall(300_000)]
    get()
    assert len(naps) == len(file_server.asked) - 1 >= 1


@pytest.mark.usefixtures("half_done")
def test_the_next_call_goes_on_where_the_last_one_stopped(file_server, get):
    recorder = Recorder()
    get(progress=recorder)
    assert file_server.ranges() == ["bytes=300000-"]
    assert recorder.tasks[0][2] == pytest.approx(len(file_server.body) / 1e6)


def test_an_interrupted_download_goes_on_later(file_server, get, tmp_path):
    known = {"sha256": sha256(file_server.body), "progress": Recorder(0.3)}
    with pytest.raises(KeyboardInterrupt):
        fetch(file_server.url, tmp_path / "some.bin", **known)
    kept = (tmp_path / "some.bin.part").stat().st_size
    assert kept > 300_000
    get()
    assert file_server.ranges() == [None, f"bytes={kept}-"]


@pytest.mark.parametrize("known", ["size", "sha256"])
@pytest.mark.usefixtures("half_done")
def test_a_complete_part_is_not_fetched_again(file_server, get, tmp_path, known):
    with (tmp_path / "some.bin.part").open("ab") as part:
        part.write(file_server.body[300_000:])
    get(**{"size": len(file_server.body)} if known == "size" else {})
    assert file_server.ranges() == [] if known == "size" else ["bytes=1024000-"]


@pytest.mark.usefixtures("half_done")
def test_a_part_longer_than_the_file_starts_over(file_server, get, tmp_path):
    with (tmp_path / "some.bin.part").open("ab") as part:
        part.write(file_server.body)
    get()
    assert file_server.ranges() == [f"bytes={300_000 + len(file_server.body)}-", None]


@pytest.mark.usefixtures("half_done")
def test_a_server_that_ignores_ranges_sends_all_of_it(file_server, get):
    file_server.plan = [file_server.answer(200, file_server.body)]
    get()
    assert file_server.ranges() == ["bytes=300000-"]


@pytest.mark.usefixtures("half_done")
def test_a_changed_file_is_not_glued_to_the_old_one(file_server, get):
    file_server.body = b"\1" + file_server.body[1:] + b"more"
    get()
    assert file_server.ranges() == ["bytes=300000-", None]


@pytest.mark.parametrize("content_range", ["bytes 5-999999/1024000", "nonsense", ""])
@pytest.mark.usefixtures("half_done")
def test_a_partial_answer_must_begin_where_the_part_ends(
    file_server, get, content_range
):
    answer = file_server.answer(206, b"wrong place", Content_Range=content_range)
    file_server.plan = [answer]
    get()


@pytest.mark.parametrize("portal", [{"Content_Type": "text/html"}, {}])
@pytest.mark.usefixtures("half_done")
def test_a_web_page_does_not_cost_what_was_gained(file_server, refused, get, portal):
    known = {"size": len(file_server.body), "sha256": sha256(file_server.body)}
    file_server.plan = [file_server.answer(200, b"<html>log in", **portal)]
    refused(r"a web page|has 12 bytes", left=["some.bin.part"], **known)
    get(**known)
    assert file_server.ranges() == ["bytes=300000-"] * 2


# Servers that lie, fail, or lead elsewhere


def test_a_server_that_always_claims_more_than_it_sends(file_server, refused, naps):
    lie = str(len(file_server.body) + 5)
    file_server.plan = [file_server.answer(200, file_server.body, Content_Length=lie)]
    file_server.plan += [file_server.answer(200, b"", Content_Length=lie)] * 2
    refused("cannot download http://127")
    assert naps == [1.0, 2.0]


def test_a_server_that_states_another_size_or_sends_more(
    file_server, refused, monkeypatch
):
    body = file_server.body
    file_server.plan = [file_server.answer(200, body, Content_Length="1000")]
    refused(f"has 1000 bytes, not {len(body)}", size=len(body))
    file_server.plan = [file_server.send_chunks]
    refused("more than", size=1000)
    file_server.plan = [file_server.send_chunks]
    monkeypatch.setattr(transfer, "_LARGEST", 1000)
    refused("more than")


def test_a_file_without_a_length_ends_where_the_server_says(file_server, get):
    file_server.plan = [file_server.send_chunks]
    get()


def test_without_a_length_the_known_size_tells_what_is_missing(file_server, get):
    body = file_server.body
    file_server.plan = [file_server.answer(200, body, 300_000, Content_Length="")]
    get(size=len(body))
    assert file_server.ranges() == [None, "bytes=300000-"]


def test_a_missing_file_fails_at_once(file_server, refused, naps):
    file_server.plan = [file_server.answer(404)]
    refused("404", WeightsError, failure=WeightsError)
    assert naps == []


def test_a_troubled_server_is_asked_again_when_it_says_but_within_a_minute(
    file_server, get, naps
):
    file_server.plan = [
        file_server.answer(503, Retry_After="7"),
        file_server.answer(429, Retry_After="86400"),
    ]
    get()
    assert naps == [7.0, 60.0]


def test_an_unreachable_server(tmp_path, naps, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: refused
        url = f"http://127.0.0.1:{held.getsockname()[1]}/x.bin"
        with pytest.raises(InputError, match="cannot be reached") as caught:
            fetch(url, tmp_path / "x.bin")
    assert url in str(caught.value)
    assert naps == [1.0, 2.0, 4.0, 8.0]
    assert list(tmp_path.iterdir()) == []


def test_redirections_lead_to_http_only(file_server, refused, get):
    file_server.plan = [file_server.answer(302, Location="file:///etc/hostname")]
    refused("cannot download")
    file_server.plan = [file_server.answer(302, Location="/elsewhere")]
    get()
