"""Batches: which pictures, under which names, and what becomes of each."""

import io
import logging
import shutil
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from srcli.errors import (
    DeviceError,
    ExitCode,
    InputError,
    OutputError,
    PartialFailureError,
    UsageError,
)
from srcli.imaging import encode, files
from srcli.imaging.files import Metadata, Picture
from srcli.imaging.resize import imresize
from srcli.inference import batch
from srcli.inference.batch import run_batch
from srcli.inference.cost import RunStats
from srcli.inference.jobs import Tally, plan_jobs, prepare_folders
from srcli.inference.naming import Naming
from srcli.inference.preview import preview_batch
from srcli.inference.sizes import Goal
from srcli.inference.sources import Source, expand_inputs


class Stub:
    """Enlarges by bicubic interpolation, as an `Upscaler` without weights would."""

    name = "mrnet"

    def __init__(self, scale=2.0, fail=None):
        self.goal = Goal(scale)
        self.stats = RunStats("cpu", "fp32", tiles=3)
        self.fail = fail or (lambda _: None)

    def describe(self, height, width):
        rows, columns = self.goal.size(height, width)
        if self.goal.scale == 2.5:
            return f"mrnet x3, then bicubic to {columns}x{rows}"
        return f"mrnet x{self.goal.scale:g}"

    def enlarge(self, picture, region, progress):
        self.fail(picture)
        progress.start("mrnet x2", 1)
        size = self.goal.size(picture.height, picture.width)
        alpha = None if picture.alpha is None else imresize(picture.alpha, size=size)
        pixels = imresize(picture.pixels, size=size)
        return Picture(pixels, alpha, picture.metadata, picture.format)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes picture files in an own working folder."""
    monkeypatch.chdir(tmp_path)

    def make_files(*names, size=(8, 6), mode="RGB"):
        for name in names:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            suffix = path.suffix.lower()
            format = {".jpg": "jpeg", ".tif": "tiff"}.get(suffix, suffix[1:])
            Image.new(mode, size, 77).save(path, format)

    return make_files


def plan(*inputs, recursive=False, scale=2.0, width=None, height=None, **naming):
    goal = Goal(None if width or height else scale, width, height)
    sources = expand_inputs([str(text) for text in inputs], recursive=recursive)
    return plan_jobs(sources, Naming(model="mrnet", goal=goal, **naming))


def names(jobs):
    return [str(job.output) for job in jobs]


def make_profile(gamma):
    """The primaries of sRGB with another curve."""
    primaries = (0.64, 0.33, 1.0, 0.30, 0.60, 1.0, 0.15, 0.06, 1.0)
    return imagecodecs.cms_profile(
        "rgb", whitepoint=(0.3127, 0.3290, 1.0), primaries=primaries, gamma=gamma
    )


def everything(folder="."):
    """Every file below a folder, with what it holds."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths}


def opened(path):
    """What Pillow finds in a file."""
    with Image.open(path) as image:
        image.load()
        return image


def raise_failures(results):
    tally = Tally()
    for result in results:
        tally.add(result)
    tally.raise_failures()


def work(jobs, upscaler=None):
    return list(run_batch(jobs, upscaler or Stub()))


# Which pictures


def found(*inputs, **options):
    return [str(source.path) for source in expand_inputs(inputs, **options)]


def test_files_come_in_their_order_and_once(make):
    make("b.png", "a.png")
    assert found("b.png", "a.png", "./b.png", "none.png") == [
        "b.png",
        "a.png",
        "none.png",
    ]


def test_folders_give_their_pictures(make):
    make("in/b.png", "in/a.JPG".lower(), "in/.hidden.png", "in/deep/c.webp")
    Path("in/notes.txt").write_text("x")
    Path("in/folder.png").mkdir()
    assert found("in") == ["in/a.jpg", "in/b.png"]
    assert found("in", recursive=True) == ["in/a.jpg", "in/b.png", "in/deep/c.webp"]


