"""Batches that end before their time: killed, interrupted, or without a disk."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.writing import write_whole

PICTURES = 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with pictures whose results take a while to write."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        noise = random.integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(noise).save(f"in/{number}.png")
    return tmp_path


def command(*arguments):
    return [sys.executable, "-m", "srcli", "upscale", *arguments]


BATCH = ("in", "-m", "bicubic", "-x", "4", "-o", "out")


def heed_signals():
    """As in a terminal, whatever ignores signals on behalf of the tests."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments):
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def wait_for_results(count):
    """Until so many results are there; the batch is not done by then."""
    end = time.monotonic() + 60
    while len(list(Path("out").glob("*.png"))) < count:
        assert time.monotonic() < end
        time.sleep(0.005)


def whole(paths):
    """Whether every picture can be decoded to its end."""
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.size == (1200, 1200)
    return True


def sources():
    return {path.name: path.read_bytes() for path in Path("in").iterdir()}


def test_a_killed_batch_is_resumed(folder):
    before = sources()
    batch = start(*BATCH)
    wait_for_results(2)
    batch.kill()
    batch.communicate()
    done = sorted(Path("out").glob("*.png"))
    assert 2 <= len(done) < PICTURES
    assert whole(done)
    assert sources() == before
    # What was being written when the program was killed is in nobody's way.
    with write_whole(Path("out/7_bicubic_x4.png"), replace=False) as part:
        shutil.copy(done[0], part)
    Path("out/7_bicubic_x4.png").replace(part)
    kept = {path: path.stat().st_mtime_ns for path in done}

    again = subprocess.run(
        command(*BATCH, "--skip-existing", "--json"), capture_output=True, check=True
    )
    rows = json.loads(again.stdout)["results"]
    skipped = [row["output"] for row in rows if row["status"] == "skipped"]
    assert skipped == [str(path) for path in done]
    assert [row["status"] for row in rows].count("done") == PICTURES - len(done)
    results = sorted(Path("out").iterdir())
    assert len(results) == PICTURES
    assert whole(results)
    assert {path: path.stat().st_mtime_ns for path in done} == kept


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "error: interrupted\n"),
        (signal.SIGTERM, 143, "error: ended by SIGTERM\n"),
        (signal.SIGHUP, 143, "error: ended by SIGHUP\n"),
    ],
)
def test_a_signal_leaves_whole_files_only(number, code, message, folder):
    batch = start(*BATCH, "--json")
    wait_for_results(2)
    batch.send_signal(number)
    stdout, stderr = batch.communicate(timeout=60)
    assert (batch.returncode, stderr) == (code, message)
    results = list(Path("out").iterdir())
    assert len(results) < PICTURES
    assert whole(results)
    rows = json.loads(stdout)["results"]
    assert rows
    assert {row["output"] for row in rows} <= {str(path) for path in results}


def test_a_file_that_may_not_grow_is_one_clear_error(folder):
    """As on a disk that is full, or over its quota."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    before = sources()
    done = subprocess.run(
        command("in/0.png", "-m", "bicubic", "-o", "big.png"),
        capture_output=True,
        preexec_fn=limit,
    )
    assert done.returncode == 4
    assert done.stderr.startswith(b"error: big.png cannot be written: ")
    assert done.stderr.count(b"\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["in"]
    assert sources() == before


def test_a_full_disk(folder):
    Path("disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", "disk"]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a file system")
    try:
        # Too small at a glance, before anything is computed.
        done = subprocess.run(
            command(*BATCH[:-1], "disk"), capture_output=True, check=False
        )
        assert done.returncode == 4
        assert b"has no room: the results take about" in done.stderr
        # Too small only once it is tried: flat pictures, by what noise took.
        Image.new("RGB", (300, 300)).save("in/flat.png")
        done = subprocess.run(
            command("in/0.png", "-m", "bicubic", "-x", "1", "-o", "disk/a.png"),
            capture_output=True,
            check=False,
        )
        assert done.returncode in (0, 4)
        assert not list(Path("disk").glob("*.part"))
    finally:
        subprocess.run(["umount", "disk"], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_that_is_read_only(folder):
    Path("out").mkdir(mode=0o555)
    done = subprocess.run(command(*BATCH), capture_output=True)
    assert done.returncode == 4
    assert b"folder out cannot be written: Permission denied" in done.stderr
    assert not list(Path("out").iterdir())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_place_where_nobody_may_write(folder):
    done = subprocess.run(
        command("in/0.png", "-m", "bicubic", "-o", "/proc/self/"), capture_output=True
    )
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"error: folder /proc/self cannot be written: ")
