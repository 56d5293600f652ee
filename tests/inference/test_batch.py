"""Batches: what becomes of each picture, and of those that are broken off."""

import io
import json
import logging
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import psutil
import pytest
from PIL import Image

from srcli.errors import (
    DeviceError,
    ExitCode,
    InputError,
    OutputError,
    PartialFailureError,
)
from srcli.imaging.files import write_picture
from srcli.imaging.metadata import Metadata
from srcli.imaging.picture import Picture
from srcli.imaging.resize import imresize
from srcli.inference import batch
from srcli.inference.batch import run_batch
from srcli.inference.cost import RunStats
from srcli.inference.jobs import Tally, plan_jobs
from srcli.inference.naming import Naming
from srcli.inference.preview import preview_batch
from srcli.inference.sizes import Goal
from srcli.inference.sources import Source
from srcli.inference.upscaler import Upscaler
from srcli.writing import write_whole


class Stub:
    """Enlarges by bicubic interpolation, as an `Upscaler` without weights would."""

    name = "mrnet"

    def __init__(self, fail=lambda _: None):
        self.stats = RunStats("cpu", "fp32", tiles=3)
        self.fail = fail

    def describe(self, height, width):
        return f"mrnet x3, then bicubic to {2 * width}x{2 * height}"

    def enlarge(self, picture, region, progress):
        self.fail(picture)
        progress.start("mrnet x2", 1)
        alpha = None if picture.alpha is None else imresize(picture.alpha, 2)
        pixels = imresize(picture.pixels, 2)
        return Picture(pixels, alpha, picture.metadata, picture.format)


def work(jobs, fail=lambda _: None, **options):
    return list(run_batch(jobs, Stub(fail), **options))


def states(results):
    return [result.status for result in results]


def opened(path):
    """What Pillow finds in a file."""
    with Image.open(path) as image:
        image.load()
        return image


def leftovers():
    return [*Path().rglob("*.part"), *Path().rglob(".srcli*")]


def raise_failures(results):
    tally = Tally()
    for result in results:
        tally.add(result)
    tally.raise_failures()


def test_results_are_written_and_told(make, plan, caplog):
    caplog.set_level(logging.INFO)
    make("a.png", "b.jpg")
    told = []
    progress = SimpleNamespace(
        start=lambda description, _: told.append(description),
        advance=lambda *_: None,
        note=lambda *_: None,
    )
    results = work(plan("a.png", "b.jpg"), progress=progress)
    assert [result.as_dict() | {"seconds": 0} for result in results] == [
        {
            "input": name,
            "output": output,
            "status": "done",
            "width": 16,
            "height": 12,
            "seconds": 0,
            "device": "cpu",
            "precision": "fp32",
            "tiles": 3,
            "bytes": Path(output).stat().st_size,
            "comparison": None,
            "estimate": None,
            "error": None,
        }
        for name, output in [("a.png", "a_mrnet_x2.png"), ("b.jpg", "b_mrnet_x2.jpg")]
    ]
    assert opened("a_mrnet_x2.png").size == (16, 12)
    assert opened("b_mrnet_x2.jpg").format == "JPEG"
    assert not leftovers()
    raise_failures(results)
    assert told == ["1/2 a.png: mrnet x2", "2/2 b.jpg: mrnet x2"]
    assert caplog.messages[0] == "a.png: mrnet x3, then bicubic to 16x12"


def test_bad_files_do_not_stop_the_others(make, plan, caplog):
    make("a.png", "b.png")
    Path("text.png").write_text("dear diary " * 20)
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:-30])
    results = work(plan("none.png", "a.png", "text.png", "cut.png", "b.png"))
    assert states(results) == ["failed", "done", "failed", "failed", "done"]
    assert [bool(result.output) for result in results] == [0, 1, 0, 0, 1]
    said = [record for record in caplog.messages if "mrnet" not in record]
    assert said[0] == "none.png does not exist"
    assert [result.as_dict()["error"] for result in results if result.error] == said
    with pytest.raises(PartialFailureError, match="3 of 5 inputs failed"):
        raise_failures(results)
    assert not leftovers()


def test_what_failures_amount_to(make, plan, caplog):
    make("a.png", "b.png")

    def fail(_):
        raise DeviceError("no memory")

    with pytest.raises(InputError, match="does not exist"):
        raise_failures(work(plan("none.png")))
    assert not caplog.messages  # of a single one, the caller says it
    with pytest.raises(InputError, match="all 2 inputs failed"):
        raise_failures(work(plan("x.png", "y.png")))
    with pytest.raises(DeviceError, match="all 2 inputs failed"):
        raise_failures(work(plan("a.png", "b.png"), fail))
    with pytest.raises(PartialFailureError) as caught:
        raise_failures(work(plan("a.png", "y.png"), fail))
    assert caught.value.exit_code == ExitCode.PARTIAL

    def run_out(_):
        raise MemoryError

    (result,) = work(plan("a.png"), run_out)
    assert isinstance(result.error, DeviceError)