def test_patterns_give_what_matches(make):
    make("in/a1.png", "in/a2.png", "in/b.png", "in/x/a3.png")
    Path("in/a.txt").write_text("x")
    assert found("in/a*") == ["in/a1.png", "in/a2.png"]
    assert found(str(Path.cwd() / "in" / "a[2-9].png"))[0].endswith("/in/a2.png")
    assert found("**/a?.png") == ["in/a1.png", "in/a2.png", "in/x/a3.png"]


def test_file_whose_name_looks_like_a_pattern(make):
    make("photo[1].png")
    assert found("photo[1].png") == ["photo[1].png"]


def test_nothing_found_is_an_input_error(make):
    make("in/deep/a.png")
    with pytest.raises(InputError, match="folder in holds no pictures; --recursive"):
        expand_inputs(["in"])
    with pytest.raises(InputError, match=r"no picture matches \*\.bmp"):
        expand_inputs(["*.bmp"])


def test_folder_that_may_not_be_read(make, monkeypatch):
    make("in/a.png")

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(InputError, match="in cannot be read: Permission denied"):
        expand_inputs(["in"])


# Names


def test_results_lie_beside_their_inputs(make):
    make("a.png", "sub/b.jpg", "c.tif")
    assert names(plan("a.png", "sub/b.jpg", "c.tif", scale=4)) == [
        "a_mrnet_x4.png",
        "sub/b_mrnet_x4.jpg",
        "c_mrnet_x4.tif",
    ]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"scale": 2.5}, "a_mrnet_x2.5.png"),
        ({"width": 24}, "a_mrnet_24x18.png"),
        ({"height": 12}, "a_mrnet_16x12.png"),
        ({"width": 20, "height": 30}, "a_mrnet_20x30.png"),
        ({"suffix": "-big"}, "a-big.png"),
        ({"format": "webp"}, "a_mrnet_x2.webp"),
        ({"output": "b.tiff"}, "b.tiff"),
        ({"output": "out/"}, "out/a_mrnet_x2.png"),
        ({"output": "there"}, "there/a_mrnet_x2.png"),
        ({"output": "there", "suffix": ""}, "there/a.png"),
        ({"output": "b", "format": "png"}, "b"),
    ],
)
def test_names(options, name, make):
    make("a.png")
    Path("there").mkdir()
    before = everything()
    (job,) = plan("a.png", **options)
    assert str(job.output) == name
    assert everything() == before


def test_result_size_is_known_before(make):
    make("a.png", size=(31, 17))
    (job,) = plan("a.png", scale=2.5)
    assert (job.width, job.height) == (78, 43)


def test_recursive_keeps_the_tree(make):
    make("in/a.png", "in/x/y/b.png")
    jobs = plan("in", recursive=True, output="out")
    assert names(jobs) == ["out/a_mrnet_x2.png", "out/x/y/b_mrnet_x2.png"]
    assert not Path("out").exists()
    work(jobs)
    assert opened("out/x/y/b_mrnet_x2.png").size == (16, 12)
    assert names(plan("**/b.png", output="flat")) == ["flat/in/x/y/b_mrnet_x2.png"]


def test_content_decides_the_format_not_the_name(make):
    make("a.png")
    Path("b.jpg").write_bytes(Path("a.png").read_bytes())
    assert names(plan("b.jpg")) == ["b_mrnet_x2.png"]


def test_own_format_that_cannot_hold_the_result_becomes_png(make, caplog):
    caplog.set_level(logging.INFO)
    make("wide.webp", size=(8200, 1))
    make("small.webp")
    assert names(plan("wide.webp", "small.webp")) == [
        "wide_mrnet_x2.png",
        "small_mrnet_x2.webp",
    ]
    assert caplog.messages == [
        "wide.webp: WebP holds no picture of 16400x2 pixels: it becomes a PNG"
    ]


