"""The transfer, from a server that cuts, stalls, lies and changes its mind."""

from __future__ import annotations

import gzip
import hashlib
import socket

import pytest
import requests

from srcli.errors import InputError, WeightsError
from srcli.pretrained.download import fetch
from srcli.pretrained.part import open_part
from srcli.pretrained.transfer import Patience, Source


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_cut_connection_goes_on_where_it_stopped(
    file_server, tmp_path, patience, naps
):
    file_server.plan = [file_server.cut(300_000)]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None, "bytes=300000-"]
    assert file_server.asked[1]["If-Range"] == '"v1"'
    assert naps == [1.0]


def test_attempts_that_gain_something_do_not_count(
    file_server, tmp_path, patience, naps
):
    file_server.body *= 8
    file_server.plan = [file_server.cut_rest(2**20 + 9)] * 6
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert naps == [1.0] * 6


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_a_date_serves_where_there_is_no_strong_tag(
    file_server, tmp_path, patience, etag
):
    file_server.etag = etag
    file_server.date = "Tue, 14 Feb 2017 14:27:11 GMT"
    file_server.plan = [file_server.cut(300_000)]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.asked[1]["If-Range"] == file_server.date


def test_without_tag_and_date_it_starts_over(file_server, tmp_path, patience):
    file_server.etag = ""
    file_server.plan = [file_server.cut(300_000)]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None, None]


def test_a_stalled_server_is_left_and_asked_again(file_server, tmp_path, naps):
    # Many attempts: on a busy machine a healthy answer may take too long, too.
    patience = Patience(attempts=100, connect_s=60, read_s=0.5, sleep=naps.append)
    file_server.plan = [file_server.stall(300_000)]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
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
        fetch(file_server.source(), tmp_path, patience=patience)
    assert naps == [1.0, 2.0]
    assert "some.bin" not in names_in(tmp_path)


def test_a_server_that_claims_less_than_the_file_has(file_server, tmp_path, patience):
    body = file_server.body
    file_server.plan = [file_server.answer(200, body, Content_Length="1000")]
    with pytest.raises(InputError, match=f"has 1000 bytes, not {len(body)}"):
        fetch(file_server.source(size=len(body)), tmp_path, patience=patience)
    assert names_in(tmp_path) == []


def test_a_server_that_sends_more_than_the_file_has(file_server, tmp_path, patience):
    file_server.plan = [file_server.send_chunks]
    source = file_server.source(size=1000)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        fetch(source, tmp_path, patience=patience)
    assert names_in(tmp_path) == []


def test_a_file_without_a_length_ends_where_the_server_says(file_server, tmp_path):
    file_server.plan = [file_server.send_chunks]
    fetched = fetch(file_server.source(), tmp_path)
    assert fetched.path.read_bytes() == file_server.body


def test_without_a_length_the_known_size_tells_what_is_missing(
    file_server, tmp_path, patience
):
    body = file_server.body
    file_server.plan = [file_server.answer(200, body, 300_000, Content_Length="")]
    source = file_server.source(size=len(body))
    fetched = fetch(source, tmp_path, patience=patience)
    assert fetched.path.read_bytes() == body
    assert file_server.ranges() == [None, "bytes=300000-"]


