"""Room on the disk is looked for before anything is computed."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from srcli.errors import InputError, OutputError
from srcli.imaging.files import Picture, encode_picture, probe_picture
from srcli.imaging.resize import imresize
from srcli.inference import jobs as space
from srcli.inference.jobs import plan_jobs
from srcli.inference.naming import Naming
from srcli.inference.sizes import Goal
from srcli.inference.sources import expand_inputs


@pytest.fixture
def make(tmp_path, monkeypatch, picture):
    """A function that saves a picture, and the job of enlarging it by 4."""
    monkeypatch.chdir(tmp_path)

    def save(name, pixels=None, **options):
        pixels = picture(120, 160) if pixels is None else pixels
        Image.fromarray(pixels).save(name, **options)
        naming = Naming(model="m", goal=Goal(4.0))
        (job,) = plan_jobs(expand_inputs([name]), naming)
        return job

    return save


def free(monkeypatch, size, total=10**12):
    usage = SimpleNamespace(total=total, used=0, free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.mark.parametrize("format", ["png", "jpg", "webp", "bmp", "tiff"])
@pytest.mark.parametrize("kind", ["photograph", "drawing"])
def test_estimates_are_of_the_right_size(format, kind, make):
    """Within a factor of three of what the enlarged picture takes."""
    if kind == "photograph":
        random = np.random.default_rng(1)
        small = random.integers(0, 256, (30, 40, 3), np.uint8)
        pixels = imresize(small, 4).astype(float) + random.normal(0, 4, (120, 160, 3))
        pixels = pixels.clip(0, 255).astype(np.uint8)
    else:
        pixels = np.full((120, 160, 3), 250, np.uint8)
        pixels[30:60, 40:90] = (200, 30, 30)
    options = {"jpg": {"quality": 80}, "tiff": {"compression": "tiff_adobe_deflate"}}
    job = make(f"a.{format}", pixels, **options.get(format, {}))
    size = len(encode_picture(Picture(imresize(pixels, 4)), format))
    # Of a drawing it matters only that it is not taken for a photograph.
    high = 3 if kind == "photograph" or format == "bmp" else 12
    assert size / 3 < job.room < high * size


def test_no_room_is_an_error_and_little_room_a_warning(make, monkeypatch, caplog):
    job = make("a.png")
    free(monkeypatch, job.room // 3)
    with pytest.raises(OutputError, match="has no room: the results take about"):
        space.check_space([job])
    with pytest.raises(OutputError, match=r"no room"):
        space.require_room(job)
    free(monkeypatch, job.room * 2 // 3)
    space.check_space([job])
    assert "may have no room" in caplog.text
    with pytest.raises(OutputError):  # what fits once does not fit thrice
        space.check_space([job] * 3)
    caplog.clear()
    free(monkeypatch, 2 * job.room)
    space.check_space([job])
    assert not caplog.messages


def test_file_systems_that_do_not_say(make, monkeypatch):
    free(monkeypatch, 0, total=0)
    job = make("a.png")
    space.check_space([job])
    space.require_room(job)


def test_what_is_replaced_gives_its_room(make, monkeypatch):
    job = make("a.png")
    job.output.write_bytes(bytes(job.room))
    free(monkeypatch, 10)
    space.check_space([job])


def test_a_folder_that_is_gone(make, monkeypatch):
    job = make("a.png")
    monkeypatch.setattr(type(job.output), "parent", Path("gone"))
    with pytest.raises(OutputError, match=r"cannot write"):
        space.require_room(job)


def test_deep_pictures_take_more(make):
    info = probe_picture(make("a.png").source.path)
    assert info.depth == 8
    with pytest.raises(InputError):
        probe_picture(Path("none.png"))
    deep = SimpleNamespace(
        channels=3, alpha=False, depth=16, format="png", width=160, height=120
    )
    flat = SimpleNamespace(
        channels=3, alpha=False, depth=8, format="png", width=160, height=120
    )
    large = 160 * 120 * 6
    assert space.estimate_room(deep, "png", 10**6, large) > 2 * space.estimate_room(
        flat, "png", 10**6, large
    )
