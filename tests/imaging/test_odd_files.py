"""Files that programs get wrong: keys of low depths, empty alpha, formats not read."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from srcli import upscale
from srcli.errors import InputError
from srcli.imaging.files import probe_picture, read_picture


def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(levels, bits, key):
    """A PNG of (H, W, C) levels as they are stored, with a transparent colour."""
    height, width, channels = levels.shape
    spread = levels.reshape(height, -1, 1) >> np.arange(bits - 1, -1, -1) & 1
    rows = np.packbits(spread.reshape(height, -1).astype(np.uint8), axis=1)
    head = struct.pack(">IIBBBBB", width, height, bits, channels - 1, 0, 0, 0)
    said = struct.pack(f">{channels}H", *key)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = ((b"IHDR", head), (b"tRNS", said), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("bits", "channels", "key"),
    [
        (1, 1, 1),
        (2, 1, 2),
        (4, 1, 9),
        (16, 1, 40000),
        (8, 3, 77),
    ],
)
def test_a_transparent_colour_counts_in_the_depth_of_the_file(bits, channels, key):
    levels = np.random.default_rng(0).integers(0, 2**bits, (6, 9, channels))
    levels[2:4, 3:6] = key
    hidden = (levels == key).all(axis=2)
    data = png(levels, bits, [key] * channels)
    read = read_picture(data)
    peak = 65535 if bits == 16 else 255
    assert (read.alpha == np.where(hidden, 0, peak)).all()
    assert (read.pixels == levels * (peak // (2**bits - 1))).all()
    assert probe_picture(data).alpha
    if bits < 16:  # and so does it in a picture that Pillow has opened
        larger = upscale(Image.open(io.BytesIO(data)), "bicubic", 1)
        assert (np.asarray(larger)[:, :, -1] == read.alpha).all()


def test_only_the_bits_of_the_file_count_in_a_key():
    """PNG, third edition, section 11.3.2.1."""
    levels = np.arange(16).reshape(2, 8, 1)
    assert (read_picture(png(levels, 4, [0xFF3])).alpha == 0).sum() == 1
    assert read_picture(png(levels, 4, [0xFF3])).alpha[0, 3] == 0
    colours = np.array([[[1, 2, 3], [1, 2, 4]]])
    alpha = read_picture(png(colours, 8, [0x101, 2, 0x703])).alpha
    assert alpha.tolist() == [[0, 255]]


def bmp(pixels, *, header=124, masks=True):
    """A BMP of 32 bits; (H, W, 4) RGBA."""
    height, width, _ = pixels.shape
    body = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    fields = (width, height, 1, 32, 3 if masks else 0, len(body), 2835, 2835, 0, 0)
    info = struct.pack("<IiiHHIIiiII", header, *fields)
    if masks:
        info += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    info = info.ljust(header, b"\0")
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + body


def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque(picture):
    pixels = np.dstack((picture(7, 5), np.zeros((7, 5), np.uint8)))
    data = bmp(pixels)
    read = read_picture(data)
    assert (read.pixels == pixels[:, :, :3]).all()
    assert read.alpha is None
    info = probe_picture(data)
    assert (info.alpha, info.format) == (False, "bmp")
    assert upscale(Image.open(io.BytesIO(data)), "bicubic", 1).mode == "RGB"


def test_alpha_that_says_something_stays(picture):
    pixels = np.dstack((picture(7, 5), np.zeros((7, 5), np.uint8)))
    pixels[3, 2, 3] = 255
    assert (read_picture(bmp(pixels)).alpha == pixels[:, :, 3]).all()
    plain = read_picture(bmp(pixels, header=40, masks=False))
    assert plain.alpha is None  # a byte that pads
    pixels[:, :, 3] = 0
    for format in ("png", "tiff", "webp"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format, lossless=True)
        assert not read_picture(buffer.getvalue()).alpha.any()


def jpeg_with_long_exif(frame):
    segment = b"\xff\xe1" + struct.pack(">H", 60_002) + b"\xff\xc1" * 30_000
    return b"\xff\xd8" + segment + frame


DEEP = imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint16), bitspersample=12)

OTHERS = {
    "a JPEG of 12 bits": [DEEP, jpeg_with_long_exif(DEEP[2:])],
    "JPEG XL": [b"\xff\x0a\xfa\x1f", b"\0\0\0\x0cJXL \r\n\x87\n\0\0"],
    "JPEG 2000": [imagecodecs.jpeg2k_encode(np.zeros((8, 8), np.uint8))],
    "HEIC": [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x18ftypmif1\0\0\0\0heic"],
    "a Photoshop document (PSD)": [b"8BPS\0\1" + bytes(20)],
    "SVG": [b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg xmlns="x">', b"  <svg/>"],
    "PNM": [b"P6\n2 2\n255\n" + bytes(12)],
    "OpenEXR": [b"v/1\x01\2\0\0\0"],
    "an icon (ICO)": [b"\0\0\1\0\1\0\x10\x10"],
    "a film": [b"\0\0\0\x18ftypmp42\0\0\0\0isom"],
}


def test_a_format_that_is_not_read_is_named():
    for kind, files in OTHERS.items():
        for data in files:
            with pytest.raises(InputError, match="which is not supported") as caught:
                read_picture(data + bytes(64), name="x")
            assert f"x is {kind}, " in str(caught.value)


def test_a_cameras_raw_file_is_to_be_developed():
    canon = b"II*\0\x10\0\0\0CR\x02\0"
    for start in (b"\0\0\0\x18ftypcrx ", b"IIU\0\x18\0", b"IIRO\x08\0", canon):
        with pytest.raises(InputError, match="is a camera's raw file: develop it"):
            read_picture(start + bytes(64))


def test_a_damaged_jpeg_is_no_other_kind(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture(9, 9)).save(buffer, "JPEG")
    data = buffer.getvalue()
    for damaged in (data[:2] + b"\0" * 30, jpeg_with_long_exif(b"\0\0")):
        with pytest.raises(InputError, match="is not a picture that can be read"):
            read_picture(damaged)
