"""Pictures that Pillow reads: exactly, and one chosen of several frames or pages."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from sample_files import (
    check,
    chunk,
    deep_avif,
    make_planes,
    make_tiff,
    opened,
    png_of,
    sample,
    save,
    save_tiff,
)

from srcli import upscale
from srcli.errors import InputError
from srcli.imaging.files import Picture, encode_picture, probe_picture, read_picture


@pytest.mark.parametrize(
    ("channels", "dtype", "interlaced"),
    [
        (3, np.uint8, True),
        (2, np.uint8, False),
        (1, np.uint16, True),
        (4, np.uint16, False),
    ],
)
def test_png_is_read_exactly(dtype, channels, interlaced, capfd):
    planes = make_planes(channels, dtype)
    check(png_of(planes, interlaced=interlaced), planes)
    assert capfd.readouterr().err == ""  # nor does libpng have anything to say


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


def turned_png(orientation):
    blob = b"MM\x00*\x00\x00\x00\x08\x00\x01"
    blob += struct.pack(">HHIHHI", 274, 3, 1, orientation, 0, 0)
    return png_of(make_planes(3, np.uint16), after=chunk(b"eXIf", blob))


@pytest.mark.parametrize("orientation", [3, 5, 8])
def test_deep_pictures_are_turned_upright(orientation):
    stored = make_planes(3, np.uint16)
    # As Exif 2.32 defines them.
    expected = {3: stored[::-1, ::-1], 5: stored.swapaxes(0, 1), 8: np.rot90(stored)}
    result = check(turned_png(orientation), expected[orientation])
    assert opened(encode_picture(result, "png")).getexif().get(274, 1) == 1


def test_one_bit_becomes_grey():
    dots = np.indices((9, 11)).sum(axis=0) % 2 == 0
    result = read_picture(save(Image.fromarray(dots), "png"))
    assert (result.pixels[:, :, 0] == dots * 255).all()


def test_palette_becomes_rgb(picture):
    image = Image.fromarray(picture()).quantize(16)
    result = read_picture(save(image, "png"))
    assert (result.pixels == np.asarray(image.convert("RGB"))).all()
    assert result.alpha is None


def test_palette_with_transparency_becomes_rgba():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.putpixel((0, 0), 0)
    image.putpixel((1, 0), 2)
    result = read_picture(save(image, "png", transparency=bytes([0, 255, 128])))
    assert result.alpha[0].tolist() == [0, 128, 255, 255]
    assert result.pixels[0].tolist()[1:3] == [[1, 2, 3], [200, 100, 50]]


def test_gif_of_one_frame_becomes_png(picture):
    image = Image.fromarray(picture()).quantize(32)
    result = read_picture(save(image, "gif"))
    assert (result.pixels == np.asarray(image.convert("RGB"))).all()
    assert result.format == "png"


def keyed(levels, bits, key):
    """A PNG of (H, W, C) levels as they are stored, with a transparent colour."""
    said = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    return png_of(levels, depth=bits, before=said)


@pytest.mark.parametrize(
    ("bits", "channels", "key"),
    [(1, 1, 1), (2, 1, 2), (4, 1, 9), (16, 1, 40000), (8, 3, 77)],
)
def test_a_transparent_colour_counts_in_the_depth_of_the_file(bits, channels, key):
    levels = np.random.default_rng(0).integers(0, 2**bits, (6, 9, channels))
    levels[2:4, 3:6] = key
    hidden = (levels == key).all(axis=2)
    data = keyed(levels, bits, [key] * channels)
    read = read_picture(data)
    peak = 65535 if bits == 16 else 255
    assert (read.alpha == np.where(hidden, 0, peak)).all()
    assert (read.pixels == levels * (peak // (2**bits - 1))).all()
    assert probe_picture(data).alpha
    if bits < 16:  # and so does it in a picture that Pillow has opened
        larger = upscale(Image.open(io.BytesIO(data)), "bicubic", 1)
        assert (np.asarray(larger)[:, :, -1] == read.alpha).all()


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


FIRST, SECOND = make_planes(3), 255 - make_planes(3)


def refusal(data, **options):
    """The one line that both probing and reading refuse a file with."""
    said = []
    for look in (probe_picture, read_picture):
        with pytest.raises(InputError) as caught:
            look(data, name="it", **options)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    return said[0]


MANY = {
    "gif-animated": "frames",
    "apng": "frames",
    "webp-animated": "frames",
    "avif-animated": "frames",
    "tiff-pages": "pages",
    "tiff-pages-deep": "pages",
}


@pytest.mark.parametrize(("name", "kind"), MANY.items())
def test_several_frames_are_refused_unless_one_is_chosen(name, kind):
    data = sample(name)
    assert refusal(data) == f"it has 2 {kind}: choose one with --frame 1 to 2"
    for wrong in (0, 3, -1):
        expected = f"it has 2 {kind}: there is no {kind[:-1]} {wrong}"
        assert refusal(data, frame=wrong) == expected
    for frame in (1, 2):
        assert probe_picture(data, frame=frame).frames == 2


@pytest.mark.parametrize(
    "name", ["apng", "webp-animated", "gif-animated", "avif-animated"]
)
def test_the_chosen_frame_is_read(name):
    for frame, expected in ((1, FIRST), (2, SECOND)):
        if name in ("apng", "webp-animated"):
            check(sample(name), expected, frame=frame)
        result = read_picture(sample(name), frame=frame)
        assert np.abs(result.pixels.astype(int) - expected).mean() < 16


def test_the_chosen_page_is_read():
    check(sample("tiff-pages-deep"), make_planes(3, np.uint16), frame=1)
    check(sample("tiff-pages-deep"), make_planes(3, np.float32), frame=2)


def test_frames_of_a_gif_are_composed():
    """A later frame shows what the earlier ones have left, through its own holes."""
    first = Image.new("P", (4, 2), 0)
    first.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    second = first.copy()
    second.putpixel((3, 1), 2)
    data = save(first, "gif", save_all=True, append_images=[second], transparency=1)
    result = read_picture(data, frame=2)
    info = probe_picture(data, frame=2)
    assert result.pixels[0, 0].tolist() == [200, 0, 0]
    assert result.pixels[1, 3].tolist() == [0, 0, 200]
    assert info.alpha == (result.alpha is not None)


def test_one_frame_may_be_chosen_by_its_number():
    for name in ("png", "jpeg", "gif", "tiff", "tiff-float", "avif", "webp"):
        probe_picture(sample(name), frame=1)
        only = "page" if name.startswith("tiff") else "frame"
        said = refusal(sample(name), frame=2)
        assert said == f"it has one {only} only: there is no {only} 2"


def test_phone_photograph_with_further_pictures_is_a_jpeg():
    data = sample("mpo")
    for frame in (None, 1):
        result = read_picture(data, frame=frame)
        assert result.format == probe_picture(data).format == "jpg"
        assert np.abs(result.pixels.astype(int) - FIRST).mean() < 16
    second = read_picture(data, frame=2)
    assert np.abs(second.pixels.astype(int) - SECOND).mean() < 16


@pytest.mark.parametrize(
    ("order", "kind", "dtype"), [("before", 1, np.uint16), ("behind", 4, np.uint8)]
)
def test_smaller_copies_and_masks_do_not_count(order, kind, dtype):
    picture = make_planes(3, dtype), {"subfiletype": 0}
    copy = make_planes(3, dtype)[::2, ::2], {"subfiletype": 1}
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for planes, tags in (picture, copy) if order == "behind" else (copy, picture):
            writer.write(planes, photometric="rgb", metadata=None, **tags)
    marks = [struct.pack("<HHII", 254, 4, 1, number) for number in (1, kind)]
    data = buffer.getvalue().replace(*marks)
    check(data, picture[0])
    assert probe_picture(data).frames == 1


def test_a_smaller_copy_alone_is_a_picture():
    data = save_tiff(FIRST, photometric="rgb", subfiletype=1)
    check(data, FIRST)


@pytest.mark.parametrize(
    "tag", [(50706, 1, 4, (1, 4, 0, 0), True), (262, 3, 1, 32803, True)]
)
def test_raw_files_are_refused(tag):
    data = save_tiff(FIRST, photometric="rgb", extratags=[tag])
    if tag[0] == 262:
        stated = struct.pack("<HHI", 262, 3, 1)
        data = save_tiff(FIRST, photometric="rgb").replace(
            stated + struct.pack("<H", 2), stated + struct.pack("<H", 32803)
        )
    assert refusal(data) == "it is a camera's raw file: develop it first"


def test_a_preview_of_a_raw_file_is_refused():
    tags = {"subfile": 1, "sub_directories": 8}
    data = make_tiff("<", bytes(6), width=2, height=3, bits=8, photometric=1, **tags)
    assert refusal(data) == "it is a camera's raw file: develop it first"


def make_apng(first, second, depth, said=b""):
    """An APNG whose first frame is what a PNG reader shows."""
    control = chunk(b"acTL", struct.pack(">II", 2, 0))

    def frame(number):
        fields = (number, 32, 24, 0, 0, 100, 1000, 0, 0)
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", *fields))

    data = png_of(first, depth=depth, before=control + said + frame(0))
    other = png_of(second, depth=depth)
    at = other.index(b"IDAT")
    (length,) = struct.unpack_from(">I", other, at - 4)
    pixels = chunk(b"fdAT", struct.pack(">I", 2) + other[at + 4 : at + 4 + length])
    return data[:-12] + frame(1) + pixels + chunk(b"IEND")


@pytest.mark.parametrize(("depth", "key"), [(4, 15), (8, 99)])
def test_transparent_colour_of_the_first_frame_of_an_animation(depth, key):
    levels = np.arange(24 * 32).reshape(24, 32, 1) % 2**depth
    said = chunk(b"tRNS", struct.pack(">H", key))
    data = make_apng(levels, levels[::-1], depth, said)
    alpha = np.where(levels == key, 0, 255)
    expected = np.dstack((levels * 255 // (2**depth - 1), alpha)).astype(np.uint8)
    check(data, expected, frame=1)


def test_later_frames_of_a_deep_animation_have_8_bits(caplog):
    planes = make_planes(3, np.uint16)
    data = make_apng(planes, ~planes, 16)
    check(data, planes, frame=1)
    assert not caplog.messages
    second = read_picture(data, name="a.png", frame=2)
    assert (second.depth, probe_picture(data, frame=2).depth) == (8, 8)
    assert np.abs(second.pixels.astype(int) - SECOND).max() <= 1
    assert caplog.messages == ["a.png: its 16 bits a channel are read as 8"]
