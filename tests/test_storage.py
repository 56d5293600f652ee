"""Places: paths here and URLs elsewhere are told apart, listed and written alike."""

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from upath import UPath

from srcli import storage, writing
from srcli.errors import InputError, OutputError, UsageError
from srcli.storage import (
    contains,
    find_existing,
    list_names,
    locate,
    quote_path,
    relative,
    show_message,
    show_path,
)
from srcli.writing import sweep, write_whole


@pytest.fixture(autouse=True)
def memory():
    """The files in memory, none at first."""
    files = UPath("memory:///").fs
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def slow_store(monkeypatch):
    """Memory taken for a file system where a file grows while it is written."""
    monkeypatch.setattr(writing, "_WHOLE_STORES", frozenset())


def test_paths_and_urls_are_told_apart(monkeypatch):
    for path in ("a/b.png", "C:/a", "C:\\a.png", "C:a", "\\\\server\\share\\a.png"):
        assert locate(path) == Path(path)
    assert locate("file:///tmp/a%20b.png") == Path("/tmp/a b.png")
    assert str(locate("memory://in/a.png")) == "memory://in/a.png"
    with pytest.raises(UsageError, match="foo://x cannot be reached"):
        locate("foo://x")

    def miss(self):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(UPath, "fs", property(miss))
    with pytest.raises(UsageError, match=r"memory://x: Please install gcsfs"):
        locate("memory://x")


def test_places_in_folders(tmp_path):
    folder = UPath("memory://a")
    assert contains(folder, UPath("memory://a/b/c"))
    assert not contains(UPath("memory://a/b"), folder)
    assert not contains(tmp_path, folder)
    assert relative(UPath("memory://a/b/c"), folder) == Path("b/c")
    for name in ("b.png", "c/d.png"):
        (folder / name).write_bytes(b"x")
    assert list_names(folder) == {"b.png", "c"}
    assert list_names(UPath("memory://nowhere")) == set()
    wanted = [folder / "b.png", folder / "x.png", tmp_path]
    assert find_existing(wanted) == [wanted[0], wanted[2]]


def test_what_a_file_system_says_becomes_one_line(monkeypatch):
    def fail(self, *arguments, **options):
        raise RuntimeError("the token\nhas expired")

    monkeypatch.setattr(type(UPath("memory://a").fs), "find", fail)
    with pytest.raises(InputError, match="memory://a cannot be read: the token has"):
        storage.list_files(UPath("memory://a"), recursive=True)


def write(url, data, **options):
    with write_whole(UPath(url), **options) as part:
        part.write_bytes(data)


@pytest.mark.parametrize("run", [None, "r1"])
def test_remote_files_appear_whole_or_not_at_all(run, slow_store, memory, monkeypatch):
    write("memory://out/a.png", b"one", run=run)
    with pytest.raises(TypeError):
        write("memory://out/b.png", "half", run=run)
    write("memory://out/a.png", b"two", run=run)
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        write("memory://out/a.png", b"three", replace=False, run=run)

    def fail(self, *arguments, **options):
        raise OSError("the line is down")

    monkeypatch.setattr(type(memory), "mv", fail)
    with pytest.raises(OutputError, match="the line is down"):
        write("memory://out/c.png", b"one", run=run)
    assert memory.find("/") == ["/out/a.png"]
    assert memory.cat("/out/a.png") == b"two"


def test_two_processes_of_a_run_write_the_same_file_once():
    write("memory://out/a.png", b"one", replace=False, run="r1")
    write("memory://out/a.png", b"one", replace=False, run="r1")
    with pytest.raises(OutputError, match="has appeared meanwhile"):
        write("memory://out/a.png", b"one", replace=False)


def test_a_run_sweeps_up_what_its_killed_processes_left(tmp_path, slow_store, memory):
    kept, gone = [tmp_path / "a.png.part"], []
    for run in ("r1", "r2", None):
        with write_whole(tmp_path / "a.png", run=run) as part:
            part.touch()
        (gone if run == "r1" else kept).append(part)
    for path in (*kept, *gone):
        path.touch()
    for name in (gone[0].name, "b.png"):
        UPath(f"memory://out/{name}").write_bytes(b"x")
    sweep([tmp_path, UPath("memory://out"), tmp_path / "nowhere"], "r1")
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "a.png"])
    assert memory.find("/") == ["/out/b.png"]


