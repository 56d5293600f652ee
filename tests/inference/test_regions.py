"""Pictures enlarged region by region come out as they would have at once."""

from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from spandrel_files import swinir

from srcli.errors import InputError, OutputError
from srcli.imaging.alpha import peak_level
from srcli.imaging.box import Box
from srcli.imaging.files import (
    Picture,
    open_picture,
    probe_picture,
    read_picture,
    strip_metadata,
)
from srcli.imaging.tiff import write as tiff_write
from srcli.inference import jobs, tiling
from srcli.inference.batch import run_batch
from srcli.inference.jobs import is_large, plan_jobs
from srcli.inference.naming import Naming
from srcli.inference.sizes import Goal
from srcli.inference.sources import expand_inputs
from srcli.inference.upscaler import Upscaler
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.progress import SILENT

NETWORK = {"device": "cpu", "precision": "fp32", "overlap": "exact"}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(tiff_write, "TILE", 32)
    monkeypatch.setattr(tiling, "TILE", 32)


def waves(height, width, channels=3, dtype=np.uint8):
    """Smooth waves with noise over the whole range, (height, width, channels)."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [np.sin(x / 3 + c) * np.cos(y / (4 + c)) for c in range(channels)]
    noise = np.random.default_rng(3).normal(0, 0.1, (height, width, channels))
    planes = (0.5 + 0.4 * np.stack(planes, axis=2) + noise).clip(0, 1)
    if dtype == np.float32:
        return (planes * 3 - 1).astype(dtype)
    return np.rint(planes * np.iinfo(dtype).max).astype(dtype)


def tiff_of(picture, **options):
    planes = picture.pixels
    if picture.alpha is not None:
        planes = np.dstack((planes, picture.alpha))
        options["extrasamples"] = ["unassalpha"]
    kind = "rgb" if planes.shape[2] > 2 else "minisblack"
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        planes if planes.shape[2] > 1 else planes[:, :, 0],
        photometric=kind,
        tile=(32, 32),
        metadata=None,
        **options,
    )
    return buffer.getvalue()


def plan_regions(upscaler, info, side):
    """Regions of at most so many pixels a side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "_MOST_SIDE", side)
        return upscaler.plan_regions(info)


def by_region(picture, upscaler, side):
    """The picture that the results of its regions make."""
    pixels = alpha = None
    with open_picture(tiff_of(picture), by_box=True) as opened:
        plan = plan_regions(upscaler, opened.info, side)
        for region in reversed(plan):
            part = pickle.loads(pickle.dumps(opened.read(region.padded)))
            larger = upscaler.enlarge(part, region)
            if pixels is None:
                shape = (*region.size, larger.pixels.shape[2])
                pixels = np.zeros(shape, larger.pixels.dtype)
                alpha = larger.alpha is not None and np.zeros(shape[:2], pixels.dtype)
            pixels[region.target.slices] = larger.pixels
            if larger.alpha is not None:
                alpha[region.target.slices] = larger.alpha
    assert len(plan) > 1
    return Picture(pixels, None if alpha is False else alpha)


def check(picture, upscaler, side, *, off=0, peak=255):
    whole = upscaler(picture)
    joined = by_region(picture, upscaler, side)
    assert joined.pixels.dtype == whole.pixels.dtype
    assert joined.pixels.shape == whole.pixels.shape
    difference = np.abs(joined.pixels.astype(float) - whole.pixels)
    if whole.alpha is not None:  # as far as it is seen
        difference *= whole.alpha[:, :, None] / peak_level(whole.alpha.dtype)
    assert difference.max() <= off * peak / 255
    if whole.alpha is None:
        assert joined.alpha is None
    else:
        assert np.array_equal(joined.alpha, whole.alpha)
    return difference


# How a picture is cut


@pytest.mark.parametrize(
    ("scale", "alpha"), [(2, True), (3, False), (2.5, True), (5, False), (7.3, True)]
)
def test_targets_make_up_the_result(scale, alpha):
    planes = waves(150, 203, 4 if alpha else 3)
    picture = Picture(planes[:, :, :3], planes[:, :, 3] if alpha else None)
    upscaler = Upscaler("bicubic", scale)
    info = probe_picture(tiff_of(picture))
    plan = plan_regions(upscaler, info, 64)
    height, width = upscaler.target_size(150, 203)
    seen = np.zeros((height, width), int)
    for region in plan:
        seen[region.target.slices] += 1
        assert region.size == (height, width)
        assert region.target.side <= 64 * scale + 1
        if alpha:
            assert region.padded.top % 64 == region.padded.left % 64 == 0
    assert (seen == 1).all()


