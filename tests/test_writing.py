"""Files that appear whole or not at all, also where two programs write one."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path, PureWindowsPath

import pytest

from srcli import writing
from srcli.errors import OutputError
from srcli.writing import check_name, claim, write_whole


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


# Windows lets nobody read what is locked: there, another file is.
@pytest.mark.parametrize("flag", [0, os.O_CLOEXEC], ids=["here", "as on Windows"])
def test_two_writers_of_one_file(tmp_path, monkeypatch, flag):
    monkeypatch.setattr(writing, "_TEMPORARY", flag)
    path = tmp_path / "a.txt"
    with write_whole(path) as part:
        part.write_text("first")
        with pytest.raises(OutputError, match="another program is writing it"):
            write(path, "second")
        assert part.read_text() == "first"
    assert path.read_text() == "first"


def test_where_there_are_no_locks_a_file_is_written_all_the_same(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.lock_descriptor", fail)
    write(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


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


def test_what_another_program_begins_at_the_last_moment_is_let_be(
    tmp_path, monkeypatch
):
    path, replace = tmp_path / "a.txt", Path.replace

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


def test_what_a_killed_program_left_is_taken_over(tmp_path):
    path = tmp_path / "a.txt"
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    with write_whole(path) as part:
        assert part == left
        part.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("run", [None, "run1"])
def test_a_name_as_long_as_can_be(tmp_path, run):
    path = tmp_path / ("n" * 255)
    with write_whole(path, run=run) as part:
        part.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("n" * 255, True),
        ("n" * 256, False),
        ("\u5199" * 85, True),  # of three bytes each
        ("\u5199" * 86, False),
        ("new/folder/" + "n" * 255, True),
        ("new/folder/" + "n" * 256, False),
        ("new/" + "n" * 256 + "/a.png", False),
        ("CON.png:", True),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="counts in bytes")
def test_names_that_are_too_long_are_told_beforehand(tmp_path, name, fits):
    with nullcontext() if fits else pytest.raises(OutputError, match="too long"):
        check_name(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("C:/photos/a.png", None),
        ("//server/share/a.png", None),
        ("../console.png", None),
        ("./COM10.png", None),
        ("n" * 251 + ".png", None),
        ("n" * 252 + ".png", "its name is too long"),
        ("\u5199" * 251 + ".png", None),
        ("\U0001f5bc" * 126 + ".png", "its name is too long"),  # of two units each
        ("CON.png", "'CON.png' is a device of Windows"),
        ("nul/a.png", "'nul' is a device of Windows"),
        ("com1.tar.gz", "is a device"),
        ("Lpt9", "is a device"),
        ("COM\xb9.png", "is a device"),
        ("AUX .png", "is a device"),
        ("a./b.png", "Windows would cut off the end of 'a.'"),
        ("b.png ", "Windows would cut off the end of 'b.png '"),
        ("photo 12:30.png", "Windows takes no ':' in a name"),
        ("what?.png", "Windows takes no '?' in a name"),
        ("a\tb.png", "Windows takes no"),
        ("C:/a|b/c.png", "Windows takes no '|' in a name"),
    ],
)
def test_names_that_windows_refuses(name, fault):
    refusal = pytest.raises(OutputError, match=re.escape(fault)) if fault else None
    with refusal or nullcontext():
        check_name(PureWindowsPath(name))


def test_a_drive_that_is_not_there(tmp_path, monkeypatch):
    anchor = tmp_path.anchor
    monkeypatch.setattr(Path, "exists", lambda path: str(path) != anchor)
    with pytest.raises(OutputError, match=f"a.png: there is no {re.escape(anchor)}"):
        check_name(tmp_path / "a.png")
    check_name(Path("a.png"))


@pytest.mark.parametrize(
    ("winerror", "mode", "said"),
    [
        (5, 0o644, "it is in use by another program: close it"),
        (32, 0o644, "it is in use by another program: close it"),
        (5, 0o444, "Access is denied"),
    ],
)
def test_a_file_that_is_open_elsewhere_on_windows(
    tmp_path, monkeypatch, winerror, mode, said
):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def refuse(part, target):
        error = PermissionError(13, "Access is denied", str(part), None, str(target))
        error.winerror = winerror
        raise error

    monkeypatch.setattr(Path, "replace", refuse)
    # The administrator may write whatever its mode.
    monkeypatch.setattr(os, "access", lambda *_: mode == 0o644)
    with pytest.raises(OutputError, match=f"cannot write .*a.txt: {said}"):
        write(path, "new")
    assert path.read_text() == "old"
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