@pytest.mark.parametrize("naming", [{"format": "webp"}, {"output": "out.webp"}])
def test_format_asked_for_that_cannot_hold_the_result(naming, make):
    make("wide.png", size=(8200, 1))
    (job,) = plan("wide.png", **naming)
    assert isinstance(job.error, OutputError)
    assert "wide.png cannot be written: WebP holds no picture" in str(job.error)


def test_standard_streams(monkeypatch, make):
    make("a.jpg")
    data = Path("a.jpg").read_bytes()

    def feed():
        stdin = io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stdin)

    feed()
    (job,) = plan("-")
    assert (job.output, job.format, job.source.data) == (None, "jpg", data)
    feed()
    assert names(plan("-", output="out/")) == ["out/stdin_mrnet_x2.jpg"]
    (job,) = plan("a.jpg", output="-", format="png")
    assert (job.output, job.format) == (None, "png")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="standard input is a terminal"):
        plan("-")


# What is refused before any work begins


def prepare(*inputs, **options):
    jobs = plan(*inputs, **options)
    prepare_folders(job.output.parent for job in jobs if job.output)


def refuse(kind, message, *inputs, **options):
    before = everything()
    with pytest.raises(kind, match=message):
        prepare(*inputs, **options)
    assert everything() == before


def test_results_that_exist(make):
    make("a.png", "b.png", "a_mrnet_x2.png", "b_mrnet_x2.png")
    refuse(
        OutputError, r"a_mrnet_x2\.png exists already \(and 1 more\)", "a.png", "b.png"
    )
    skipped = plan("a.png", existing="skip")
    assert [result.status for result in preview_batch(skipped, None)[0]] == ["skipped"]
    assert plan("a.png", existing="overwrite")[0].is_open


@pytest.mark.parametrize("existing", ["refuse", "overwrite", "skip"])
def test_two_results_of_one_name(existing, make):
    make("x/a.png", "y/a.png", "a.png", "a.jpg")
    message = r"x/a\.png and y/a\.png would both become out/a_mrnet_x2\.png"
    options = {"existing": existing}
    refuse(OutputError, message, "x/a.png", "y/a.png", output="out/", **options)
    refuse(OutputError, "would both become", "a.png", "a.jpg", format="png", **options)


@pytest.mark.parametrize("existing", ["refuse", "overwrite", "skip"])
def test_inputs_are_never_replaced(existing, make):
    make("a.png", "a_mrnet_x2.png")
    Path("link").symlink_to(".")
    for inputs, naming in [
        (["a.png"], {"output": "a.png"}),
        (["a.png"], {"output": "link/a.png"}),
        (["a.png"], {"suffix": ""}),
        (["a.png", "a_mrnet_x2.png"], {}),
    ]:
        refuse(OutputError, "is itself an input", *inputs, existing=existing, **naming)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "out.png"}, "one file for several pictures"),
        ({"output": "a.png"}, "one file for several pictures"),
        ({"output": "-"}, "standard output takes one picture"),
    ],
)
def test_one_output_for_several_inputs(options, message, make):
    make("a.png", "b.png", "in/c.png")
    refuse(UsageError, message, "a.png", "b.png", **options)
    refuse(UsageError, message, "in", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "out"}, "does not say its format"),
        ({"output": "out.xyz"}, "does not say its format"),
        ({"output": "out.png", "format": "jpg"}, "contradict each other"),
        ({"suffix": "/x"}, "must not name a folder"),
        ({"scale": 9}, "1 to 8"),
    ],
)
def test_names_that_make_no_sense(options, message, make):
    make("a.png")
    refuse(UsageError, message, "a.png", **options)