def test_transparency_is_refused_before_the_work_unless_opaque(make, plan):
    make("half.png", mode="RGBA")
    Image.new("RGBA", (8, 6), (1, 2, 3, 255)).save("opaque.png")

    def fail(picture):
        assert picture.alpha.min() == 255

    results = work(plan("half.png", "opaque.png", format="jpg"), fail)
    assert states(results) == ["failed", "done"]
    assert "holds no transparency" in str(results[0].error)


def test_skipped_results_are_not_touched(make, plan, caplog):
    caplog.set_level(logging.INFO)
    make("a.png", "b.png")
    Path("a_mrnet_x2.png").write_bytes(b"mine")
    assert states(work(plan("a.png", "b.png", existing="skip"))) == ["skipped", "done"]
    assert Path("a_mrnet_x2.png").read_bytes() == b"mine"
    assert "a_mrnet_x2.png exists: skipped" in caplog.messages


def test_a_folder_that_is_removed_meanwhile(make, plan):
    make("in/a.png", "in/b.png", "in/c.png")
    count = iter(range(3))

    def remove(_):
        if next(count) == 1:
            end = time.monotonic() + 60
            while not Path("out/a_mrnet_x2.png").exists():
                assert time.monotonic() < end
                time.sleep(0.01)
            shutil.rmtree("out")

    results = work(plan("in", output="out/"), remove)
    assert states(results) == ["done", "failed", "failed"]
    assert {type(result.error) for result in results[1:]} == {OutputError}
    assert not Path("out").exists()


def test_interruption_leaves_whole_files_only(make, plan):
    make("a.png", "c.png")
    make("b.png", size=(5, 5))

    def interrupt(picture):
        if picture.width == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(plan("a.png", "b.png", "c.png"), interrupt)
    assert opened("a_mrnet_x2.png").size == (16, 12)
    assert not Path("c_mrnet_x2.png").exists()
    results = run_batch(plan("a.png", "b.png", "c.png", existing="overwrite"), Stub())
    assert next(results).status == "done"
    results.close()  # a caller that stops early
    assert opened("a_mrnet_x2.png").size == (16, 12)
    assert not leftovers()


def test_reading_and_writing_overlap_the_work(make, plan, monkeypatch):
    make("a.png", "b.png", "c.png")
    reads, writes = threading.Semaphore(0), threading.Semaphore(0)
    read, write = batch.open_picture, batch.write_picture

    def tell_read(*args, **options):
        reads.release()
        return read(*args, **options)

    def slow_write(*args, **options):
        assert writes.acquire(timeout=60)
        write(*args, **options)

    monkeypatch.setattr(batch, "open_picture", tell_read)
    monkeypatch.setattr(batch, "write_picture", slow_write)
    count = iter(range(3))

    def meet(_):
        index = next(count)
        # This picture and, except after the last, the next one have been read.
        for _ in range(2 if index == 0 else 1 if index == 1 else 0):
            assert reads.acquire(timeout=60)
        # The last picture can only be written while this one is worked on.
        writes.release()

    assert states(work(plan("a.png", "b.png", "c.png"), meet)) == ["done"] * 3


def test_metadata_is_kept_or_all_of_it_stripped(make, plan):
    # Half the gamma of sRGB, nearly: the same level is much brighter.
    primaries = (0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0)
    icc = imagecodecs.cms_profile(
        "rgb", whitepoint=(0.3127, 0.3290, 1.0), primaries=primaries, gamma=1.1
    )
    pixels = np.full((6, 8, 3), 128, np.uint8)
    full = Picture(pixels, None, Metadata(icc=icc, xmp=b"<x/>", dpi=(300, 300)))
    make("a.png")
    write_picture(full, Path("a.png"))
    work(plan("a.png"))
    kept = opened("a_mrnet_x2.png").info
    assert (kept["icc_profile"], kept["xmp"]) == (icc, b"<x/>")
    work(plan("a.png", existing="overwrite", keep_metadata=False))
    bare = opened("a_mrnet_x2.png")
    assert not bare.info
    assert bare.getpixel((4, 4))[0] > 170  # as bright as it was, said in sRGB


def test_quality_reaches_the_file_and_standard_output(make, plan, monkeypatch):
    make("a.png")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save("a.png")
    for quality in (20, 90):
        work(plan("a.png", output=f"q{quality}.jpg", quality=quality))
    small, large = (Path(f"q{quality}.jpg").stat().st_size for quality in (20, 90))
    assert small < large / 2
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    (result,) = work(plan("a.png", output="-", format="webp"))
    assert (result.output, result.status) == ("-", "done")
    written = Image.open(io.BytesIO(stdout.buffer.getvalue()))
    assert (written.format, written.size) == ("WEBP", (64, 64))


# What it will take


