"""Windows of TIFFs equal the whole, whatever the layout, or are refused in one line."""

import io
import struct

import numpy as np
import pytest
import tifffile
from exact import KINDS
from PIL import Image
from sample_files import (
    SAMPLES,
    XMP,
    make_planes,
    make_rich_exif,
    make_tiff,
    sample,
    save,
    save_tiff,
    srgb_profile,
)

from srcli.errors import InputError
from srcli.imaging import pillow, tiff_pieces
from srcli.imaging.files import probe_picture, read_picture
from srcli.imaging.tiff_windows import open_windows

LAYOUTS = {
    "plain": {},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 16)},
    "wide-tiles": {"tile": (16, 48)},
    "deflate-strips": {"compression": "deflate", "predictor": True, "rowsperstrip": 7},
    "lzw-tiles": {"compression": "lzw", "predictor": True, "tile": (16, 16)},
    "zstd-big": {"compression": "zstd", "tile": (16, 32), "bigtiff": True},
    "motorola": {"byteorder": ">"},
    "motorola-lzw": {"byteorder": ">", "compression": "lzw", "predictor": True},
}
WINDOWS = [
    (0, 24, 0, 32),
    (0, 1, 0, 1),
    (23, 24, 31, 32),
    (3, 17, 5, 30),
    (9, 10, 0, 32),
]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """A plain strip is read a few rows at a time, as a large one is."""
    monkeypatch.setattr(tiff_pieces, "_PART", 600)


def tiff_of(planes, *, separate=False, **options):
    channels = planes.shape[2]
    options.setdefault("photometric", "rgb" if channels > 2 else "minisblack")
    if channels in (2, 4) and options["photometric"] != "separated":
        options.setdefault("extrasamples", ["unassalpha"])
    if channels == 1:
        return save_tiff(planes[:, :, 0], **options)
    options["planarconfig"] = "separate" if separate else "contig"
    return save_tiff(np.moveaxis(planes, 2, 0) if separate else planes, **options)


def check(data, frame=None):
    """Windows of a file are what the whole has there."""
    whole = read_picture(data, frame=frame)
    info = probe_picture(data, frame=frame)
    assert info.is_windowed
    with open_windows(data, "it", frame) as windows:
        assert (windows.width, windows.height) == (whole.width, whole.height)
        assert windows.channels == info.channels == whole.pixels.shape[2]
        assert windows.has_alpha == (whole.alpha is not None)
        assert windows.depth == whole.depth
        assert windows.levels == whole.levels
        assert windows.metadata == whole.metadata
        for top, bottom, left, right in WINDOWS:
            bottom, right = min(bottom, whole.height), min(right, whole.width)
            top, left = min(top, bottom - 1), min(left, right - 1)
            rows, columns = slice(top, bottom), slice(left, right)
            window = windows.read(rows, columns)
            assert window.pixels.dtype == whole.pixels.dtype
            assert np.array_equal(window.pixels, whole.pixels[rows, columns])
            if whole.alpha is None:
                assert window.alpha is None
            else:
                assert np.array_equal(window.alpha, whole.alpha[rows, columns])
    return whole


