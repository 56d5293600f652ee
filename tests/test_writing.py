"""Files that appear whole or not at all, also where two programs write one."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path, PureWindowsPath

import pytest

from srcli import writing
from srcli.errors import OutputError
from srcli.writing import check_name, claim, write_whole


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.txt"


def write(path, text, *, meanwhile=None, error=None, **options):
    """Write a file; what somebody else writes meanwhile, and what hinders us."""
    with write_whole(path, **options) as part:
        part.write_text(text)
        if meanwhile is not None:
            path.write_text(meanwhile)
        if error is not None:
            raise error


def alone(path, text):
    """Whether the file holds the text, and nothing else is in its folder."""
    return path.read_text() == text and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("run", [None, "run1"])
def test_a_file_appears_whole_whatever_its_name(tmp_path, run):
    path = tmp_path / ("n" * 255)
    with write_whole(path, run=run) as part:
        part.write_text("new")
        assert not path.exists()
    assert alone(path, "new")


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_what_was_there_stays(path, error):
    path.write_text("old")
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write(path, "ne", error=error)
    assert alone(path, "old")


@pytest.mark.parametrize("has_links", [True, False])
def test_what_appears_meanwhile_is_left_alone(path, monkeypatch, has_links):
    if not has_links:  # as on a memory card

        def link(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        write(path, "ours", replace=False, meanwhile="theirs")
    assert alone(path, "theirs")
    path.unlink()
    write(path, "ours", replace=False)
    assert alone(path, "ours")


def test_twins_of_a_run_agree_on_a_file(path):
    write(path, "same", replace=False, run="r1", meanwhile="same")
    assert alone(path, "same")
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        write(path, "other", replace=False, run="r1")
    assert alone(path, "same")


# Windows lets nobody read what is locked: there, another file is.
@pytest.mark.parametrize("flag", [0, os.O_CLOEXEC], ids=["here", "as on Windows"])
def test_two_writers_of_one_file(path, monkeypatch, flag):
    monkeypatch.setattr(writing, "_TEMPORARY", flag)
    with write_whole(path) as part:
        part.write_text("first")
        with pytest.raises(OutputError, match="another program is writing it"):
            write(path, "second")
        assert part.read_text() == "first"
    assert path.read_text() == "first"


def test_where_there_are_no_locks_a_file_is_written_all_the_same(path, monkeypatch):
    def fail(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", fail)
    write(path, "new")
    assert alone(path, "new")


def test_a_lock_whose_file_got_its_name_meanwhile_is_none(tmp_path, monkeypatch):
    """Whoever held it is done between our opening and our locking."""
    from filelock import lock_descriptor

    path, late = tmp_path / "a.part", []

    def lock(*arguments, **options):
        if not late:
            late.append(path.rename(tmp_path / "a"))
        return lock_descriptor(*arguments, **options)

    monkeypatch.setattr("filelock.lock_descriptor", lock)
    with claim(path), pytest.raises(BlockingIOError), claim(path):
        raise AssertionError


def test_what_another_program_begins_at_the_last_moment_is_let_be(path, monkeypatch):
    replace = Path.replace

    def be_followed(part, target):
        replace(part, target)
        part.write_text("theirs")

    monkeypatch.setattr(Path, "replace", be_followed)
    with write_whole(path) as part:
        part.write_text("ours")
    assert (path.read_text(), part.read_text()) == ("ours", "theirs")


KILLED = """
import os
from pathlib import Path
from srcli.writing import write_whole

with write_whole(Path("a.txt")) as part:
    part.write_text("half of something much longer")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_program_left_is_taken_over(path):
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=path.parent)
    assert killed.returncode == -9
    (left,) = path.parent.iterdir()
    assert left.name.startswith(".")
    write(path, "new")
    assert alone(path, "new")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("n" * 255, True),
        ("\u5199" * 85, True),  # of three bytes each
        ("\u5199" * 86, False),
        ("new/" + "n" * 256 + "/a.png", False),
        ("CON.png:", True),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="counts in bytes")
def test_names_that_are_too_long_are_told_beforehand(tmp_path, name, fits):
    with nullcontext() if fits else pytest.raises(OutputError, match="too long"):
        check_name(tmp_path / name)


WINDOWS_TAKES = (
    *("C:/photos/a.png", "//server/share/a.png", "../console.png", "./COM10.png"),
    *("n" * 255, "\u5199" * 251 + ".png"),
)
WINDOWS_REFUSES = (
    *("n" * 256, "\U0001f5bc" * 126 + ".png"),  # of two units each
    *("CON.png", "nul/a.png", "com1.tar.gz", "Lpt9", "COM\xb9.png", "AUX .png"),
    *("a./b.png", "b.png ", "12:30.png", "what?.png", "a\tb.png", "C:/a|b/c.png"),
)


@pytest.mark.parametrize("name", WINDOWS_TAKES + WINDOWS_REFUSES)
def test_names_that_windows_refuses(name):
    fits = name in WINDOWS_TAKES
    with nullcontext() if fits else pytest.raises(OutputError, match="cannot write"):
        check_name(PureWindowsPath(name))


@pytest.mark.parametrize(
    ("winerror", "writable", "said"),
    [(5, True, "close it"), (32, True, "close it"), (5, False, "Access is denied")],
)
def test_a_file_that_is_open_elsewhere_on_windows(
    path, monkeypatch, winerror, writable, said
):
    def refuse(part, target):
        error = PermissionError(13, "Access is denied", str(part), None, str(target))
        error.winerror = winerror
        raise error

    path.write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(os, "access", lambda *_: writable)
    with pytest.raises(OutputError, match=said):
        write(path, "new")
    assert alone(path, "old")


def test_places_that_are_not_there(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        write(tmp_path / "none" / "a.txt", "new")