def test_a_file_too_large_to_be_true_is_refused(file_server, tmp_path):
    with pytest.raises(InputError, match="too large"):
        fetch(file_server.source(limit=1000), tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.usefixtures("half_done")
def test_a_server_that_ignores_ranges_sends_all_of_it(file_server, tmp_path, patience):
    file_server.plan = [file_server.answer(200, file_server.body)]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == ["bytes=300000-"]


@pytest.mark.usefixtures("half_done")
def test_a_changed_file_is_not_glued_to_the_old_one(file_server, tmp_path, patience):
    file_server.body = file_server.body[::-1]
    file_server.etag = '"v2"'
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body


@pytest.mark.parametrize("change", ["etag", "length", "both"])
@pytest.mark.usefixtures("half_done")
def test_nor_is_it_where_the_server_ignores_the_condition(
    file_server, tmp_path, patience, change
):
    if change in ("etag", "both"):
        file_server.etag = '"v2"'
    if change in ("length", "both"):
        file_server.body += b"more"
    file_server.body = b"\0" + file_server.body[1:]
    file_server.plan = [file_server.ignore_if_range]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == ["bytes=300000-", None]


@pytest.mark.parametrize("content_range", ["bytes 5-999999/1024000", "nonsense", ""])
@pytest.mark.usefixtures("half_done")
def test_a_partial_answer_must_begin_where_the_part_ends(
    file_server, tmp_path, patience, content_range
):
    file_server.plan = [
        file_server.answer(206, b"wrong place", Content_Range=content_range)
    ]
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body


@pytest.mark.usefixtures("half_done")
def test_a_part_longer_than_the_file_starts_over(file_server, tmp_path, patience):
    with open_part(tmp_path / "some.bin") as part:
        part.append(file_server.body)
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [f"bytes={300_000 + len(file_server.body)}-", None]


def test_a_missing_file_fails_at_once(file_server, tmp_path, patience, naps):
    file_server.plan = [file_server.answer(404)]
    with pytest.raises(WeightsError, match="404") as caught:
        fetch(file_server.source(), tmp_path, patience=patience, failure=WeightsError)
    assert file_server.url in str(caught.value)
    assert str(tmp_path / "some.bin") in str(caught.value)
    assert naps == []
    assert names_in(tmp_path) == []


def test_a_troubled_server_is_asked_again(file_server, tmp_path, patience, naps):
    file_server.plan = [
        file_server.answer(500),
        file_server.answer(503, Retry_After="7"),
    ]
    assert fetch(file_server.source(), tmp_path, patience=patience).fresh
    assert naps == [1.0, 7.0]


def test_nobody_is_waited_for_longer_than_a_minute(
    file_server, tmp_path, patience, naps
):
    file_server.plan = [file_server.answer(429, Retry_After="86400")]
    assert fetch(file_server.source(), tmp_path, patience=patience).fresh
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


def test_redirections_lead_to_http_only(file_server, tmp_path, patience):
    file_server.plan = [file_server.answer(302, Location="/elsewhere")]
    assert fetch(file_server.source(), tmp_path, patience=patience).fresh
    (tmp_path / "some.bin").unlink()
    file_server.plan = [file_server.answer(302, Location="file:///etc/hostname")]
    with pytest.raises(InputError, match="cannot download"):
        fetch(file_server.source(), tmp_path, patience=patience)
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
        fetch(file_server.source(), tmp_path, patience=patience)
    assert file_server.asked[0]["Accept-Encoding"] == "identity"


def test_the_packing_of_a_tgz_file_may_be_called_an_encoding(
    file_server, tmp_path, patience
):
    body = gzip.compress(file_server.body, mtime=0)
    answer = file_server.answer(200, body, Content_Encoding="x-gzip")
    file_server.plan = [answer]
    source = Source(file_server.url, "some.tgz", size=len(body), sha256=sha256(body))
    assert fetch(source, tmp_path, patience=patience).path.read_bytes() == body


@pytest.mark.parametrize("portal", [{"Content_Type": "text/html"}, {}])
@pytest.mark.usefixtures("half_done")
def test_a_web_page_does_not_cost_what_was_gained(
    file_server, tmp_path, patience, portal
):
    source = file_server.source(size=len(file_server.body))
    file_server.plan = [file_server.answer(200, b"<html>log in", **portal)]
    with pytest.raises(InputError, match=r"a web page|has 12 bytes"):
        fetch(source, tmp_path, patience=patience)
    assert (tmp_path / "some.bin.part").stat().st_size == 300_000
    assert fetch(source, tmp_path, patience=patience).sha256 == sha256(file_server.body)
    assert file_server.ranges() == ["bytes=300000-"] * 2
