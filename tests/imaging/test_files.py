"""Picture files: every kind of picture in, the same kind out, or one clear error."""

import contextlib
import io
import logging
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, JpegImagePlugin

from srcli.errors import InputError, OutputError, UsageError
from srcli.imaging import files
from srcli.imaging.files import (
    Metadata,
    Picture,
    encode_picture,
    probe_picture,
    read_picture,
    write_picture,
)
from srcli.imaging.opened import format_name

EXIF, GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo
LOSSLESS = ("png", "tiff", "bmp")


def save(image, format, **options):
    """The bytes of a file that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data):
    """What Pillow finds in a file."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def read_back(picture, format, quality=95):
    return read_picture(encode_picture(picture, format, quality))


def make_tiff(order, data, **tags):
    """A one-strip TIFF written by hand, for kinds that Pillow does not write."""
    numbers = {"width": 256, "height": 257, "bits": 258, "photometric": 262}
    fields = {259: 1, 277: 1, 278: tags["height"], 279: len(data)}
    fields |= {numbers[name]: value for name, value in tags.items()}
    fields[273] = 8 + 2 + 12 * (len(fields) + 1) + 4
    out = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    out += struct.pack(f"{order}H", len(fields))
    for tag, value in sorted(fields.items()):
        out += struct.pack(f"{order}HHII", tag, 4, 1, value)
    return out + bytes(4) + data


def make_png(width, height, depth, colour, rows):
    """A PNG written by hand, for kinds that Pillow does not write."""

    def chunk(name, body):
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# What comes in


@pytest.mark.parametrize("format", LOSSLESS)
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_opaque_pixels_are_read_and_written_exactly(format, mode, channels, picture):
    pixels = picture(channels=channels)
    image = Image.fromarray(pixels.squeeze())
    result = read_picture(save(image, format))
    assert (result.pixels == pixels).all()
    assert (result.alpha, result.format) == (None, format)
    again = opened(encode_picture(result, format))
    assert again.mode == mode
    assert (np.asarray(again) == pixels.squeeze()).all()


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_transparency_is_read_and_written_exactly(format, mode, channels, picture):
    planes = picture(channels=channels)
    result = read_picture(save(Image.fromarray(planes), format))
    assert (result.pixels == planes[:, :, :-1]).all()
    assert (result.alpha == planes[:, :, -1]).all()
    again = opened(encode_picture(result, format))
    assert again.mode == mode
    assert (np.asarray(again) == planes).all()


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_sixteen_bits_come_in_and_go_out(format):
    grey = (np.arange(30 * 40, dtype=np.uint16) * 53 + 7).reshape(30, 40)
    result = read_picture(save(Image.fromarray(grey), format))
    assert result.pixels.dtype == np.uint16
    assert (result.pixels[:, :, 0] == grey).all()
    again = opened(encode_picture(result, format))
    assert again.mode == "I;16"
    assert (np.asarray(again) == grey).all()
    assert probe_picture(encode_picture(result, format)).depth == 16


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_of_either_byte_order(order):
    grey = np.arange(12).reshape(3, 4) * 5000
    data = grey.astype(f"{order}u2").tobytes()
    tiff = make_tiff(order, data, width=4, height=3, bits=16, photometric=1)
    assert (read_picture(tiff).pixels[:, :, 0] == grey).all()


def test_sixteen_bit_tiff_whose_zero_is_white():
    stored = np.array([[0, 1000], [60000, 65535]], "<u2")
    tiff = make_tiff("<", stored.tobytes(), width=2, height=2, bits=16, photometric=0)
    assert (read_picture(tiff).pixels[:, :, 0] == 65535 - stored).all()


def test_twelve_bit_tiff_fills_the_range():
    packed = bytes([0x00, 0x0F, 0xFF])  # 0x000 and 0xFFF
    tiff = make_tiff("<", packed, width=2, height=1, bits=12, photometric=1)
    assert read_picture(tiff).pixels.ravel().tolist() == [0, 65535]


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