def test_folders_that_cannot_be_written(make, monkeypatch):
    make("a.png")
    Path("file").write_text("")
    refuse(OutputError, "folder none does not exist", "a.png", output="none/b.png")
    refuse(OutputError, "cannot be written", "a.png", output="file/")
    Path("a_mrnet_x2.png").mkdir()
    refuse(OutputError, r"a_mrnet_x2\.png is a folder", "a.png")
    Path("a_mrnet_x2.png").rmdir()

    def deny(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", deny)
    refuse(OutputError, "folder . cannot be written: Permission denied", "a.png")


# A second run of the same command


def test_earlier_results_are_left_out(make, caplog):
    caplog.set_level(logging.INFO)
    make("in/a.png", "in/a_mrnet_x2.png", "in/b_mrnet_x4.png")
    assert names(plan("in", existing="skip")) == [
        "in/a_mrnet_x2.png",
        "in/b_mrnet_x4_mrnet_x2.png",
    ]
    assert "1 earlier results are left out" in caplog.messages
    assert names(plan("in/*.png", output="in", existing="skip"))[0] == (
        "in/a_mrnet_x2.png"
    )
    # Named, or going elsewhere, a result is a picture like any other.
    assert names(plan("in/a_mrnet_x2.png")) == ["in/a_mrnet_x2_mrnet_x2.png"]
    assert len(plan("in", output="out")) == 3
    make("in/c_mrnet_30x20.png")
    assert len(plan("in", width=16, existing="skip")) == 3


def test_folder_for_results_inside_the_inputs(make):
    make("in/a.png", "in/out/a_mrnet_x2.png", "in/sub/b.png")
    jobs = plan("in", recursive=True, output="in/out", existing="skip")
    assert names(jobs) == ["in/out/a_mrnet_x2.png", "in/out/sub/b_mrnet_x2.png"]
    # A folder above the inputs does not hide them.
    assert names(plan("in/sub", output="in")) == ["in/b_mrnet_x2.png"]


def test_only_earlier_results(make):
    make("in/a_mrnet_x2.png")
    with pytest.raises(InputError, match="every picture found is an earlier result"):
        plan("in")


# The work


def test_results_are_written_and_told(make):
    make("a.png", "b.jpg")
    results = work(plan("a.png", "b.jpg"))
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
    assert not list(Path().glob("*.part"))
    raise_failures(results)


def test_bad_files_do_not_stop_the_others(make, caplog):
    make("a.png", "b.png")
    Path("text.png").write_text("dear diary " * 20)
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:-30])
    jobs = plan("none.png", "a.png", "text.png", "cut.png", "b.png")
    results = work(jobs)
    assert [result.status for result in results] == [
        "failed",
        "done",
        "failed",
        "failed",
        "done",
    ]
    assert [result.output for result in results] == [
        None,
        "a_mrnet_x2.png",
        None,
        None,
        "b_mrnet_x2.png",
    ]
    assert len(caplog.messages) == 3
    assert caplog.messages[0] == "none.png does not exist"
    assert all("\n" not in message for message in caplog.messages)
    assert results[2].as_dict()["error"] == caplog.messages[1]
    with pytest.raises(PartialFailureError, match="3 of 5 inputs failed"):
        raise_failures(results)
    assert not list(Path().glob("*.part"))


def test_one_input_fails_with_its_own_error(caplog):
    results = work(plan("none.png"))
    with pytest.raises(InputError, match=r"none\.png does not exist"):
        raise_failures(results)
    assert not caplog.messages  # the caller says it


def test_all_inputs_failing_alike_keep_their_class(make):
    make("a.png", "b.png")

    def fail(_):
        raise DeviceError("no memory")

    with pytest.raises(InputError, match="all 2 inputs failed"):
        raise_failures(work(plan("x.png", "y.png")))
    with pytest.raises(DeviceError, match="all 2 inputs failed"):
        raise_failures(work(plan("a.png", "b.png"), Stub(fail=fail)))
    with pytest.raises(PartialFailureError, match="2 of 2 inputs failed") as caught:
        raise_failures(work(plan("a.png", "y.png"), Stub(fail=fail)))
    assert caught.value.exit_code == ExitCode.PARTIAL


