"""Files that appear whole or not at all, also where two programs write one."""

import os
from contextlib import nullcontext

import pytest

from srcli.errors import OutputError
from srcli.writing import write_whole


def write(path, text, *, replace=True, meanwhile=None, error=None):
    """Write a file; what somebody else writes meanwhile, and what hinders us."""
    with write_whole(path, replace=replace) as part:
        part.write_text(text)
        if meanwhile is not None:
            path.write_text(meanwhile)
        if error is not None:
            raise error


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "a.txt"
    with write_whole(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_what_was_there_stays(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write(path, "ne", error=error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_appears_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OutputError, match="has appeared meanwhile: left alone"):
        write(path, "ours", replace=False, meanwhile="theirs")
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_without_second_names(tmp_path, monkeypatch):
    """As on a memory card, whose file system has none."""

    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "a.txt"
    with write_whole(path, replace=False) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises(OutputError):
        write(path, "newer", replace=False)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file(tmp_path):
    path = tmp_path / "a.txt"
    with write_whole(path) as part:
        part.write_text("first")
        with pytest.raises(OutputError, match="another program is writing it"):
            write(path, "second")
        assert part.read_text() == "first"
    assert path.read_text() == "first"


def test_what_a_killed_program_left_is_taken_over(tmp_path):
    path = tmp_path / "a.txt"
    (tmp_path / "a.txt.part").write_text("half of something much longer")
    with write_whole(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_are_not_there(tmp_path):
    with (
        pytest.raises(OutputError, match=r"cannot write .*a\.txt: No such file"),
        write_whole(tmp_path / "none" / "a.txt"),
    ):
        raise AssertionError


def test_twins_of_a_run_that_write_at_the_same_moment_agree(tmp_path, monkeypatch):
    path = tmp_path / "a.png"

    def lose_the_race(part, name):
        name.write_bytes(theirs)
        raise FileExistsError

    monkeypatch.setattr(os, "link", lose_the_race)
    for theirs, agree in ((b"same", True), (b"other", False)):
        path.unlink(missing_ok=True)
        expected = nullcontext() if agree else pytest.raises(OutputError)
        with expected, write_whole(path, replace=False, run="r1") as part:
            part.write_bytes(b"same")
        assert path.read_bytes() == theirs
        assert list(tmp_path.iterdir()) == [path]