@pytest.mark.parametrize(
    ("mode", "key", "other"),
    [("1", 0, 255), ("L", 9, 40), ("RGB", (9, 8, 7), (1, 2, 3))],
)
def test_transparent_colour_becomes_alpha(mode, key, other):
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), other)
    result = read_picture(save(image, "png", transparency=key))
    assert result.alpha.tolist() == [[0, 255]]
    assert result.pixels.shape == (1, 2, 3 if mode == "RGB" else 1)
    assert (result.pixels[0, 1] == other).all()


def test_gif_of_one_frame_becomes_png(picture):
    image = Image.fromarray(picture()).quantize(32)
    result = read_picture(save(image, "gif"))
    assert (result.pixels == np.asarray(image.convert("RGB"))).all()
    assert result.format == "png"


def test_phone_photograph_with_further_pictures_is_a_jpeg(picture):
    image = Image.fromarray(picture())
    data = save(image, "mpo", save_all=True, append_images=[image], quality=95)
    assert opened(data).n_frames == 2
    result = read_picture(data)
    assert result.format == "jpg"
    assert result.pixels.shape == (24, 32, 3)


def test_cmyk_without_profile_is_converted_plainly():
    image = Image.new("CMYK", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 255, 255, 0))
    for format in ("jpeg", "tiff"):
        result = read_picture(save(image, format, **_best(format)))
        expected = [[255, 255, 255], [255, 0, 0]]
        assert np.abs(result.pixels[0] - np.array(expected)).max() <= 3


def test_cmyk_goes_through_its_profile():
    # A press whose "cyan" ink prints red and whose paper is light grey.
    icc = make_cmyk_profile(paper=(90, 0, 0), cyan=(53, 80, 67))
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for format in ("jpeg", "tiff"):
        data = save(image, format, icc_profile=icc, **_best(format))
        result = read_picture(data)
        red, green, blue = result.pixels[4, 4].tolist()
        assert red > 230
        assert max(green, blue) < 40
        assert result.metadata.icc is None


def test_unusable_cmyk_profile_is_said_and_left_out(caplog):
    broken = make_cmyk_profile(paper=(90, 0, 0), cyan=(53, 80, 67))[:200]
    data = save(Image.new("CMYK", (8, 8)), "tiff", icc_profile=broken)
    assert (read_picture(data, name="ad.tif").pixels == 255).all()
    assert "ad.tif: its CMYK profile cannot be used" in caplog.text


def _best(format):
    return {"quality": 100, "subsampling": 0} if format == "jpeg" else {}


