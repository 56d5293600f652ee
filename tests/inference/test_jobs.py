"""From what was typed to jobs: which pictures, which names, and what is refused."""

import io
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from srcli.errors import InputError, OutputError, UsageError
from srcli.imaging.files import encode_picture
from srcli.imaging.picture import Picture
from srcli.imaging.resize import imresize
from srcli.inference.jobs import check_space, prepare_folders, require_room
from srcli.inference.sizes import Goal
from srcli.inference.sources import expand_inputs


def found(*inputs, **options):
    return [str(source.path) for source in expand_inputs(inputs, **options)]


def names(jobs):
    return [str(job.output) for job in jobs]


def everything():
    """Every file below the working folder, with what it holds."""
    paths = sorted(path for path in Path().rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in paths}


@pytest.fixture
def refuse(plan):
    """A function that sees that inputs are refused, and nothing is touched."""

    def check(kind, message, *inputs, **options):
        before = everything()
        with pytest.raises(kind, match=message):
            prepare_folders(job.output.parent for job in plan(*inputs, **options))
        assert everything() == before

    return check


# Which pictures


def test_inputs_become_pictures_once_and_in_order(make):
    make("b.png", "in/b.png", "in/a.jpg", "in/.hidden.png", "in/deep/a1.webp")
    make("photo[1].png")
    Path("in/notes.txt").write_text("x")
    Path("in/folder.png").mkdir()
    assert found("b.png", "./b.png", "none.png") == ["b.png", "none.png"]
    assert found("in") == ["in/a.jpg", "in/b.png"]
    assert found("in", recursive=True) == ["in/a.jpg", "in/b.png", "in/deep/a1.webp"]
    assert found("in/a*") == ["in/a.jpg"]
    assert found("**/a?.webp") == ["in/deep/a1.webp"]
    assert found("photo[1].png") == ["photo[1].png"]
    with pytest.raises(InputError, match="holds no pictures; --recursive"):
        expand_inputs(["in/folder.png"])
    with pytest.raises(InputError, match="no picture matches"):
        expand_inputs(["*.bmp"])


def test_a_folder_that_may_not_be_read(make, monkeypatch):
    make("in/a.png")

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(InputError, match="Permission denied"):
        expand_inputs(["in"])


# Names


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"goal": Goal(2.5)}, "a_mrnet_x2.5.png"),
        ({"goal": Goal(width=20, height=30)}, "a_mrnet_20x30.png"),
        ({"suffix": "-big"}, "a-big.png"),
        ({"format": "webp"}, "a_mrnet_x2.webp"),
        ({"output": "b.tiff"}, "b.tiff"),
        ({"output": "out/"}, "out/a_mrnet_x2.png"),
        ({"output": "there", "suffix": ""}, "there/a.png"),
    ],
)
def test_names(options, name, make, plan):
    make("a.png")
    Path("there").mkdir()
    before = everything()
    assert names(plan("a.png", **options)) == [name]
    assert everything() == before


def test_results_lie_beside_their_inputs_or_in_the_same_tree(make, plan):
    make("a.png", "sub/b.jpg", "in/c.tif", "in/x/y/d.png")
    beside = ["a_mrnet_x2.png", "sub/b_mrnet_x2.jpg"]
    assert names(plan("a.png", "sub/b.jpg")) == beside
    tree = ["out/c_mrnet_x2.tif", "out/x/y/d_mrnet_x2.png"]
    assert names(plan("in", recursive=True, output="out")) == tree
    assert names(plan("**/d.png", output="flat")) == ["flat/in/x/y/d_mrnet_x2.png"]


def test_content_decides_the_format_unless_it_cannot_hold_the_result(
    make, plan, caplog
):
    caplog.set_level(logging.INFO)
    make("a.png", "wide.webp", size=(8200, 1))
    Path("b.jpg").write_bytes(Path("a.png").read_bytes())
    assert names(plan("b.jpg")) == ["b_mrnet_x2.png"]
    assert names(plan("wide.webp")) == ["wide_mrnet_x2.png"]
    assert "it becomes a PNG" in caplog.text
    for options in ({"format": "webp"}, {"output": "out.webp"}):
        (job,) = plan("a.png", **options)
        assert isinstance(job.error, OutputError)


def test_standard_streams(monkeypatch, make, plan):
    make("a.jpg")
    data = Path("a.jpg").read_bytes()
    for options, output in [({}, "None"), ({"output": "o/"}, "o/stdin_mrnet_x2.jpg")]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        (job,) = plan("-", **options)
        assert (str(job.output), job.format, job.source.data) == (output, "jpg", data)
    (job,) = plan("a.jpg", output="-", format="png")
    assert (job.output, job.format) == (None, "png")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="terminal"):
        plan("-")


# What is refused before any work begins


def test_results_that_exist(make, plan, refuse):
    make("a.png", "b.png", "a_mrnet_x2.png", "b_mrnet_x2.png")
    refuse(OutputError, r"exists already \(and 1 more\)", "a.png", "b.png")
    (skipped,) = plan("a.png", existing="skip")
    assert skipped.settled.status == "skipped"
    assert plan("a.png", existing="overwrite")[0].is_open