def test_a_preview_counts_time_memory_and_bytes(make, plan):
    for number, side in enumerate((48, 96)):
        make(f"{number}.png", size=(side, side))
    upscaler = Upscaler("mrnet", 8, tile=32)
    jobs = plan("0.png", "1.png", "none.png", goal=Goal(8))
    results, total = preview_batch(jobs, upscaler)
    assert states(results) == ["planned", "planned", "failed"]
    small, large = (result.estimate for result in results[:2])
    first, second = upscaler.runners(48, 48)
    # The second pass sees what the first has made.
    both = first.estimate_seconds(48, 48) + second.estimate_seconds(192, 192)
    assert small.seconds == pytest.approx(both)
    assert total.seconds == pytest.approx(small.seconds + large.seconds)
    assert large.seconds > 2 * small.seconds > 0
    assert large.memory - small.memory > 3 * 64 * (96**2 - 48**2)
    assert total.memory == max(small.memory, large.memory)
    assert total.bytes == small.bytes + large.bytes > 0
    assert sorted(path.name for path in Path().iterdir()) == ["0.png", "1.png"]
    (free,) = preview_batch(plan("0.png"), Upscaler("bicubic", 2))[0]
    assert 0 < free.estimate.seconds < 5


def test_a_preview_counts_the_networks_that_it_runs(make, plan, monkeypatch):
    make("a.png", size=(8, 8))
    upscaler = Upscaler("bicubic", 2)
    ballast = []  # as networks are loaded once they are asked for

    def runners(height, width):
        ballast.append(np.ones(200_000_000, np.uint8))
        return []

    monkeypatch.setattr(upscaler, "runners", runners)
    before = psutil.Process().memory_info().rss
    (_, total) = preview_batch(plan("a.png"), upscaler)
    assert total.memory > before + 150_000_000


def test_names_that_are_not_unicode_can_be_shown():
    source = Source(Path("caf\udce9.png"))
    jobs = plan_jobs([source], Naming(model="mrnet", goal=Goal(2)))
    ((result,), _) = preview_batch(jobs, None)
    assert result.input == r"caf\xe9.png"


# Programs that end before their time

PICTURES = 6
BATCH = ("in", "-m", "bicubic", "-x", "4", "-o", "out")


@pytest.fixture
def noisy(tmp_path, monkeypatch):
    """A working folder with pictures whose results take a while to write."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        noise = random.integers(0, 256, (300, 300, 3), np.uint8)
        Image.fromarray(noise).save(f"in/{number}.png")


def heed_signals():
    """As in a terminal, whatever ignores signals on behalf of the tests."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(*arguments):
    """A command of which two results are there, and not yet all of them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "srcli", "upscale", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    end = time.monotonic() + 120
    while len(list(Path("out").glob("*.png"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.005)
    return process


def are_whole(paths):
    return all(opened(path).size == (1200, 1200) for path in paths)


def test_a_killed_batch_is_resumed(noisy, run):
    process = start(*BATCH)
    process.kill()
    process.communicate()
    done = sorted(Path("out").glob("*.png"))
    assert 2 <= len(done) < PICTURES
    assert are_whole(done)
    # What was being written when the program was killed is in nobody's way.
    last = Path(f"out/{PICTURES - 1}_bicubic_x4.png")
    with write_whole(last, replace=False) as part:
        shutil.copy(done[0], part)
    last.replace(part)
    kept = {path: path.stat().st_mtime_ns for path in done}
    again = run("upscale", *BATCH, "--skip-existing", "--json")
    assert again.exit_code == 0, again.stderr
    rows = json.loads(again.stdout)["results"]
    skipped = [row["output"] for row in rows if row["status"] == "skipped"]
    assert skipped == [str(path) for path in done]
    results = sorted(Path("out").iterdir())
    assert len(results) == PICTURES
    assert are_whole(results)
    assert {path: path.stat().st_mtime_ns for path in done} == kept


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "error: interrupted\n"),
        (signal.SIGTERM, 143, "error: ended by SIGTERM\n"),
    ],
)
def test_a_signal_leaves_whole_files_only(number, code, message, noisy):
    process = start(*BATCH, "--json")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stderr) == (code, message)
    results = list(Path("out").iterdir())
    assert len(results) < PICTURES
    assert are_whole(results)
    rows = json.loads(stdout)["results"]
    assert rows
    assert {row["output"] for row in rows} <= {str(path) for path in results}


def test_a_file_that_may_not_grow_is_one_clear_error(noisy, run_process):
    """As on a disk that is full, or over its quota."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    call = ("upscale", "in/0.png", "-m", "bicubic", "-o", "big.png")
    done = run_process(*call, preexec_fn=limit)
    assert done.returncode == 4
    assert done.stderr.startswith(b"error: big.png cannot be written: ")
    assert done.stderr.count(b"\n") == 1
    assert [path.name for path in Path().iterdir()] == ["in"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_place_where_nobody_may_write(noisy, run):
    done = run("upscale", "in/0.png", "-m", "bicubic", "-o", "/proc/self/")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "folder /proc/self cannot be written: " in done.stderr