def make_cmyk_profile(paper, cyan):
    """An ICC profile that knows two Lab colours: no cyan ink, and full cyan ink.

    ICC.1:2004 (profile version 4): header 7.2, tag table 7.3, lut8Type 10.9.
    """
    ramp = bytes(range(256))

    def lab(colour):
        lightness, a, b = colour
        return bytes([round(lightness * 2.55), a + 128, b + 128])

    grid = b"".join(lab(cyan if i & 8 else paper) for i in range(16))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity
    lut += ramp * 4 + grid + ramp * 3
    text = "press".encode("utf-16-be")
    words = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 10, 28)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = {
        b"desc": words + text,
        b"cprt": words + text,
        b"wtpt": white,
        b"A2B0": lut,
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = bytearray(128)
    struct.pack_into(">I", header, 0, start + len(body))
    header[8:12] = bytes([4, 0x20, 0, 0])
    header[12:24] = b"prtrCMYKLab "
    header[36:40] = b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + struct.pack(">I", len(tags)) + table + body


# Never damaged without a word


def test_grey_with_eight_bits_is_not_announced(picture, caplog):
    read_picture(save(Image.fromarray(picture()), "png"))
    read_picture(save(Image.fromarray(picture()), "avif"))
    read_picture(save(Image.fromarray(picture()[:, :, 0].astype(np.uint16)), "png"))
    assert not caplog.messages


def test_wider_whole_numbers_are_refused():
    with pytest.raises(InputError, match="holds whole numbers of 32 bits"):
        read_picture(save(Image.new("I", (3, 3)), "tiff"))


# Orientation and metadata

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/'
    b'02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.'
    b'com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" tiff:Orientation="6" '
    b'tiff:ImageWidth="32"><exif:PixelXDimension>32</exif:PixelXDimension>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def make_exif(orientation=1, *, order="<", thumbnail=b"\xff\xd8thumbnail\xff\xd9"):
    """EXIF written by hand: a directory in another, and a thumbnail at the end."""
    strings = {271: b"Caf\xc3\xa9 Works\0"}
    note = b"maker note, opaque"
    main_at, main_entries = 8, 5
    sub_at = main_at + 2 + 12 * main_entries + 4
    second_at = sub_at + 2 + 12 * 3 + 4
    data_at = second_at + 2 + 12 * 2 + 4
    note_at = data_at + len(strings[271])
    thumbnail_at = note_at + len(note)

    def entry(tag, kind, count, value):
        if kind == 3:
            return struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)
        return struct.pack(f"{order}HHII", tag, kind, count, value)

    mark = b"II*\0" if order == "<" else b"MM\0*"
    out = mark + struct.pack(f"{order}I", main_at)
    out += struct.pack(f"{order}H", main_entries) + entry(256, 3, 1, 32)
    out += entry(257, 3, 1, 24) + entry(271, 2, len(strings[271]), data_at)
    out += entry(274, 3, 1, orientation) + entry(EXIF, 4, 1, sub_at)
    out += struct.pack(f"{order}I", second_at if thumbnail else 0)
    out += struct.pack(f"{order}H", 3) + entry(0x927C, 7, len(note), note_at)
    out += entry(0xA002, 3, 1, 32) + entry(0xA003, 4, 1, 24) + bytes(4)
    out += struct.pack(f"{order}H", 2) + entry(0x0201, 4, 1, thumbnail_at)
    out += entry(0x0202, 4, 1, len(thumbnail)) + bytes(4)
    return b"Exif\0\0" + out + strings[271] + note + thumbnail


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(format, orientation):
    corners = np.zeros((32, 48, 3), np.uint8)
    corners[:16, :24], corners[:16, 24:], corners[16:, :24] = 255, (255, 0, 0), 120
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = save(Image.fromarray(corners), format, exif=exif.tobytes())
    upright = np.asarray(ImageOps.exif_transpose(opened(data)), np.int16)
    info = probe_picture(data)
    result = read_picture(data)
    assert result.pixels.shape == upright.shape
    assert (np.abs(result.pixels - upright) <= 2).all()
    assert (info.height, info.width) == upright.shape[:2]
    again = opened(encode_picture(result, format_name(opened(data))))
    assert again.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert again.size == (result.width, result.height)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("format", ["jpg", "png", "webp"])
def test_exif_is_carried_over(format, order, picture):
    data = save(Image.fromarray(picture()), "jpeg", exif=make_exif(6, order=order))
    source = read_picture(data)
    large = Picture(np.zeros((96, 72_0, 3), np.uint8), None, source.metadata, "jpg")
    exif = opened(encode_picture(large, format)).getexif()
    nested = exif.get_ifd(EXIF)
    assert exif[ExifTags.Base.Orientation] == 1
    assert (exif[256], exif[257]) == (720, 96)
    assert (nested[0xA002], nested[0xA003]) == (720, 96)
    assert nested[0x927C] == b"maker note, opaque"
    assert exif[271] == "Caf\u00c3\u00a9 Works"  # UTF-8, as Pillow shows it
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    blob = source.metadata.exif
    assert b"thumbnail" not in blob
    original = make_exif(6, order=order)
    # Nothing moves: absolute offsets inside the maker note stay right.
    assert blob.index(b"maker note") == original.index(b"maker note")


def test_sizes_beyond_16_bits_are_written(picture):
    data = save(Image.fromarray(picture()), "jpeg", exif=make_exif())
    metadata = read_picture(data).metadata
    wide = Picture(np.zeros((1, 70_000, 3), np.uint8), None, metadata, "png")
    exif = opened(encode_picture(wide, "png")).getexif()
    assert (exif[256], exif.get_ifd(EXIF)[0xA002]) == (70_000, 70_000)