def test_regions_end_where_tiles_of_the_file_do():
    info = probe_picture(tiff_of(Picture(waves(150, 203))))
    for scale in (2, 3, 4):
        plan = plan_regions(Upscaler("bicubic", scale), info, 70)
        assert len(plan) > 1
        for region in plan:
            assert region.target.top % 32 == region.target.left % 32 == 0


def test_regions_take_little_memory_and_waste_little():
    info = probe_picture(tiff_of(Picture(waves(8, 8))))
    info = type(info)("tiff", 32768, 32768, alpha=False, depth=8, channels=3)
    for scale in (2, 3, 4):
        upscaler = Upscaler(small_network(), scale, device="cpu", tile=64, overlap=20)
        plan = upscaler.plan_regions(info)
        result = max(region.target.area for region in plan) * 3
        assert result <= 101_000_000
        work = sum(region.padded.area for region in plan)
        assert work < 1.11 * 32768**2


def test_what_is_large(monkeypatch):
    info = probe_picture(tiff_of(Picture(waves(40, 50))))
    assert not is_large(info, "tiff", 80, 100)
    monkeypatch.setattr(jobs, "LARGE", 3 * 80 * 100 - 1)
    assert is_large(info, "tiff", 80, 100)
    assert not is_large(info, "png", 80, 100)
    assert not is_large(info, "tiff", 80, 99)
    monkeypatch.setattr(jobs, "MAX_PIXELS", 40 * 50 - 1)
    assert is_large(info, "tiff", 40, 50)


# What becomes of it


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.uint8, 1), (np.uint8, 2.5), (np.uint16, 3), (np.uint16, 5), (np.float32, 2)],
)
def test_bicubic_is_exact(dtype, scale):
    for channels, size in ((3, (75, 90)), (1, (61, 101))):
        picture = Picture(waves(*size, channels, dtype))
        check(picture, Upscaler("bicubic", scale), 40)


def test_bicubic_to_a_size_is_exact():
    picture = Picture(waves(75, 90))
    check(picture, Upscaler("bicubic", width=233, height=170), 40)
    check(picture, Upscaler("bicubic", width=233), 17)


def small_network():
    config = MRNetConfig(width=4, blocks=1, recursions=(1, 1, 1))
    return MRNet(config).eval()


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.uint8, 2.5), (np.float32, 2), (np.uint8, 5)]
)
def test_networks_are_exact_but_for_rounding(dtype, scale):
    upscaler = Upscaler(small_network(), scale, **NETWORK)
    picture = Picture(waves(75, 90, 3, dtype))
    peak = 255 if dtype == np.uint8 else 3
    difference = check(picture, upscaler, 40, off=1, peak=peak)
    assert (difference > 1e-5 * peak).mean() < 1e-3


@pytest.mark.parametrize(
    ("model", "dtype"), [("bicubic", np.uint8), ("network", np.float32)]
)
def test_transparency(dtype, model):
    """Hidden colours are filled in as in the whole; regions may show nothing at all."""
    y, x = np.mgrid[0:200, 0:210]
    disc = np.hypot(y - 60, x - 70)
    alpha = (1.3 - disc / 40).clip(0, 1)
    alpha[:, 150:] = 0
    alpha[150:170, 10:40] = 1
    peak = 1 if dtype == np.float32 else 255
    alpha = (np.rint(alpha * 255) / 255 * peak).astype(dtype)
    picture = Picture(waves(200, 210, 3, dtype), alpha)
    options = NETWORK if model == "network" else {}
    name = small_network() if model == "network" else "bicubic"
    upscaler = Upscaler(name, 2, **options)
    peak = 255 if dtype == np.uint8 else 3
    difference = check(picture, upscaler, 64, off=1, peak=peak)
    assert (difference > peak / 1000).mean() < 1e-3


# The whole way