def test_memory_that_does_not_suffice_is_one_pictures_failure(make):
    make("a.png", "b.png", size=(9, 9))
    make("b.png")

    def fail(picture):
        if picture.width == 9:
            raise MemoryError

    results = work(plan("a.png", "b.png"), Stub(fail=fail))
    assert [result.status for result in results] == ["failed", "done"]
    assert isinstance(results[0].error, DeviceError)


def test_transparency_is_refused_before_the_work_unless_opaque(make):
    make("half.png", mode="RGBA")
    Image.new("RGBA", (8, 6), (1, 2, 3, 255)).save("opaque.png")

    def fail(picture):
        assert picture.alpha.min() == 255

    jobs = plan("half.png", "opaque.png", format="jpg")
    results = work(jobs, Stub(fail=fail))
    assert [result.status for result in results] == ["failed", "done"]
    assert "half.png cannot be written: JPEG holds no transparency" in str(
        results[0].error
    )


def test_skipped_results_are_not_touched(make, caplog):
    caplog.set_level(logging.INFO)
    make("a.png", "b.png")
    Path("a_mrnet_x2.png").write_bytes(b"mine")
    results = work(plan("a.png", "b.png", existing="skip"))
    assert [result.status for result in results] == ["skipped", "done"]
    assert Path("a_mrnet_x2.png").read_bytes() == b"mine"
    assert "a_mrnet_x2.png exists: skipped" in caplog.messages


def test_write_failure_is_one_pictures_failure(make, monkeypatch):
    make("a.png", "b.png")
    original, failed = encode._write_png, []

    def write(planes, file, *said):
        if not failed:
            failed.append(file.write(b"half"))
            raise OSError(28, "No space left on device")
        original(planes, file, *said)

    monkeypatch.setattr(encode, "_write_png", write)
    results = work(plan("a.png", "b.png"))
    assert [result.status for result in results] == ["failed", "done"]
    assert "No space left" in str(results[0].error)
    assert sorted(everything()) == ["a.png", "b.png", "b_mrnet_x2.png"]


def test_a_folder_that_is_removed_meanwhile(make, caplog):
    make("in/a.png", "in/b.png", "in/c.png")
    before = everything("in")
    count = iter(range(3))

    def remove(_):
        if next(count) == 1:
            end = time.monotonic() + 30
            while not Path("out/a_mrnet_x2.png").exists():
                assert time.monotonic() < end
                time.sleep(0.01)
            shutil.rmtree("out")

    results = work(plan("in", output="out/"), Stub(fail=remove))
    assert [result.status for result in results] == ["done", "failed", "failed"]
    assert {type(result.error) for result in results[1:]} == {OutputError}
    assert "cannot write out/b_mrnet_x2.png" in caplog.text
    assert everything() == before
    assert not Path("out").exists()