@pytest.mark.parametrize("target", ["tiff", "avif"])
def test_exif_reaches_formats_that_store_it_their_own_way(target, picture):
    exif = Image.Exif()
    exif[271] = "Works"
    exif[258] = (8, 8, 8)  # layout, not description: must not reach a TIFF
    exif.get_ifd(EXIF)[0x9003] = "2020:01:02 03:04:05"
    exif.get_ifd(GPS)[1] = "N"
    data = save(Image.fromarray(picture()), "jpeg", exif=exif.tobytes(), xmp=XMP)
    result = opened(encode_picture(read_picture(data), target))
    found = result.getexif()
    assert found[271] == "Works"
    assert found.get_ifd(EXIF)[0x9003] == "2020:01:02 03:04:05"
    assert found.get_ifd(GPS)[1] == "N"
    assert b'tiff:Orientation="1"' in result.info["xmp"]


def test_exif_of_a_tiff_reaches_a_jpeg_without_its_layout(picture):
    exif = Image.Exif()
    exif[271] = "Works"
    exif[ExifTags.Base.Orientation] = 3
    exif.get_ifd(EXIF)[0x9003] = "2020:01:02 03:04:05"
    data = save(Image.fromarray(picture()), "tiff", exif=exif.tobytes())
    found = opened(encode_picture(read_picture(data), "jpg")).getexif()
    assert found[271] == "Works"
    assert found.get_ifd(EXIF)[0x9003] == "2020:01:02 03:04:05"
    assert not {258, 259, 273, 279} & set(found)


def test_broken_exif_is_said_and_left_out(picture, caplog):
    data = save(Image.fromarray(picture()), "jpeg", exif=b"Exif\0\0II*\0\xff\xff\0\0")
    result = read_picture(data, name="old.jpg")
    assert result.metadata.exif is None
    assert "old.jpg: its EXIF cannot be read: left out" in caplog.messages


@pytest.mark.parametrize("format", ["tiff", "avif"])
def test_exif_that_pillow_cannot_write_is_said_and_left_out(format, picture, caplog):
    broken = bytearray(make_exif(thumbnail=b""))
    at = broken.index(struct.pack("<HH", 271, 2))
    broken[at : at + 2] = struct.pack("<H", 264)  # text where a number has to be
    data = save(Image.fromarray(picture()), "jpeg", exif=bytes(broken), xmp=XMP)
    result = opened(encode_picture(read_picture(data), format))
    assert EXIF not in result.getexif()
    assert b"xmpmeta" in result.info["xmp"]
    assert f"{format.upper()} cannot hold its EXIF: left out" in caplog.text


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tiff", "avif"])
def test_profile_and_xmp_are_carried_over(format, picture):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = save(Image.fromarray(picture()), "jpeg", icc_profile=icc, xmp=XMP)
    source = read_picture(data)
    metadata = source.metadata
    large = Picture(np.zeros((96, 128, 3), np.uint8), None, metadata, "jpg")
    found = opened(encode_picture(large, format)).info
    assert found["icc_profile"] == icc
    assert b'tiff:Orientation="1" tiff:ImageWidth="128"' in found["xmp"]
    assert b"<exif:PixelXDimension>128</exif:PixelXDimension>" in found["xmp"]


@pytest.mark.parametrize("format", ["jpg", "png", "tiff", "bmp"])
def test_resolution_is_carried_over(format, picture):
    data = save(Image.fromarray(picture()), "png", dpi=(300, 150))
    found = opened(encode_picture(read_picture(data), format)).info["dpi"]
    assert [round(float(value)) for value in found] == [300, 150]


def test_resolution_that_is_not_there_is_not_invented(picture):
    data = save(Image.fromarray(picture()), "tiff")
    assert read_picture(data).metadata == Metadata()


def test_grey_profile_stays_with_grey_only(picture, caplog):
    icc = bytes(12) + b"mntrGRAY" + bytes(108)
    grey = Picture(picture(channels=1), None, Metadata(icc=icc), "png")
    assert opened(encode_picture(grey, "jpg")).info["icc_profile"] == icc
    # WebP stores grey as RGB, to which the profile does not apply.
    assert "icc_profile" not in opened(encode_picture(grey, "webp")).info
    assert "WebP cannot hold its colour profile" in caplog.text


def test_metadata_too_long_for_jpeg_is_said_and_left_out(picture, caplog):
    exif = make_exif(thumbnail=b"") + bytes(70_000)
    metadata = Metadata(exif=exif, xmp=b"x" * 70_000)
    large = Picture(picture(), None, metadata, "jpg")
    info = opened(encode_picture(large, "jpg")).info
    assert not {"exif", "xmp"} & set(info)
    assert "JPEG cannot hold its EXIF and XMP: left out" in caplog.text
    assert opened(encode_picture(large, "png")).info["xmp"] == b"x" * 70_000


