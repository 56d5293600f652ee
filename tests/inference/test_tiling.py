"""Tiles and regions cover every pixel once, and make what the whole would become."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms
from spandrel_files import swinir

from srcli.errors import InputError, OutputError
from srcli.imaging.alpha import peak_level
from srcli.imaging.box import Box
from srcli.imaging.files import open_picture, read_picture
from srcli.imaging.picture import Picture, PictureInfo, strip_metadata
from srcli.imaging.tiff import write as tiff_write
from srcli.inference import jobs, tiling
from srcli.inference.batch import run_batch
from srcli.inference.tiling import Tile, plan_tiles
from srcli.inference.upscaler import Upscaler
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.progress import SILENT

NETWORK = {"device": "cpu", "precision": "fp32", "overlap": "exact"}


def small_network():
    return MRNet(MRNetConfig(width=4, blocks=1, recursions=(1, 1, 1))).eval()


# Tiles

lengths, sides, overlaps = st.integers(1, 90), st.integers(3, 120), st.integers(0, 40)


def times_written(tiles, whole):
    count = np.zeros(whole, int)
    for tile in tiles:
        count[tile.core.slices] += 1
    return count


@settings(deadline=None)
@given(lengths, lengths, sides, overlaps, st.data())
def test_tiles_cover_the_picture_once(height, width, side, overlap, data):
    whole = height, width
    tiles = plan_tiles(Box(0, 0, *whole), side, whole, overlap)
    assert (times_written(tiles, whole) == 1).all()
    for lengths in ({t.core.height for t in tiles}, {t.core.width for t in tiles}):
        assert max(lengths) <= side
        assert max(lengths) - min(lengths) <= 1
    for tile in tiles:
        core, padded = tile.core, tile.padded
        assert padded.top == max(0, core.top - overlap)
        assert padded.left == max(0, core.left - overlap)
        assert padded.bottom == min(height, core.bottom + overlap)
        assert padded.right == min(width, core.right + overlap)
    # One that proved too large is cut again.
    chosen = data.draw(st.sampled_from(tiles))
    half = -(-chosen.core.side // 2)
    parts = plan_tiles(chosen.core, half, whole, overlap)
    assert max(part.core.side for part in parts) <= half
    rest = [tile for tile in tiles if tile is not chosen]
    assert (times_written(rest + parts, whole) == 1).all()


def test_a_picture_a_little_larger_than_a_tile_is_halved_not_slivered():
    whole = Box(0, 0, 100, 110)
    assert plan_tiles(whole, 110, whole.size, 8) == [Tile(whole, whole)]
    cores = [tile.core.size for tile in plan_tiles(whole, 100, whole.size, 8)]
    assert cores == [(100, 55), (100, 55)]


# Regions


@pytest.fixture(autouse=True)
def _small_file_tiles(monkeypatch):
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
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        planes if planes.shape[2] > 1 else planes[:, :, 0],
        photometric="rgb" if planes.shape[2] > 2 else "minisblack",
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


def info_of(height, width, *, alpha=False):
    return PictureInfo("tiff", width, height, alpha=alpha, depth=8, channels=3)


def check(picture, upscaler, side, *, off=0, peak=255):
    """The results of all regions make up that of the whole; by how much they differ."""
    whole = upscaler(picture)
    result = Picture(
        np.zeros_like(whole.pixels),
        None if whole.alpha is None else np.zeros_like(whole.alpha),
    )
    with open_picture(tiff_of(picture), by_box=True) as opened:
        plan = plan_regions(upscaler, opened.info, side)
        assert len(plan) > 1
        for region in pickle.loads(pickle.dumps(plan[::-1])):
            part = pickle.loads(pickle.dumps(opened.read(region.padded)))
            larger = upscaler.enlarge(part, region)
            assert larger.pixels.dtype == whole.pixels.dtype
            result.pixels[region.target.slices] = larger.pixels
            if result.alpha is not None:
                result.alpha[region.target.slices] = larger.alpha
    difference = np.abs(result.pixels.astype(float) - whole.pixels)
    if whole.alpha is not None:  # as far as it is seen
        difference *= whole.alpha[:, :, None] / peak_level(whole.alpha.dtype)
        np.testing.assert_array_equal(result.alpha, whole.alpha)
    assert difference.max() <= off * peak / 255
    return difference


def test_regions_take_little_memory_and_waste_little(monkeypatch):
    monkeypatch.setattr(tiling, "TILE", 256)
    for scale in (2, 4):
        upscaler = Upscaler(small_network(), scale, device="cpu", tile=64, overlap=20)
        plan = upscaler.plan_regions(info_of(32768, 32768))
        assert max(region.target.area for region in plan) * 3 <= 101_000_000
        assert sum(region.padded.area for region in plan) < 1.11 * 32768**2


@pytest.mark.parametrize(
    ("dtype", "channels", "goal"),
    [
        (np.uint8, 3, {"scale": 1}),
        (np.uint8, 1, {"scale": 2.5}),
        (np.uint16, 3, {"scale": 5}),
        (np.float32, 3, {"scale": 2}),
        (np.uint8, 3, {"width": 233, "height": 170}),
    ],
)
def test_bicubic_is_exact(dtype, channels, goal):
    check(Picture(waves(75, 90, channels, dtype)), Upscaler("bicubic", **goal), 40)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 2.5), (np.float32, 2)])
def test_networks_are_exact_but_for_rounding(dtype, scale):
    upscaler = Upscaler(small_network(), scale, **NETWORK)
    picture = Picture(waves(75, 90, 3, dtype))
    peak = 255 if dtype == np.uint8 else 3
    difference = check(picture, upscaler, 40, off=1, peak=peak)
    assert (difference > 1e-5 * peak).mean() < 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_transparency(dtype):
    """Hidden colours are filled in as in the whole; regions may show nothing at all."""
    y, x = np.mgrid[0:200, 0:210]
    alpha = (1.3 - np.hypot(y - 60, x - 70) / 40).clip(0, 1)
    alpha[:, 150:] = 0
    alpha[150:170, 10:40] = 1
    is_float = dtype == np.float32
    alpha = (np.rint(alpha * 255) / (255 if is_float else 1)).astype(dtype)
    picture = Picture(waves(200, 210, 3, dtype), alpha)
    model, options = (small_network(), NETWORK) if is_float else ("bicubic", {})
    peak = 3 if is_float else 255
    difference = check(picture, Upscaler(model, 2, **options), 64, off=1, peak=peak)
    assert (difference > peak / 1000).mean() < 1e-3


def test_windows_of_others_networks_lie_as_in_the_whole(tmp_path):
    torch.save(swinir(2).state_dict(), tmp_path / "m.pth")
    options = {"device": "cpu", "precision": "fp32", "tile": 0}
    # Rounding of sums in another order may turn a value over.
    check(
        Picture(waves(130, 110)), Upscaler(tmp_path / "m.pth", 2, **options), 40, off=2
    )


# The whole way


@pytest.fixture
def do(make, plan, monkeypatch):
    """A function that enlarges a TIFF as if memory were small, and gives its result."""
    make("unused.png")
    Path("unused.png").unlink()
    monkeypatch.setattr(jobs, "LARGE", 0)
    monkeypatch.setattr(tiling, "_MOST_SIDE", 40)

    def enlarge(data, upscaler, progress=SILENT, **options):
        Path("in.tif").write_bytes(data)
        planned = plan("in.tif", output="out.tif", existing="overwrite", **options)
        (result,) = run_batch(planned, upscaler, progress)
        return result

    return enlarge


class Told:
    """A `Progress` that remembers."""

    done = 0.0

    def start(self, description, total):
        self.description, self.total = description, total

    def advance(self, amount=1):
        self.done += amount


def test_a_large_picture_all_the_way(do):
    picture = Picture(waves(75, 90, 3, np.uint16))
    upscaler, told = Upscaler(small_network(), 2, **NETWORK), Told()
    data = tiff_of(picture, resolution=(300, 300), resolutionunit="INCH")
    record = do(data, upscaler, told).as_dict()
    result = read_picture(Path("out.tif"))
    assert np.abs(result.pixels - upscaler(picture).pixels.astype(int)).max() <= 257
    assert result.metadata.dpi == (300, 300)
    assert record["status"] == "done"
    assert (record["width"], record["height"], record["device"]) == (180, 150, "cpu")
    assert record["bytes"] == Path("out.tif").stat().st_size
    assert record["tiles"] >= told.total == told.done == 9
    assert told.description == "in.tif: mrnet x2"
    with tifffile.TiffFile("out.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages.first.is_tiled


def test_metadata_left_out_and_colours_converted(do):
    # sRGB with red and blue exchanged.
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = icc.index(b"rXYZ", 128), icc.index(b"bXYZ", 128)
    icc[red : red + 4], icc[blue : blue + 4] = b"bXYZ", b"rXYZ"
    data = tiff_of(Picture(waves(50, 60)), iccprofile=bytes(icc))
    expected = Upscaler("bicubic", 2)(strip_metadata(read_picture(data)))
    do(data, Upscaler("bicubic", 2), keep_metadata=False)
    result = read_picture(Path("out.tif"))
    assert result.metadata.icc is None
    np.testing.assert_array_equal(result.pixels, expected.pixels)


def test_errors_say_whose_fault_it_is(do, monkeypatch):
    data = tiff_of(Picture(waves(64, 64)), compression="deflate")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages.first.dataoffsets[3]
    damaged = data[: place + 4] + bytes(40) + data[place + 44 :]
    failed = do(damaged, Upscaler("bicubic", 2))
    assert isinstance(failed.error, InputError)
    assert str(failed.error).startswith("in.tif is damaged")
    assert [path.name for path in Path().iterdir()] == ["in.tif"]
    add = tiff_write.TileWriter.add

    def fill(writer, top, left, block):
        if top:
            raise OSError(28, "No space left on device")
        add(writer, top, left, block)

    monkeypatch.setattr(tiff_write.TileWriter, "add", fill)
    failed = do(data, Upscaler("bicubic", 2))
    assert isinstance(failed.error, OutputError)
    assert "out.tif cannot be written: No space left" in str(failed.error)
    assert [path.name for path in Path().iterdir()] == ["in.tif"]
