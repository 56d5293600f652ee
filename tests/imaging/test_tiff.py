"""TIFF files of every kind, read whole and by box, and written, exactly or refused."""

import io
import struct
from itertools import product

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from sample_files import (
    XMP,
    check,
    make_page,
    make_planes,
    make_rich_exif,
    make_tiff,
    planes_of,
    sample,
    save,
    save_tiff,
    srgb_profile,
)

from srcli.errors import InputError
from srcli.imaging import pillow
from srcli.imaging.box import Box
from srcli.imaging.files import (
    Picture,
    encode_picture,
    open_picture,
    probe_picture,
    read_picture,
)
from srcli.imaging.tiff import layout

DTYPES = [np.uint8, np.uint16, np.float32]
LAYOUTS = {
    "plain": {},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 16)},
    "wide-tiles": {"tile": (16, 48)},
    "lzw": {"compression": "lzw", "predictor": True, "tile": (16, 16)},
    "deflate": {"compression": "deflate", "predictor": True, "rowsperstrip": 7},
    "zstd-big": {"compression": "zstd", "tile": (16, 32), "bigtiff": True},
    "motorola": {"byteorder": ">"},
    "motorola-lzw": {"byteorder": ">", "compression": "lzw", "predictor": True},
}
WHOLE = Box(0, 0, 24, 32)
BOXES = [*(Box(0, 0, 1, 1), Box(23, 31, 24, 32), Box(3, 5, 17, 30), Box(9, 0, 10, 32))]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """A plain strip is read a few rows at a time, as a large one is."""
    monkeypatch.setattr(layout, "_PART", 600)


def tiff_of(planes, *, separate=False, **options):
    channels = planes.shape[2]
    options.setdefault("photometric", "rgb" if channels > 2 else "minisblack")
    if channels in (2, 4) and options["photometric"] != "separated":
        options.setdefault("extrasamples", ["unassalpha"])
    if channels == 1:
        return save_tiff(planes[:, :, 0], **options)
    options["planarconfig"] = "separate" if separate else "contig"
    return save_tiff(np.moveaxis(planes, 2, 0) if separate else planes, **options)


def check_boxes(data, frame=None):
    """Boxes of a file are what the whole has there."""
    whole = read_picture(data, frame=frame)
    info = probe_picture(data, frame=frame)
    assert info.is_windowed
    with open_picture(data, name="it", frame=frame, by_box=True) as opened:
        assert opened.info == info
        assert opened.levels == whole.levels
        assert opened.metadata == whole.metadata
        for box in BOXES:
            fitting = box.within(Box(0, 0, 0, 0)).grown(0, whole.height, whole.width)
            top = min(fitting.top, fitting.bottom - 1)
            left = min(fitting.left, fitting.right - 1)
            box = Box(top, left, fitting.bottom, fitting.right)
            part = opened.read(box)
            assert part.levels == whole.levels
            assert part.pixels.dtype == whole.pixels.dtype
            assert np.array_equal(planes_of(part), planes_of(whole)[box.slices])
    return whole