@pytest.fixture
def do(tmp_path, monkeypatch):
    """A function that enlarges a TIFF as if memory were small, and gives its result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "LARGE", 0)
    monkeypatch.setattr(tiling, "_MOST_SIDE", 40)

    def enlarge(data, upscaler, progress=SILENT, **options):
        Path("in.tif").write_bytes(data)
        naming = Naming(
            model="m", goal=Goal(2), output="out.tif", existing="overwrite", **options
        )
        planned = plan_jobs(expand_inputs(["in.tif"]), naming)
        (result,) = run_batch(planned, upscaler, progress)
        return result

    return enlarge


def test_a_large_picture_all_the_way(do):
    picture = Picture(waves(75, 90, 3, np.uint16))
    upscaler = Upscaler(small_network(), 2, **NETWORK)
    told = Told()
    data = tiff_of(picture, resolution=(300, 300), resolutionunit="INCH")
    done = do(data, upscaler, told)
    result = read_picture(Path("out.tif"))
    assert np.abs(result.pixels - upscaler(picture).pixels.astype(int)).max() <= 257
    assert result.metadata.dpi == (300, 300)
    assert (done.status, done.stats.device, done.job.width, done.job.height) == (
        "done", "cpu", 180, 150,
    )  # fmt: skip
    assert done.bytes == Path("out.tif").stat().st_size
    assert done.stats.tiles >= 6
    assert told.description == "in.tif: mrnet x2"
    assert told.done == pytest.approx(told.total)
    with tifffile.TiffFile("out.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages.first.is_tiled


class Told:
    """A `Progress` that remembers."""

    done = 0.0

    def start(self, description, total):
        self.description, self.total = description, total

    def advance(self, amount=1):
        self.done += amount

    def note(self, text):
        pass


def test_metadata_left_out_and_colours_converted(do):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for icc in (profile, tweaked_srgb()):
        picture = Picture(waves(50, 60))
        data = tiff_of(picture, iccprofile=icc)
        expected = Upscaler("bicubic", 2)(strip_metadata(read_picture(data)))
        do(data, Upscaler("bicubic", 2), keep_metadata=False)
        result = read_picture(Path("out.tif"))
        assert result.metadata.icc is None
        assert np.array_equal(result.pixels, expected.pixels)


def tweaked_srgb():
    """sRGB with red and blue exchanged, as a profile that changes colours."""
    from PIL import ImageCms

    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_errors_say_whose_fault_it_is(do, monkeypatch):
    data = tiff_of(Picture(waves(64, 64)), compression="deflate")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages.first.dataoffsets[3]
    damaged = data[: place + 4] + bytes(40) + data[place + 44 :]
    upscaler = Upscaler("bicubic", 2)
    failed = do(damaged, upscaler)
    assert isinstance(failed.error, InputError)
    assert str(failed.error).startswith("in.tif is damaged")
    assert [path.name for path in Path().iterdir()] == ["in.tif"]
    add = tiff_write.TileWriter.add

    def fill(writer, top, left, block):
        if top:
            raise OSError(28, "No space left on device")
        add(writer, top, left, block)

    monkeypatch.setattr(tiff_write.TileWriter, "add", fill)
    failed = do(data, upscaler)
    assert isinstance(failed.error, OutputError)
    assert str(failed.error) == "out.tif cannot be written: No space left on device"
    assert [path.name for path in Path().iterdir()] == ["in.tif"]


def test_a_plan_can_be_sent_anywhere():
    info = probe_picture(tiff_of(Picture(waves(64, 64))))
    plan = plan_regions(Upscaler("bicubic", 2), info, 32)
    assert pickle.loads(pickle.dumps((plan, info))) == (plan, info)
    assert plan[0].target == Box(0, 0, 64, 64)
    edges = [(r.target.top, r.target.left) for r in plan]
    assert edges == list(itertools.product((0, 64), (0, 64)))


@pytest.mark.parametrize("passes", [1, 2])
def test_windows_of_others_networks_lie_as_in_the_whole(tmp_path, passes):
    torch.save(swinir(2).state_dict(), tmp_path / "m.pth")
    upscaler = Upscaler(
        tmp_path / "m.pth", 2.0**passes, device="cpu", precision="fp32", tile=0
    )
    # Rounding of sums in another order may turn a value over.
    check(Picture(waves(210, 170)), upscaler, 40, off=2)
    check(Picture(waves(210, 170), waves(210, 170, 1)[:, :, 0]), upscaler, 70, off=2)