@pytest.mark.parametrize("separate", [False, True], ids=["mixed", "planes"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", KINDS, ids=KINDS.values())
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_windows_equal_the_whole(dtype, channels, layout, separate):
    planes = make_planes(channels, dtype)
    check(tiff_of(planes, separate=separate, **LAYOUTS[layout]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["plain", "lzw-tiles"])
def test_windows_are_turned_upright(layout, dtype, orientation):
    turned = [(274, 3, 1, orientation, True)]
    planes = make_planes(4, dtype)
    whole = check(tiff_of(planes, extratags=turned, **LAYOUTS[layout]))
    assert whole.pixels.shape[:2] == ((24, 32) if orientation < 5 else (32, 24))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("layout", ["plain", "strips", "tiles"])
def test_floating_point_of_other_lengths(layout, dtype, caplog):
    planes = make_planes(3, dtype) * 4 - 1
    check(tiff_of(planes, **LAYOUTS[layout]))
    said = caplog.text.count("its 64-bit values are read with 32 bits")
    assert said == (2 if dtype == np.float64 else 0)  # whole, and windows


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
def test_other_kinds_of_samples(layout, dtype):
    options = LAYOUTS[layout]
    check(tiff_of(make_planes(1, dtype), photometric="miniswhite", **options))
    check(tiff_of(make_planes(4, dtype), extrasamples=["assocalpha"], **options))
    check(tiff_of(make_planes(5, dtype), extrasamples=[0, 2], **options))
    check(tiff_of(make_planes(4, dtype), photometric="separated", **options))
    check(
        tiff_of(
            make_planes(5, dtype),
            photometric="separated",
            extrasamples=["unassalpha"],
            **options,
        )
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8, 10, 12, 16])
def test_every_depth(bits):
    rows = bytes(range(256)) * 8
    tiff = make_tiff(">", rows, width=24, height=24, bits=bits, photometric=1)
    check(tiff)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("sampling", [(1, 1), (2, 2)])
def test_jpegs_in_tiles(sampling, mode):
    """As slide scanners write them; libtiff decodes the whole."""
    planes = make_planes(3) if mode == "RGB" else make_planes(1)
    options = {"compression": "jpeg", "tile": (16, 16)}
    if mode == "RGB":
        options |= {"photometric": "ycbcr", "subsampling": sampling}
    check(tiff_of(np.tile(planes, (2, 2, 1)), **options))
    check(save(planes, "tiff", compression="jpeg"))


@pytest.mark.parametrize("name", [name for name in SAMPLES if "tiff" in name])
def test_every_sample_is_read_by_window_or_refused(name):
    frame = 2 if "pages" in name else None
    if probe_picture(sample(name), frame=frame).is_windowed:
        check(sample(name), frame)
    else:
        refusal = pytest.raises(InputError, match=r"^it .* save it as a tiled TIFF")
        with refusal, open_windows(sample(name), "it", frame):
            pass
    assert (name == "tiff-palette") != probe_picture(
        sample(name), frame=frame
    ).is_windowed


def test_metadata_are_those_of_the_whole():
    data = save(
        make_planes(3),
        "tiff",
        exif=make_rich_exif(6),
        icc_profile=srgb_profile(),
        dpi=(300, 200),
    )
    metadata = check(data).metadata
    assert metadata.icc
    assert metadata.exif
    assert metadata.dpi == (200, 300)  # turned
    for dtype in (np.uint8, np.uint16):
        said = [(274, 3, 1, 1, True), (700, 1, len(XMP), XMP, True)]
        assert check(tiff_of(make_planes(3, dtype), extratags=said)).metadata.xmp


def test_what_is_no_tiff_is_refused():
    refusal = pytest.raises(InputError, match="it is no TIFF, and only those")
    with refusal, open_windows(save(make_planes(3), "png"), "it"):
        pass


def giant(height, width, **options):
    """A TIFF whose tiles are all the same few bytes."""
    tile = np.zeros((512, 512, 3), np.uint8)
    buffer = io.BytesIO()
    rows, columns = -(-height // 512), -(-width // 512)
    with tifffile.TiffWriter(buffer, bigtiff=True) as writer:
        writer.write(
            (tile for _ in range(rows * columns)),
            shape=(height, width, 3),
            dtype=np.uint8,
            photometric="rgb",
            tile=(512, 512),
            metadata=None,
            compression="zstd",
            **options,
        )
    return buffer.getvalue()


def test_more_than_can_be_read_at_once(monkeypatch):
    monkeypatch.setattr(pillow, "MAX_PIXELS", 1_000_000)
    monkeypatch.setattr("srcli.imaging.opened.MAX_PIXELS", 1_000_000)
    data = giant(1024, 1025)
    info = probe_picture(data, name="giant.tif")
    assert info.is_windowed
    assert (info.height, info.width, info.channels, info.depth) == (1024, 1025, 3, 8)
    with pytest.raises(
        InputError, match=r"giant.tif has more than 1 million pixels: t"
    ):
        read_picture(data, name="giant.tif")
    with open_windows(data, "giant.tif") as windows:
        assert not windows.read(slice(1000, 1024), slice(1000, 1025)).pixels.any()
    palette = Image.new("P", (1024, 1025))
    said = "holds palette pixels of 8 bits a channel, and has more than 1 million"
    with pytest.raises(InputError, match=said):
        probe_picture(save(palette, "tiff"), name="giant.tif")


def test_only_touched_tiles_are_decoded_and_each_once_in_a_row(monkeypatch):
    decoded = []
    decode = tiff_pieces.Pieces._decode

    def count(self, index):
        decoded.append(index)
        return decode(self, index)

    monkeypatch.setattr(tiff_pieces.Pieces, "_decode", count)
    monkeypatch.setattr(tiff_pieces, "_LEAST_CACHE", 0)
    for options in (LAYOUTS["lzw-tiles"], LAYOUTS["deflate-strips"]):
        decoded.clear()
        with open_windows(tiff_of(make_planes(3), **options), "it") as windows:
            windows.read(slice(1, 3), slice(17, 20))
            assert len(decoded) == 1
            decoded.clear()
            for left in range(0, 32, 8):
                windows.read(slice(2, 20), slice(max(0, left - 2), left + 8))
        assert len(decoded) <= 5
        assert len(decoded) == len(set(decoded))


def test_values_that_are_not_finite_are_refused():
    planes = make_planes(3, np.float32)
    planes[20, 30, 1] = np.nan
    data = tiff_of(planes, tile=(16, 16))
    with open_windows(data, "it") as windows:
        windows.read(slice(0, 8), slice(0, 8))
        for look in (lambda: windows.levels, lambda: windows.read(*WHOLE)):
            with pytest.raises(InputError, match="it holds values that are not finite"):
                look()


WHOLE = slice(0, 24), slice(0, 32)
DAMAGED = ["plain", "strips", "deflate-strips", "lzw-tiles", "zstd-big"]


@pytest.mark.parametrize("layout", DAMAGED)
def test_damage_is_one_line_or_does_not_show(layout):
    data = tiff_of(make_planes(3), **LAYOUTS[layout])
    expected = read_picture(data).pixels
    random = np.random.default_rng(1)
    pieces = [data[: len(data) * part // 12] for part in range(12)]
    for _ in range(60):
        flipped = bytearray(data)
        for place in random.integers(0, len(data), 3):
            flipped[place] = random.integers(0, 256)
        pieces.append(bytes(flipped))
    for number, piece in enumerate(pieces):
        window = attempt(read_window, piece)
        if window is not None:
            assert number >= 12 or np.array_equal(window, expected)
            whole = attempt(read_whole, piece)
            assert whole is None or np.array_equal(window, whole)


def read_window(data):
    with open_windows(data, "ad.tif") as windows:
        rows, columns = slice(0, windows.height), slice(0, windows.width)
        return windows.read(rows, columns).pixels


def read_whole(data):
    return read_picture(data, name="ad.tif").pixels


def attempt(read, data):
    """What a file reads as, or None after one clear error."""
    try:
        return read(data)
    except InputError as error:
        said = str(error)
    assert said.startswith("ad.tif")
    assert said.isprintable()
    return None


def test_tiles_that_are_not_there_are_no_black_ones():
    data = bytearray(tiff_of(make_planes(3), tile=(16, 16), compression="deflate"))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        place = tiff.pages[0].tags["TileByteCounts"].valueoffset
    struct.pack_into("<I", data, place, 0)
    refusal = pytest.raises(InputError, match="is damaged or cut off")
    with refusal, open_windows(bytes(data), "it") as windows:
        windows.read(*WHOLE)


def test_a_jpeg_that_is_cut_off_is_no_grey_one():
    planes = np.tile(make_planes(3), (2, 2, 1))
    data = bytearray(tiff_of(planes, compression="jpeg", tile=(32, 32)))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        start, count = (
            t[1] for t in (tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts)
        )
    data[start + count // 2 : start + count] = bytes(count - count // 2)
    refusal = pytest.raises(InputError, match="a tile ends too early")
    with refusal, open_windows(bytes(data), "it") as windows:
        windows.read(*WHOLE)
        windows.read(slice(0, 48), slice(0, 64))


def test_a_pixel_of_thousands_of_channels_is_refused():
    tiff = make_tiff(
        "<", bytes(70 * 4), width=2, height=2, bits=8, samples=70, photometric=1
    )
    assert not probe_picture(tiff).is_windowed
