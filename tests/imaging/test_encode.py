"""Pictures as files of every format: what it holds, exactly or near, or refused."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from sample_files import make_planes, opened, picture_of, save

from srcli.errors import InputError, OutputError, UsageError
from srcli.imaging import encode
from srcli.imaging.files import Picture, encode_picture, read_picture
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


def read_back(picture, format, quality=95):
    return read_picture(encode_picture(picture, format, quality))


def test_jpeg_keeps_every_chroma_sample(picture):
    image = opened(encode_picture(Picture(picture()), "jpg"))
    assert JpegImagePlugin.get_sampling(image) == 0
    standard = opened(save(Image.fromarray(picture()), "jpeg", quality=95))
    assert image.quantization == standard.quantization


def test_quality_decides_the_size(picture):
    large = Picture(picture(120, 160))
    for format in ("jpg", "webp", "avif"):
        low, high = (encode_picture(large, format, number) for number in (30, 90))
        assert len(low) < len(high)


@pytest.mark.parametrize(("format", "channels"), [("webp", 3), ("avif", 1)])
def test_lossy_formats_hold_transparency(format, channels):
    alpha = np.tile(np.arange(32, dtype=np.uint8) * 8, (24, 1))
    pixels = np.full((24, 32, channels), 90, np.uint8)
    result = read_back(Picture(pixels, alpha), format, 100)
    assert np.abs(result.alpha.astype(int) - alpha).max() <= 2
    assert np.abs(result.pixels[:, 8:].astype(int) - 90).max() <= 2


def test_webp_of_quality_100_is_lossless(picture):
    pixels = picture()
    assert (read_back(Picture(pixels), "webp", 100).pixels == pixels).all()


def test_opaque_alpha_does_not_keep_a_picture_out_of_jpeg(picture):
    alpha = np.full((24, 32), 255, np.uint8)
    assert read_back(Picture(picture(), alpha), "jpg").alpha is None


@pytest.mark.parametrize(
    ("shape", "format", "reason"),
    [
        ((1, 65_501), "jpg", "JPEG holds no picture of 65501x1 pixels"),
        ((16_384, 1), "webp", "WebP holds no picture of 1x16384 pixels"),
        ((1, 32_769), "avif", "AVIF holds no picture of 32769x1 pixels"),
    ],
)
def test_sizes_that_a_format_cannot_hold_are_refused(shape, format, reason):
    with pytest.raises(OutputError, match=reason):
        encode_picture(Picture(np.zeros((*shape, 1), np.uint8)), format)


def test_transparency_that_a_format_cannot_hold_is_refused(picture):
    half = np.full((24, 32), 127, np.uint8)
    with pytest.raises(OutputError, match=r"holds no transparency; choose png"):
        encode_picture(Picture(picture(), half), "bmp")


def test_unknown_format_names_the_nearest(picture):
    with pytest.raises(UsageError, match="did you mean webp"):
        encode_picture(Picture(picture()), "weppy")


def test_missing_avif_is_said(monkeypatch, picture):
    data = save(Image.fromarray(picture()), "avif")
    monkeypatch.setattr(encode.features, "check", lambda _: False)
    with pytest.raises(OutputError, match="no AVIF; choose png or install pillow"):
        encode_picture(Picture(picture()), "avif")
    monkeypatch.setitem(Image.OPEN, "AVIF", (Image.OPEN["AVIF"][0], lambda _: ""))
    with pytest.raises(InputError, match="is AVIF, which this Pillow cannot read"):
        read_picture(data)


def test_png_is_about_as_small_as_pillow_makes_it():
    generator = np.random.default_rng(0)
    palette = generator.integers(0, 256, (7, 1), np.uint8)
    steps = generator.integers(-3, 4, (192, 192, 3))
    for pixels, share in (
        (palette[generator.integers(0, 7, (48, 48)).repeat(4, 0).repeat(4, 1)], 0.7),
        ((128 + steps.cumsum(0) + steps.cumsum(1)).clip(0, 255).astype(np.uint8), 1.15),
    ):
        data = encode_picture(Picture(pixels), "png")
        assert len(data) <= share * len(save(Image.fromarray(pixels.squeeze()), "PNG"))
        assert (read_picture(data).pixels == pixels).all()
