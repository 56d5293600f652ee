"""Downloads: whole, checked, resumed, and one at a time."""

from __future__ import annotations

import errno
import hashlib
from types import SimpleNamespace

import pytest

from srcli.errors import InputError, OutputError, WeightsError
from srcli.pretrained.download import fetch
from srcli.pretrained.part import Part, Stamp, open_part
from srcli.pretrained.transfer import Source


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


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_checked_and_with_progress(file_server, tmp_path):
    body = file_server.body
    source = file_server.source(
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
    fetched = fetch(file_server.source(sha256=sha256(b"mine")), tmp_path)
    assert not fetched.fresh
    assert not file_server.asked
    assert names_in(tmp_path) == ["some.bin"]


def test_a_damaged_file_that_is_there_is_replaced(file_server, tmp_path):
    (tmp_path / "some.bin").write_bytes(b"damaged")
    source = file_server.source(sha256=sha256(file_server.body))
    assert fetch(source, tmp_path).fresh
    assert (tmp_path / "some.bin").read_bytes() == file_server.body


@pytest.mark.usefixtures("half_done")
def test_the_next_call_goes_on_where_the_last_one_stopped(
    file_server, tmp_path, patience
):
    recorder = Recorder()
    fetched = fetch(
        file_server.source(), tmp_path, patience=patience, progress=recorder
    )
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == ["bytes=300000-"]
    assert recorder.tasks[0][2] == pytest.approx(len(file_server.body) / 1e6)
    assert names_in(tmp_path) == ["some.bin"]


@pytest.mark.usefixtures("half_done")
def test_a_part_of_another_address_is_not_continued(file_server, tmp_path, patience):
    other = Source(file_server.url + "?mirror", "some.bin")
    assert fetch(other, tmp_path, patience=patience).size == len(file_server.body)
    assert file_server.ranges() == [None]


@pytest.mark.parametrize("note", [None, "{", "[1]", '{"validator": 5}', '{"x": 1}'])
@pytest.mark.usefixtures("half_done")
def test_a_part_that_nothing_is_known_about_is_not_continued(
    file_server, tmp_path, patience, note
):
    path = tmp_path / "some.bin.part.json"
    path.unlink() if note is None else path.write_text(note)
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None]


def test_a_complete_part_is_not_fetched_again(file_server, tmp_path):
    with open_part(tmp_path / "some.bin") as part:
        part.write_stamp(Stamp(file_server.url, '"v1"', len(file_server.body)))
        part.append(file_server.body)
    fetched = fetch(file_server.source(), tmp_path)
    assert fetched.sha256 == sha256(file_server.body)
    assert not file_server.asked


@pytest.mark.parametrize("failure", [InputError, WeightsError])
@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_wrong_bytes_are_deleted(file_server, tmp_path, patience, failure, known):
    source = file_server.source(**known)
    with pytest.raises(failure, match=r"wrong (SHA-256|MD5)"):
        fetch(source, tmp_path, patience=patience, failure=failure)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "x"])
def test_other_kinds_of_address_are_refused(tmp_path, url):
    with pytest.raises(InputError, match="only http and https"):
        fetch(Source(url, "x"), tmp_path)


def test_a_folder_that_cannot_be_written(file_server, tmp_path):
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(OutputError, match="cannot write"):
        fetch(file_server.source(), tmp_path / "folder")


def test_too_little_room_is_seen_before_the_transfer(
    file_server, tmp_path, monkeypatch
):
    nearly_full = SimpleNamespace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly_full)
    with pytest.raises(OutputError, match="make room"):
        fetch(file_server.source(), tmp_path)
    assert names_in(tmp_path) == []


def test_a_full_disk(file_server, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Part, "append", fail)
    with pytest.raises(OutputError, match="No space left"):
        fetch(file_server.source(), tmp_path)
    assert names_in(tmp_path) == []


def test_an_interrupted_download_goes_on_later(file_server, tmp_path, patience):
    with pytest.raises(KeyboardInterrupt):
        fetch(file_server.source(), tmp_path, progress=Recorder(interrupt_after=0.3))
    assert names_in(tmp_path) == ["some.bin.part", "some.bin.part.json"]
    kept = (tmp_path / "some.bin.part").stat().st_size
    assert kept > 300_000
    fetched = fetch(file_server.source(), tmp_path, patience=patience)
    assert fetched.path.read_bytes() == file_server.body
    assert file_server.ranges() == [None, f"bytes={kept}-"]


def test_two_downloads_of_one_file_do_not_mix(file_server, tmp_path):
    with (
        open_part(tmp_path / "some.bin"),
        pytest.raises(InputError, match="another process"),
    ):
        fetch(file_server.source(), tmp_path)
    assert not file_server.asked
    assert fetch(file_server.source(), tmp_path).fresh
