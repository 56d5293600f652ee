"""Pictures of more than 8 bits a channel and in floating point, read and written."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from exact import check, picture_of
from sample_files import (
    chunk,
    deep_avif,
    make_planes,
    opened,
    png_of,
)

from srcli.errors import OutputError
from srcli.imaging.files import (
    Picture,
    encode_picture,
    probe_picture,
    read_picture,
)
from srcli.imaging.picture import reduce_depth


def unfilter(data):
    """The pixels of a PNG that is not interlaced, by the book (sections 7.2 and 9)."""
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    position, packed = 8, b""
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += length + 12
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    step = channels * depth // 8
    line = width * step
    rows = zlib.decompress(packed)
    above, result = bytearray(line), bytearray()
    for top in range(0, len(rows), line + 1):
        kind, row = rows[top], bytearray(rows[top + 1 : top + 1 + line])
        for i in range(line):
            left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
            up = above[i]
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            add = (0, left, up, (left + up) // 2, paeth)[kind]
            row[i] = (row[i] + add) & 255
        result += row
        above = row
    assert len(rows) == (line + 1) * height
    return np.frombuffer(bytes(result), f">u{depth // 8}").reshape(height, width, -1)


# PNG


@pytest.mark.parametrize(
    ("channels", "dtype", "interlaced"),
    [
        (3, np.uint8, True),
        (1, np.uint16, False),
        (2, np.uint16, True),
        (4, np.uint16, False),
    ],
)
def test_png_is_read_exactly(dtype, channels, interlaced, capfd):
    planes = make_planes(channels, dtype)
    check(png_of(planes, interlaced=interlaced), planes)
    assert capfd.readouterr().err == ""  # nor does libpng have anything to say


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(1, np.uint16), (2, np.uint8), (3, np.uint16), (4, np.uint16)],
)
def test_png_is_written_exactly(channels, dtype):
    for height, width in ((24, 32), (1, 7), (9, 1), (1, 1)):
        planes = make_planes(channels, dtype)[:height, :width]
        data = encode_picture(picture_of(planes), "png")
        assert (unfilter(data) == planes).all()


def test_flipped_pixels_are_written():
    planes = make_planes(3, np.uint16)[::-1, ::-1]
    assert (unfilter(encode_picture(Picture(planes), "png")) == planes).all()
    tiff = encode_picture(Picture(planes), "tiff")
    assert (imagecodecs.tiff_decode(tiff) == planes).all()


# AVIF


@pytest.mark.parametrize(("channels", "bits"), [(1, 10), (4, 12)])
def test_deep_avif_fills_the_range(channels, bits):
    stored = make_planes(channels, np.uint16) >> (16 - bits)
    expected = np.rint(stored * (65535 / (2**bits - 1))).astype(np.uint16)
    check(deep_avif(channels, bits), expected)


def test_grey_avif_stays_grey():
    data = encode_picture(Picture(make_planes(1)), "avif", 100)
    info = probe_picture(data)
    result = read_picture(data)
    assert (info.channels, result.pixels.shape) == (1, (24, 32, 1))
    assert np.abs(result.pixels.astype(int) - make_planes(1)).max() <= 3


# Orientation


def turned_png(orientation):
    blob = b"MM\x00*\x00\x00\x00\x08\x00\x01"
    blob += struct.pack(">HHIHHI", 274, 3, 1, orientation, 0, 0)
    return png_of(make_planes(3, np.uint16), after=chunk(b"eXIf", blob))


def turned_avif(orientation):
    """A deep AVIF with the property `irot`: HEIF, section 6.5.10."""
    data = deep_avif(3, 10)
    turns = {1: 0, 6: 3, 3: 2, 8: 1}[orientation]  # anticlockwise
    rotate = struct.pack(">I4sB", 9, b"irot", turns)
    places = {name: data.index(name) - 4 for name in (b"meta", b"iprp", b"ipco")}
    sizes = {name: struct.unpack_from(">I", data, at)[0] for name, at in places.items()}
    changed = bytearray(data)
    for name, at in places.items():
        more = len(rotate) + (name != b"ipco")
        struct.pack_into(">I", changed, at, sizes[name] + more)
    # One extent, behind all this: version, sizes, items, item, ..., offset, length.
    extent = data.index(b"iloc") + 18
    (start,) = struct.unpack_from(">I", data, extent)
    struct.pack_into(">I", changed, extent, start + len(rotate) + 1)
    link = data.index(b"ipma")
    (length,) = struct.unpack_from(">I", data, link - 4)
    struct.pack_into(">I", changed, link - 4, length + 1)
    count = link + 14
    changed[count] += 1
    end = link - 4 + length
    changed[end:end] = bytes((0x80 | (data[count] + 1),))
    behind = places[b"ipco"] + sizes[b"ipco"]
    changed[behind:behind] = rotate
    return bytes(changed)


@pytest.mark.parametrize(
    ("make", "orientation"),
    [(turned_png, 3), (turned_png, 5), (turned_png, 8), (turned_avif, 6)],
)
def test_deep_pictures_are_turned_upright(make, orientation):
    if make is turned_avif:
        stored = make_planes(3, np.uint16) >> 6
        stored = np.rint(stored * (65535 / 1023)).astype(np.uint16)
    else:
        stored = make_planes(3, np.uint16)
    expected = {
        3: stored[::-1, ::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        8: np.rot90(stored),
    }[orientation]
    result = check(make(orientation), expected)
    for format in ("png", "tiff"):
        again = opened(encode_picture(result, format))
        assert again.getexif().get(274, 1) == 1


# Less


def test_depths_that_a_format_cannot_hold_are_refused():
    for format in ("jpg", "png", "webp", "bmp", "avif"):
        with pytest.raises(OutputError, match="holds no floating-point channels"):
            encode_picture(Picture(make_planes(3, np.float32)), format)
    for format in ("jpg", "webp", "bmp", "avif"):
        with pytest.raises(OutputError, match="holds no 16-bit channels"):
            encode_picture(Picture(make_planes(1, np.uint16)), format)


def test_depth_is_reduced_to_the_nearest_level():
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    less = reduce_depth(Picture(deep, deep[:, :, 0]), 8)
    nearest = np.rint(deep / 257).astype(np.uint8)
    assert (less.pixels == nearest).all()
    assert (less.alpha == nearest[:, :, 0]).all()
    values = np.array([[[-1], [0], [0.25], [0.5], [1], [7]]], np.float32)
    expected = {8: [0, 0, 64, 128, 255, 255], 16: [0, 0, 16384, 32768, 65535, 65535]}
    for depth, levels in expected.items():
        less = reduce_depth(Picture(values), depth)
        assert (less.pixels.ravel() == levels).all()
        assert less.depth == depth