def test_upscale_from_url_to_url(run, picture, memory):
    for name in ("a.png", "sub/b.jpg", ".hidden.png"):
        with memory.open(f"/in/{name}", "wb") as file:
            Image.fromarray(picture()).save(file, name[-3:].replace("jpg", "jpeg"))
    memory.pipe_file("/in/sub/notes.txt", b"")
    common = ("upscale", "-m", "bicubic", "-x", 2)
    done = run(*common, "-r", "memory://in", "-o", "memory://out/")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [
        "memory://out/a_bicubic_x2.png",
        "memory://out/sub/b_bicubic_x2.jpg",
    ]
    with memory.open("/out/a_bicubic_x2.png") as file:
        assert Image.open(file).size == (64, 48)
    again = run(*common, "-r", "memory://in", "-o", "memory://out/")
    assert again.exit_code == 4
    assert "memory://out/a_bicubic_x2.png exists already (and 1 more)" in again.stderr
    one = run(*common, "memory://in/a.png", "-o", "memory://new/one.webp", "--compare")
    assert one.exit_code == 0, one.stderr
    assert {"/new/one.webp", "/new/one.webp.html"} <= set(memory.find("/new"))
    pattern = run(*common, "memory://in/*.png", "-o", "memory://third/")
    assert pattern.stdout.split() == ["memory://third/a_bicubic_x2.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["memory://in/none.png"], 3, "memory://in/none.png does not exist"),
        (["memory://empty/"], 3, "folder memory://empty holds no pictures"),
        (["memory://in/*.jpg"], 3, "no picture matches memory://in/*.jpg"),
        (["foo://in/a.png"], 2, "foo://in/a.png cannot be reached"),
        (["memory://in/bad.png"], 3, "memory://in/bad.png is not a picture"),
        (["memory://in/a.png", "-o", "memory://in/a.png"], 4, "itself an input"),
        (["memory://in/a.png", "-o", "memory://in/a"], 2, "does not say its format"),
    ],
)
def test_urls_that_lead_nowhere(arguments, code, message, run, picture, memory):
    with memory.open("/in/a.png", "wb") as file:
        Image.fromarray(picture()).save(file, "png")
    memory.pipe_file("/in/bad.png", b"not a picture")
    memory.mkdir("/empty")
    done = run("upscale", *arguments, "-m", "bicubic", "-x", 2)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr
    assert memory.find("/") == ["/in/a.png", "/in/bad.png"]


# Names as they are shown

names_are_bytes = pytest.mark.skipif(os.name != "posix", reason="names are bytes")
SHOWN = {
    "sch\u00f6n \u96ea.png".encode(): "sch\u00f6n \u96ea.png",
    b"\x8e\xca.png": r"\x8e\xca.png",
    b"a\nb\tc\x1b[31m\x7f": r"a\x0ab\x09c\x1b[31m\x7f",
    "\x85\u2028\u2029".encode(): r"\xc2\x85\xe2\x80\xa8\xe2\x80\xa9",
    rb"back\slash\x8e": r"back\\slash\\x8e",
    b"dir\xff\\/\xc3.png": r"dir\xff\\/\xc3.png",
}


def tell_back(shown):
    """The bytes of the name that `show_path` has shown."""
    return re.sub(
        rb"\\(?:\\|x([0-9a-f]{2}))",
        lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\",
        shown.encode(),
    )


@names_are_bytes
def test_odd_names_have_one_spelling_on_one_line():
    for name, shown in SHOWN.items():
        assert show_path(os.fsdecode(name)) == shown
        assert show_message(f"{shown} is bad") == f"{shown} is bad"
        assert show_message(f"{os.fsdecode(name)}:\n  bad").endswith(":   bad")
    draw = random.Random(0)
    for _ in range(500):
        # Bytes that mean something here, and some of all others.
        kinds = (b"\\x8e\nc\xc3\xa9\xff\xe2\x80\xa8", bytes(range(1, 256)))
        name = bytes(draw.choices(draw.choice(kinds), k=draw.randrange(1, 12)))
        shown = show_path(os.fsdecode(name))
        assert tell_back(shown) == name
        assert len(shown.splitlines()) == 1
        shown.encode("utf-8")


def test_windows_names_keep_their_backslashes(monkeypatch):
    monkeypatch.setattr(storage.os, "name", "nt")
    # Half a pair of UTF-16, which Windows allows: the three bytes of its own UTF-8.
    shown = show_path("C:\\scans\\\ud83d.png"), show_path("C:\\scans\\\udc8e.png")
    monkeypatch.undo()
    assert shown == (r"C:\scans\\xed\xa0\xbd.png", r"C:\scans\\xed\xb2\x8e.png")


@names_are_bytes
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_shells_take_quoted_names():
    names = [*SHOWN, b"it's", b"it's \xff", b"$HOME `x`"]
    words = " ".join(quote_path(os.fsdecode(name)) for name in names)
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True
    )
    assert done.stdout.split(b"\0")[:-1] == names