# What goes out


def test_jpeg_keeps_every_chroma_sample(picture):
    image = opened(encode_picture(Picture(picture()), "jpg"))
    assert JpegImagePlugin.get_sampling(image) == 0
    standard = opened(save(Image.fromarray(picture()), "jpeg", quality=95))
    assert image.quantization == standard.quantization


@pytest.mark.parametrize("format", ["jpg", "webp", "avif"])
def test_quality_decides_the_size(format, picture):
    large = Picture(picture(120, 160))
    assert len(encode_picture(large, format, 30)) < len(
        encode_picture(large, format, 90)
    )


@pytest.mark.parametrize("format", ["webp", "avif"])
@pytest.mark.parametrize("channels", [1, 3])
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


@pytest.mark.parametrize("format", ["jpg", "bmp"])
def test_transparency_that_a_format_cannot_hold_is_refused(format, picture):
    half = np.full((24, 32), 127, np.uint8)
    with pytest.raises(OutputError, match=r"holds no transparency; choose png"):
        encode_picture(Picture(picture(), half), format)


@pytest.mark.parametrize("format", ["jpg", "webp", "bmp", "avif"])
def test_sixteen_bits_that_a_format_cannot_hold_are_refused(format):
    with pytest.raises(OutputError, match="holds no 16-bit channels"):
        encode_picture(Picture(np.zeros((4, 4, 1), np.uint16)), format)


def test_unknown_format_names_the_nearest(picture):
    with pytest.raises(UsageError, match="did you mean webp"):
        encode_picture(Picture(picture()), "weppy")


def test_missing_avif_is_said(monkeypatch, picture):
    data = save(Image.fromarray(picture()), "avif")
    monkeypatch.setattr(files.features, "check", lambda _: False)
    with pytest.raises(OutputError, match="no AVIF; choose png or install pillow"):
        encode_picture(Picture(picture()), "avif")
    monkeypatch.setitem(Image.OPEN, "AVIF", (Image.OPEN["AVIF"][0], lambda _: ""))
    with pytest.raises(InputError, match="is AVIF, which this Pillow cannot read"):
        read_picture(data)


def test_file_name_decides_the_format(tmp_path, picture):
    for name, format in [("a.jpeg", "JPEG"), ("b.tif", "TIFF"), ("c.JPG", "JPEG")]:
        write_picture(Picture(picture()), tmp_path / name)
        assert opened((tmp_path / name).read_bytes()).format == format
    write_picture(Picture(picture(), format="bmp"), tmp_path / "d")
    assert opened((tmp_path / "d").read_bytes()).format == "BMP"
    write_picture(Picture(picture()), tmp_path / "e.jpg", format="png")
    assert opened((tmp_path / "e.jpg").read_bytes()).format == "PNG"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("format", ["jpg", "png"])
def test_strips_make_the_same_picture(format, picture, monkeypatch):
    photo = save(Image.new("RGB", (9, 9)), "jpeg", exif=make_exif(), dpi=(72, 72))
    large = Picture(picture(173, 61), None, read_picture(photo).metadata)
    whole = encode_picture(large, format)
    monkeypatch.setattr("srcli.imaging.strips._MOST_BLOCKS", 17)  # eleven strips
    strips = encode_picture(large, format)
    assert strips != whole
    assert len(strips) < 1.1 * len(whole) + 500
    one, other = read_picture(whole), read_picture(strips)
    assert (one.pixels == other.pixels).all()
    assert one.metadata == other.metadata


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["photograph", "drawing"])
def test_png_is_about_as_small_as_pillow_makes_it(kind, channels):
    generator = np.random.default_rng(0)
    if kind == "drawing":  # the same shapes again and again
        shape = generator.integers(0, 256, (16, 16, channels), np.uint8)
        pixels = np.tile(shape, (12, 12, 1))
    else:
        steps = generator.integers(-3, 4, (192, 192, channels))
        pixels = (128 + steps.cumsum(0) + steps.cumsum(1)).clip(0, 255).astype(np.uint8)
    data = encode_picture(Picture(pixels), "png")
    usual = save(Image.fromarray(pixels.squeeze()), "PNG")
    assert len(data) <= 1.15 * len(usual)
    assert (read_picture(data).pixels == pixels).all()