def test_a_disk_that_fills_up_is_noticed_before_the_work(make, monkeypatch):
    make("a.png", "b.png", "c.png", size=(200, 200))
    worked = []
    usage = SimpleNamespace(total=10**9, free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    def fill(picture):
        worked.append(picture)
        usage.free = 0

    results = work(plan("a.png", "b.png", "c.png"), Stub(fail=fill))
    # The second may have been read while there still was room.
    assert [result.status for result in results[2:]] == ["failed"]
    assert "no room" in str(results[2].error)
    assert len(worked) < 3


def test_interruption_leaves_whole_files_only(make):
    make("a.png", "b.png", "c.png", size=(8, 6))
    make("b.png", size=(5, 5))

    def interrupt(picture):
        if picture.width == 5:
            raise KeyboardInterrupt

    jobs = plan("a.png", "b.png", "c.png")
    with pytest.raises(KeyboardInterrupt):
        work(jobs, Stub(fail=interrupt))
    assert opened("a_mrnet_x2.png").size == (16, 12)
    assert not Path("c_mrnet_x2.png").exists()
    assert not list(Path().glob("*.part"))


def test_reading_and_writing_overlap_the_work(make, monkeypatch):
    make("a.png", "b.png", "c.png")
    reads, writes = threading.Semaphore(0), threading.Semaphore(0)
    read, write = batch.open_picture, batch.write_picture

    def tell_read(*args, **options):
        reads.release()
        return read(*args, **options)

    def slow_write(*args, **options):
        assert writes.acquire(timeout=30)
        write(*args, **options)

    monkeypatch.setattr(batch, "open_picture", tell_read)
    monkeypatch.setattr(batch, "write_picture", slow_write)
    count = iter(range(3))

    def meet(_):
        index = next(count)
        # This picture and, except after the last, the next one have been read.
        for _ in range(2 if index == 0 else 1 if index == 1 else 0):
            assert reads.acquire(timeout=30)
        # The last picture can only be written while this one is worked on.
        writes.release()

    results = work(plan("a.png", "b.png", "c.png"), Stub(fail=meet))
    assert [result.status for result in results] == ["done"] * 3


def test_metadata_is_kept_or_all_of_it_stripped(make):
    # Half the gamma of sRGB, nearly: the same level is much brighter.
    icc = make_profile(1.1)
    pixels = np.full((6, 8, 3), 128, np.uint8)
    full = Picture(pixels, None, Metadata(icc=icc, xmp=b"<x/>", dpi=(300, 300)))
    make("a.png")
    files.write_picture(full, Path("a.png"))
    work(plan("a.png"))
    kept = opened("a_mrnet_x2.png").info
    assert (kept["icc_profile"], kept["xmp"]) == (icc, b"<x/>")
    work(plan("a.png", existing="overwrite", keep_metadata=False))
    bare = opened("a_mrnet_x2.png")
    assert not bare.info
    assert bare.getpixel((4, 4))[0] > 170  # as bright as it was, said in sRGB


def test_quality_reaches_the_file(make):
    make("a.png")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save("a.png")
    sizes = []
    for quality in (20, 90):
        work(plan("a.png", output=f"q{quality}.jpg", quality=quality))
        sizes.append(Path(f"q{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2


def test_several_steps_are_told(make, caplog):
    caplog.set_level(logging.INFO)
    make("a.png")
    work(plan("a.png", scale=2.5), Stub(2.5))
    assert caplog.messages == ["a.png: mrnet x3, then bicubic to 20x15"]


def test_progress_names_the_file(make):
    make("a.png", "b.png")
    told = []
    progress = SimpleNamespace(
        start=lambda description, _: told.append(description),
        advance=lambda _: None,
        note=lambda _: None,
    )
    jobs = plan("a.png", "b.png")
    list(run_batch(jobs, Stub(), progress=progress))
    assert told == ["1/2 a.png: mrnet x2", "2/2 b.png: mrnet x2"]
    told.clear()
    list(run_batch(plan("a.png", existing="overwrite"), Stub(), progress=progress))
    assert told == ["a.png: mrnet x2"]


def test_standard_output_gets_the_bytes(make, monkeypatch):
    make("a.png")
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    (result,) = work(plan("a.png", output="-", format="webp"))
    assert (result.output, result.status) == ("-", "done")
    written = Image.open(io.BytesIO(stdout.buffer.getvalue()))
    assert (written.format, written.size) == ("WEBP", (16, 12))


def test_names_that_are_not_unicode_can_be_shown():
    source = Source(Path("caf\udce9.png"))
    jobs = plan_jobs([source], Naming(model="mrnet", goal=Goal(2)))
    ((result,), _) = preview_batch(jobs, None)
    result.input.encode("utf-8")
    assert result.input == r"caf\xe9.png"


def test_a_caller_that_stops_early_leaves_whole_files_only(make):
    make("a.png", "b.png", "c.png", size=(200, 200))
    results = run_batch(plan("a.png", "b.png", "c.png"), Stub())
    assert next(results).status == "done"
    results.close()
    assert opened("a_mrnet_x2.png").size == (400, 400)
    assert not list(Path().glob("*.part")) + list(Path().glob(".*"))