@pytest.mark.parametrize("existing", ["refuse", "overwrite", "skip"])
def test_results_of_one_name_and_inputs_are_never_replaced(existing, make, refuse):
    make("x/a.png", "y/a.png", "a.png", "a.jpg", "a_mrnet_x2.png")
    Path("link").symlink_to(".")
    twice = {"existing": existing, "output": "out/"}
    refuse(OutputError, "would both become", "x/a.png", "y/a.png", **twice)
    for inputs, naming in [
        (["a.png"], {"output": "link/a.png"}),
        (["a.png"], {"suffix": ""}),
        (["a.png", "a_mrnet_x2.png"], {}),
    ]:
        refuse(OutputError, "itself an input", *inputs, existing=existing, **naming)


@pytest.mark.parametrize(
    ("kind", "message", "inputs", "options"),
    [
        (UsageError, "one file for several", ["a.png", "b.png"], {"output": "o.png"}),
        (UsageError, "takes one picture", ["in"], {"output": "-"}),
        (UsageError, "does not say its format", ["a.png"], {"output": "out"}),
        (UsageError, "contradict", ["a.png"], {"output": "o.png", "format": "jpg"}),
        (UsageError, "must not name a folder", ["a.png"], {"suffix": "/x"}),
        (OutputError, "does not exist", ["a.png"], {"output": "none/b.png"}),
        (OutputError, "cannot be written", ["a.png"], {"output": "file/"}),
        (OutputError, "is a folder", ["b.png"], {}),
    ],
)
def test_names_that_make_no_sense(kind, message, inputs, options, make, refuse):
    make("a.png", "b.png", "in/c.png")
    Path("file").write_text("")
    Path("b_mrnet_x2.png").mkdir()
    refuse(kind, message, *inputs, **options)


# A second run of the same command


def test_earlier_results_are_left_out(make, plan):
    make("in/a.png", "in/a_mrnet_x2.png", "in/b_mrnet_x4.png", "only/a_mrnet_x2.png")
    again = ["in/a_mrnet_x2.png", "in/b_mrnet_x4_mrnet_x2.png"]
    assert names(plan("in", existing="skip")) == again
    assert names(plan("in/*.png", output="in", existing="skip")) == again
    # Named, or going elsewhere, a result is a picture like any other.
    assert names(plan("in/a_mrnet_x2.png")) == ["in/a_mrnet_x2_mrnet_x2.png"]
    assert len(plan("in", output="out")) == 3
    make("in/c_mrnet_30x20.png")
    assert len(plan("in", goal=Goal(width=16), existing="skip")) == 3
    with pytest.raises(InputError, match="earlier result"):
        plan("only")


def test_a_folder_for_results_inside_the_inputs(make, plan):
    make("in/a.png", "in/out/a_mrnet_x2.png", "in/sub/b.png")
    jobs = plan("in", recursive=True, output="in/out", existing="skip")
    assert names(jobs) == ["in/out/a_mrnet_x2.png", "in/out/sub/b_mrnet_x2.png"]
    # A folder above the inputs does not hide them.
    assert names(plan("in/sub", output="in")) == ["in/b_mrnet_x2.png"]


# Room on the disk


@pytest.mark.parametrize(
    ("kind", "format"),
    [
        *(("photograph", format) for format in ("png", "jpg", "webp", "bmp", "tiff")),
        *(("drawing", format) for format in ("png", "webp")),
    ],
)
def test_room_is_estimated_within_a_factor_of_three(format, kind, make, plan):
    if kind == "photograph":
        random = np.random.default_rng(1)
        small = random.integers(0, 256, (30, 40, 3), np.uint8)
        pixels = imresize(small, 4).astype(float) + random.normal(0, 4, (120, 160, 3))
        pixels = pixels.clip(0, 255).astype(np.uint8)
    else:
        pixels = np.full((120, 160, 3), 250, np.uint8)
        pixels[30:60, 40:90] = (200, 30, 30)
    options = {"jpg": {"quality": 80}, "tiff": {"compression": "tiff_adobe_deflate"}}
    make("a.png")
    Image.fromarray(pixels).save(f"a.{format}", **options.get(format, {}))
    (job,) = plan(f"a.{format}", goal=Goal(4))
    size = len(encode_picture(Picture(imresize(pixels, 4)), format))
    # Of a drawing it matters only that it is not taken for a photograph.
    high = 3 if kind == "photograph" else 12
    assert size / 3 < job.room < high * size


def test_no_room_is_an_error_and_little_room_a_warning(make, plan, monkeypatch, caplog):
    def free(size, total=10**12):
        usage = SimpleNamespace(total=total, used=0, free=size)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    make("a.png", size=(160, 120))
    (job,) = plan("a.png")
    free(job.room // 3)
    for check in (lambda: check_space([job]), lambda: require_room(job)):
        with pytest.raises(OutputError, match="no room"):
            check()
    free(job.room * 2 // 3)
    check_space([job])
    assert "may have no room" in caplog.text
    with pytest.raises(OutputError):  # what fits once does not fit thrice
        check_space([job] * 3)
    free(0, total=0)  # a file system that does not say
    check_space([job])
    free(10)
    job.output.write_bytes(bytes(job.room))  # what is replaced gives its room
    check_space([job])