@pytest.mark.parametrize("failure", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_interrupted_write_leaves_what_was_there(
    failure, format, tmp_path, picture, monkeypatch
):
    path = tmp_path / f"photo.{format.lower()}"
    path.write_bytes(b"precious")

    def cut_off(*_, **__):
        raise failure

    writer = (
        (tifffile.TiffWriter, "write") if format == "TIFF" else (Image.Image, "save")
    )
    monkeypatch.setattr(*writer, cut_off)
    expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_picture(Picture(picture()), path)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_one_clear_error(tmp_path, picture):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "a.png", tmp_path / "file" / "a.png"):
        with pytest.raises(OutputError, match=r"cannot write .*a\.png: "):
            write_picture(Picture(picture()), path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder\.png"):
        write_picture(Picture(picture()), tmp_path / "folder.png")
    assert not list(tmp_path.rglob("*.part"))


# What is refused


def refusal(source):
    """The one line that probing and reading refuse a source with."""
    with pytest.raises(InputError) as caught:
        read_picture(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "format", ["png", "jpeg", "webp", "tiff", "bmp", "avif", "gif"]
)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_cut_off_files(format, kept, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = save(Image.fromarray(pixels), format)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * kept)])
    assert refusal(path).startswith(f"{path} is ")


def test_other_things_than_pictures(tmp_path):
    empty, text, folder = (tmp_path / name for name in ("e.png", "t.png", "folder.png"))
    empty.write_bytes(b"")
    text.write_text("dear diary\n" * 50)
    folder.mkdir()
    assert refusal(empty) == f"{empty} is empty"
    assert refusal(text).startswith(f"{text} is not a picture that can be read (PNG,")
    assert refusal(folder) == f"{folder} is a folder, not a picture"
    assert refusal(tmp_path / "none.png") == f"{tmp_path / 'none.png'} does not exist"
    assert refusal(b"") == "the picture is empty"
    with pytest.raises(InputError, match="standard input is empty"):
        read_picture(b"", name="standard input")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "locked.png"
    path.write_bytes(b"x")

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", deny)
    assert refusal(path) == f"{path} cannot be read: Permission denied"


@pytest.mark.parametrize("format", ["gif", "png", "webp", "tiff", "avif"])
def test_several_frames(format, picture):
    first, second = Image.fromarray(picture()), Image.fromarray(255 - picture())
    data = save(first, format, save_all=True, append_images=[second])
    kind = "pages" if format == "tiff" else "frames"
    assert f"has 2 {kind}" in refusal(data)


def test_bombs_are_refused_unread_and_large_pictures_are_not():
    bomb = make_png(100_000, 100_000, 8, 2, b"")
    with pytest.raises(InputError, match=r"claims more than 500 million pixels: refused"):
        read_picture(bomb)
    # Beyond both of Pillow's own limits, without a warning.
    info = probe_picture(make_png(20_000, 20_000, 8, 2, b""))
    assert (info.width, info.height) == (20_000, 20_000)


def test_pillows_own_settings_are_restored(picture):
    limit, handlers = Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL").handlers[:]
    read_picture(save(Image.fromarray(picture()), "png"))
    with pytest.raises(InputError):
        read_picture(b"nothing")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert logging.getLogger("PIL").handlers == handlers


def test_damaged_files_never_raise_anything_else(picture):
    random = np.random.default_rng(5)
    exif = make_exif(6)
    image = Image.fromarray(picture())
    sources = [save(image, f, exif=exif) for f in ("png", "jpeg", "webp", "avif")]
    sources += [save(image, "tiff"), save(image, "bmp"), save(image.quantize(), "gif")]
    for source in sources:
        for _ in range(25):
            data = bytearray(source)
            for place in random.integers(0, min(len(data), 300), 3):
                data[place] = random.integers(0, 256)
            with contextlib.suppress(InputError):
                encode_picture(read_picture(bytes(data)), "png")