@pytest.mark.parametrize("number", range(12))
def test_tiff_is_read_exactly(number):
    """Every layout, kind of pixels and depth, in pairs."""
    layout = list(LAYOUTS.values())[number % 9]
    planes = make_planes((number + number // 9) % 4 + 1, DTYPES[number % 3])
    data = tiff_of(planes, separate=number // 2 % 2 == 1, **layout)
    check(data, planes)
    check_boxes(data)


@pytest.mark.parametrize("bits", [1, 4, 7, 12, 16])
def test_every_depth_fills_the_range(bits):
    for samples in (1, 3):
        levels = np.random.default_rng(bits).integers(0, 2**bits, (3, 5, samples))
        levels[0, 0], levels[0, 1] = 0, 2**bits - 1
        rows = b""
        for row in levels:
            # The first sample's highest bit comes first; rows end at whole bytes.
            text = "".join(f"{level:0{bits}b}" for level in row.ravel())
            text += "0" * (-len(text) % 8)
            rows += int(text, 2).to_bytes(len(text) // 8, "big")
        photometric = 1 if samples == 1 else 2
        kind = {"bits": bits, "photometric": photometric, "samples": samples}
        peak = 255 if bits <= 8 else 65535
        tiff = make_tiff(">", rows, width=5, height=3, **kind)
        expected = np.rint(levels * peak / (2**bits - 1))
        check(tiff, expected.astype(np.uint8 if bits <= 8 else np.uint16))
        check_boxes(tiff)


@pytest.mark.parametrize(
    ("layout", "dtype"), [("strips", np.uint8), ("tiles", np.float32)]
)
def test_zero_may_be_white(layout, dtype):
    planes = make_planes(1, dtype)
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    data = tiff_of(planes, photometric="miniswhite", **LAYOUTS[layout])
    check(data, peak - planes)
    check_boxes(data)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_premultiplied_colours_are_divided(dtype):
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    straight = make_planes(3, dtype)
    opacity = np.tile(np.linspace(0, 1, 32), (24, 1))
    whole = np.rint if peak > 1 else np.asarray
    alpha = whole(opacity * peak).astype(dtype)
    stored = whole(straight * (alpha[:, :, None] / peak)).astype(dtype)
    stored = np.dstack((stored, alpha))
    data = save_tiff(stored, photometric="rgb", extrasamples=["assocalpha"])
    result = check_boxes(data)
    assert (result.alpha == alpha).all()
    assert (result.pixels[:, 0] == 0).all()
    # What rounding has left: half a level, divided by the opacity.
    left = 1e-6 if peak == 1 else 0.5 * peak / np.maximum(alpha, 1)[:, :, None] + 0.5
    wrong = np.abs(result.pixels.astype(float) - straight)
    assert (wrong <= left)[:, 1:].all()


@pytest.mark.parametrize(
    ("channels", "kinds", "alpha", "said", "dtype"),
    [
        (4, [0], None, "1 further channel is", np.uint8),
        (6, [2, 0, 0], 3, "2 further channels are", np.float32),
    ],
)
def test_further_channels_are_left_out_and_said(
    channels, kinds, alpha, said, dtype, caplog
):
    planes = make_planes(channels, dtype)
    data = tiff_of(planes, extrasamples=kinds)
    check(data, planes[:, :, [0, 1, 2] + ([] if alpha is None else [alpha])])
    assert f"{said} left out" in caplog.text
    check_boxes(data)


@pytest.mark.parametrize(
    ("layout", "dtype"), [("plain", np.float64), ("tiles", np.float16)]
)
def test_floating_point_of_other_lengths(layout, dtype, caplog):
    planes = make_planes(4, dtype) * 4 - 1
    planes[:, :, 3] = planes[:, :, 3].clip(0, 1)
    data = tiff_of(planes, **LAYOUTS[layout])
    check(data, planes.astype(np.float32))
    said = "its 64-bit values are read with 32 bits"
    assert caplog.text.count(said) == (dtype == np.float64)
    caplog.clear()
    check_boxes(data)  # the whole, and the boxes
    assert caplog.text.count(said) == 2 * (dtype == np.float64)


def test_values_beyond_black_and_white_are_kept():
    planes = make_planes(3, np.float32) * 6 - 2
    result = check(save_tiff(planes, photometric="rgb"), planes)
    assert result.levels == (planes.min(), planes.max())
    assert (imagecodecs.tiff_decode(encode_picture(result, "tiff")) == planes).all()
    inside = read_picture(save_tiff(planes.clip(0.2, 0.7), photometric="rgb"))
    assert inside.levels == (0, 1)
    assert Picture(make_planes(1)).levels == (0, 255)
    assert Picture(make_planes(1, np.uint16)).levels == (0, 65535)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(np.float16, np.nan), (np.float32, np.inf), (np.float64, 1e300)],
)
def test_values_that_are_not_finite_are_refused(dtype, value):
    planes = make_planes(3, dtype)
    planes[20, 30, 1] = value
    data = tiff_of(planes, tile=(16, 16))
    refusal = pytest.raises(InputError, match="holds values that are not finite number")
    with refusal:
        read_picture(data)
    with open_picture(data, by_box=True) as opened:
        opened.levels = 0, 1
        opened.read(Box(0, 0, 8, 8))
        with refusal:
            opened.read(WHOLE)
    with open_picture(data, by_box=True) as opened, refusal:
        assert opened.levels


def test_cmyk_with_transparency():
    dtype = np.uint16
    planes = make_planes(5, dtype)
    data = tiff_of(planes, photometric="separated", extrasamples=["unassalpha"])
    result = check_boxes(data)
    peak = float(np.iinfo(dtype).max)
    paper = peak - planes[:, :, :4].astype(float)
    expected = paper[:, :, :3] * paper[:, :, 3:] / peak
    assert result.pixels.dtype == dtype
    assert np.abs(result.pixels - expected).max() <= 0.5
    assert (result.alpha == planes[:, :, 4]).all()


@pytest.mark.parametrize(
    ("planes", "options", "reason"),
    [
        (np.zeros((3, 4), np.uint32), {}, "whole numbers of 32 bits"),
        (np.zeros((3, 4), np.int16), {}, "signed whole numbers"),
        (np.zeros((3, 4), np.complex64), {}, "pixels of an unknown kind"),
        (
            np.zeros((3, 4, 3), np.uint8),
            {"photometric": "itulab"},
            "Lab pixels of 8 bits a channel",
        ),
        (
            np.zeros((3, 4, 4), np.float32),
            {"photometric": "separated"},
            "CMYK in floating point",
        ),
        (
            np.zeros((16, 16, 3), np.uint8),
            {"photometric": "rgb", "compression": "jpegxr"},
            "pixels compressed by JPEGXR",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_lose_is_refused(planes, options, reason):
    tiff = save_tiff(planes, **options)
    for look in (read_picture, probe_picture):
        with pytest.raises(InputError, match=f"^ad.tif holds {reason}"):
            look(tiff, name="ad.tif")


def test_channels_of_different_depths_are_refused():
    tags = {256: (3, [4]), 257: (3, [3]), 258: (3, [5, 6, 5]), 262: (3, [2])}
    data = make_page("<", [bytes(24)], tags | {277: (3, [3])})
    with pytest.raises(InputError, match="it holds channels of different depths"):
        read_picture(data, name="it")


@pytest.mark.parametrize("orientation", [2, 4, 5, 6, 7, 8])
def test_boxes_are_turned_upright(orientation):
    layout = ["plain", "lzw"][orientation // 2 % 2]
    turned = [(274, 3, 1, orientation, True)]
    planes = make_planes(4, np.uint16 if orientation % 2 else np.uint8)
    data = tiff_of(planes, extratags=turned, **LAYOUTS[layout])
    whole = check_boxes(data)
    assert whole.pixels.shape[:2] == ((24, 32) if orientation < 5 else (32, 24))
    # What the reader of other formats makes of the same tag.
    exif = Image.Exif()
    exif[274] = orientation
    levels = (planes >> 8 * (planes.itemsize - 1)).astype(np.uint8)
    other = read_picture(save(levels, "png", exif=exif))
    assert (planes_of(whole) >> 8 * (planes.itemsize - 1) == planes_of(other)).all()


@pytest.mark.parametrize(("mode", "sampling"), [("L", (1, 1)), ("RGB", (2, 2))])
def test_jpegs_in_tiles(sampling, mode):
    """As slide scanners write them."""
    planes = np.tile(make_planes(3 if mode == "RGB" else 1), (2, 2, 1))
    options = {"compression": "jpeg", "tile": (16, 16)}
    if mode == "RGB":
        options |= {"photometric": "ycbcr", "subsampling": sampling}
    data = tiff_of(planes, **options)
    result = check_boxes(data).pixels
    theirs = np.asarray(Image.open(io.BytesIO(data))).reshape(result.shape)
    assert np.abs(result.astype(int) - theirs).max() <= 2
    check_boxes(save(planes, "tiff", compression="jpeg"))


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax(compression):
    planes = make_planes(1)[:, :, 0] > 99
    data = save(planes, "tiff", compression=compression)
    check(data, planes[:, :, None] * np.uint8(255))
    check_boxes(data)


@pytest.mark.parametrize("codec", ["webp", "jpeg2000", "lerc", "lzma"])
def test_other_codecs(codec):
    """As tifffile reads them; those of pictures lose something."""
    data = tiff_of(make_planes(3), compression=codec, tile=(16, 16))
    assert np.array_equal(
        check_boxes(data).pixels, tifffile.TiffFile(io.BytesIO(data)).asarray()
    )


def test_samples_are_read_by_box():
    for kind in ("1bit", "half", "full", "16-cmyk", "pages-deep"):
        check_boxes(sample(f"tiff-{kind}"), 2 if "pages" in kind else None)


def test_old_jpeg_is_read_as_libtiff_reads_it():
    planes = make_planes(3)
    jpeg = save(planes, "jpeg", quality=95, subsampling=0)
    tags = {256: (3, [32]), 257: (3, [24]), 258: (3, [8] * 3), 259: (3, [6])}
    tags |= {262: (3, [6]), 277: (3, [3]), 278: (3, [24]), 530: (3, [1, 1])}
    tags |= {512: (3, [1]), 513: (4, [8]), 514: (4, [len(jpeg)])}
    data = make_page("<", [jpeg], tags)
    result = read_picture(data)
    assert np.abs(result.pixels.astype(int) - planes).mean() < 3
    assert not probe_picture(data).is_windowed
    with (
        pytest.raises(InputError, match="it cannot be read by box: only TIFFs"),
        open_picture(data, name="it", by_box=True),
    ):
        pass


def test_metadata_are_those_of_the_whole():
    data = save(
        make_planes(3),
        "tiff",
        exif=make_rich_exif(6),
        icc_profile=srgb_profile(),
        dpi=(300, 300),
    )
    metadata = check_boxes(data).metadata
    assert metadata.icc
    assert metadata.exif
    assert metadata.dpi == (300, 300)
    said = [(274, 3, 1, 1, True), (700, 1, len(XMP), XMP, True)]
    assert check_boxes(tiff_of(make_planes(3), extratags=said)).metadata.xmp


def test_colours_of_boxes_are_converted_as_those_of_the_whole():
    data = save(
        make_planes(3), "tiff", icc_profile=srgb_profile(), exif=make_rich_exif()
    )
    for keep in (True, False):
        with open_picture(data, keep_metadata=keep) as opened:
            whole = opened.read()
            assert np.array_equal(opened.read(BOXES[2]).pixels,
                                  whole.pixels[BOXES[2].slices])  # fmt: skip
        with open_picture(data, keep_metadata=keep, by_box=True) as opened:
            assert np.array_equal(opened.read().pixels, whole.pixels)
            assert opened.metadata == whole.metadata == opened.read().metadata


def test_what_fails_in_between_is_not_blamed_on_the_file():
    data = tiff_of(make_planes(3))
    for by_box in (False, True):
        with pytest.raises(ValueError, match="mine"), open_picture(data, by_box=by_box):
            raise ValueError("mine")


def giant(height, width):
    """A TIFF whose tiles are all the same few bytes."""
    tile = np.zeros((512, 512, 3), np.uint8)
    rows, columns = -(-height // 512), -(-width // 512)
    return save_tiff(
        (tile for _ in range(rows * columns)),
        shape=(height, width, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(512, 512),
        compression="zstd",
        bigtiff=True,
    )


def test_more_than_can_be_read_at_once(monkeypatch):
    monkeypatch.setattr(pillow, "MAX_PIXELS", 1_000_000)
    data = giant(1024, 1025)
    info = probe_picture(data, name="giant.tif")
    assert info.is_windowed
    assert (info.height, info.width, info.channels, info.depth) == (1024, 1025, 3, 8)
    said = r"giant.tif has more than 1 million pixels: t"
    with pytest.raises(InputError, match=said):
        read_picture(data, name="giant.tif")
    with open_picture(data, name="giant.tif", by_box=True) as opened:
        assert not opened.read(Box(1000, 1000, 1024, 1025)).pixels.any()


# Damage


def read_box(data):
    with open_picture(data, name="ad.tif", by_box=True) as opened:
        return opened.read(Box(0, 0, opened.info.height, opened.info.width)).pixels


def read_whole(data):
    return read_picture(data, name="ad.tif").pixels


def attempt(look, data):
    """What a file reads as, or None after one clear error."""
    try:
        return look(data)
    except InputError as error:
        said = str(error)
    assert said.startswith("ad.tif")
    assert said.isprintable()
    return None


CUT = {
    **{name: LAYOUTS[name] for name in ("plain", "tiles", "deflate")},
    "packbits": {"compression": "packbits"},
    "webp": {"compression": "webp"},
    "jpeg": {"compression": "jpeg", "tile": (16, 16)},
    "jpeg2000": {"compression": "jpeg2000"},
    "planes": {"separate": True, "rowsperstrip": 6},
}


@pytest.mark.parametrize("layout", CUT)
def test_a_strip_that_ends_too_early_has_no_rows_made_up(layout):
    """Other bytes lie behind it."""
    data = bytearray(tiff_of(make_planes(3), **CUT[layout]))
    expected = read_whole(bytes(data))
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages.first.tags
        tag = tags.get(325) or tags[279]
        kind, number = f"<{tag.dataformat[-1]}", tag.value[-1]
        place = tag.valueoffset + (tag.count - 1) * struct.calcsize(kind)
    for share, look in product((0, 0.4, 0.98), (read_box, read_whole)):
        struct.pack_into(kind, data, place, int(number * share))
        result = attempt(look, bytes(data) + bytes(5000))
        # What is missing in the end may be a check sum alone.
        assert result is None or (share > 0.5 and np.array_equal(result, expected))


def test_a_fax_that_ends_too_early_has_no_rows_made_up():
    data = save(make_planes(1)[:, :, 0] > 99, "tiff", compression="group4")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tag = tiff.pages.first.tags[279]
    expected = read_whole(data)
    for count in range(1, tag.value[0]):
        cut = bytearray(data)
        struct.pack_into("<I", cut, tag.valueoffset, count)
        result = attempt(read_whole, bytes(cut))
        assert result is None or np.array_equal(result, expected)


def test_strips_whose_sizes_are_not_said():
    """As some programs write them; nothing is compressed."""
    planes = make_planes(3)
    tags = {256: (3, [32]), 257: (3, [24]), 258: (3, [8] * 3), 277: (3, [3])}
    tags |= {262: (3, [2]), 278: (3, [10])}
    strips = [planes[top : top + 10].tobytes() for top in (0, 10, 20)]
    said, other = (struct.pack("<HH", tag, 4) for tag in (279, 280))
    data = make_page("<", strips, tags).replace(said, other)
    check(data, planes)
    check_boxes(data)
