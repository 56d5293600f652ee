"""Metadata: all that a picture says beside its pixels comes along, or it is said."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageOps
from sample_files import (
    XMP,
    chunk,
    jpeg_segment,
    make_exif,
    make_iptc,
    make_planes,
    make_rich_exif,
    opened,
    png_of,
    sample,
    save,
    save_tiff,
    srgb_profile,
)

from srcli.imaging.files import (
    Metadata,
    Picture,
    encode_picture,
    probe_picture,
    read_picture,
    strip_metadata,
)

INTEROP = ExifTags.IFD.Interop
EXIF, GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo


TURNED = [("jpeg", 5), ("jpeg", 8), ("png", 2), ("webp", 6), ("tiff", 7), ("avif", 4)]


@pytest.mark.parametrize(("format", "orientation"), TURNED)
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
    again = opened(encode_picture(result, result.format))
    assert again.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert again.size == (result.width, result.height)


@pytest.mark.parametrize(("format", "order"), [("jpg", "<"), ("png", ">")])
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


@pytest.mark.parametrize("format", ["jpg", "png", "tiff"])
def test_profile_and_xmp_are_carried_over(format, picture):
    icc = srgb_profile()
    data = save(Image.fromarray(picture()), "jpeg", icc_profile=icc, xmp=XMP)
    source = read_picture(data)
    metadata = source.metadata
    large = Picture(np.zeros((96, 128, 3), np.uint8), None, metadata, "jpg")
    found = opened(encode_picture(large, format)).info
    assert found["icc_profile"] == icc
    assert b'tiff:Orientation="1" tiff:ImageWidth="128"' in found["xmp"]
    assert b"<exif:PixelXDimension>128</exif:PixelXDimension>" in found["xmp"]


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


# Everything at once, into every format

# What each format holds, and what is said to be left out.
KEPT = {
    "png": ("icc exif xmp dpi", "IPTC and comment"),
    "jpg": ("icc exif xmp dpi iptc comment", ""),
    "webp": ("icc exif xmp", "IPTC and comment"),
    "tiff": ("icc exif xmp dpi iptc", "comment"),
    "bmp": ("dpi", "colour profile and EXIF and XMP and IPTC and comment"),
    "avif": ("icc exif xmp", "IPTC and comment"),
}


def found_in(data):
    """What Pillow finds beside the pixels of a file, by our names."""
    image = opened(data)
    exif, info = image.getexif(), image.info
    tags = getattr(image, "tag_v2", {})
    found = {
        "icc": info.get("icc_profile"),
        "exif": exif.get(0x010F),
        "xmp": info.get("xmp"),
        "dpi": info.get("dpi"),
        "iptc": info.get("photoshop") or tags.get(33723),
        "comment": info.get("comment"),
    }
    return {key for key, value in found.items() if value}


@pytest.mark.parametrize("format", KEPT)
def test_every_format_keeps_what_it_can_and_says_the_rest(format, caplog):
    source = read_picture(sample("jpeg-full"), name="photo.jpg")
    data = encode_picture(source, format)
    kept, gone = KEPT[format]
    assert found_in(data) == {*kept.split()}
    said = [message.partition("cannot hold its ")[2] for message in caplog.messages]
    assert said == ([f"{gone}: left out"] if gone else [])


def test_stripped_pictures_keep_nothing(caplog):
    source = strip_metadata(read_picture(sample("jpeg-full")))
    assert source.metadata == Metadata()
    for format in KEPT:
        data = encode_picture(source, format)
        assert not found_in(data) - ({"dpi"} if format == "bmp" else set())  # it has to
        for word in (b"Works", b"Waves", b"xmpmeta", b"2020:01:02"):
            assert word not in data
    assert not caplog.messages


@pytest.mark.parametrize(
    ("format", "big"),
    [("jpg", False), ("png", False), ("tiff", False), ("tiff", True), ("avif", False)],
)
def test_camera_and_place_are_kept(format, big, monkeypatch):
    """All that EXIF says, two directories below its first one among it."""
    if big:
        monkeypatch.setattr("srcli.imaging.tiff.write._CLASSIC_END", 0)
    source = save(make_planes(3), "jpeg", exif=make_rich_exif(6))
    data = encode_picture(read_picture(source), format)
    expected, found = opened(source).getexif(), opened(data).getexif()
    for tag in (0x010F, 0x013B, 0x9C9B):
        assert found[tag] == expected[tag]
    for directory in (EXIF, GPS, INTEROP):
        nested = dict(found.get_ifd(directory))
        assert nested
        wanted = dict(expected.get_ifd(directory))
        # Its maker note Pillow hides in a TIFF; the next test looks. Where the third
        # directory lies is up to the file.
        hidden = {INTEROP, 0x927C} if format == "tiff" else {INTEROP}
        assert {k: v for k, v in nested.items() if k not in hidden} == {
            k: v for k, v in wanted.items() if k not in hidden
        }


@pytest.mark.parametrize(("big", "dtype"), [(False, np.uint8), (True, np.float32)])
def test_tags_of_a_tiff_as_another_reader_has_them(big, dtype, monkeypatch):
    if big:
        monkeypatch.setattr("srcli.imaging.tiff.write._CLASSIC_END", 0)
    source = read_picture(sample("jpeg-full"))
    odd = replace(source.metadata, xmp=XMP + b" " * (len(XMP) % 2 == 0), size=None)
    planes = make_planes(3, dtype)
    data = encode_picture(Picture(planes, None, odd), "tiff")
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.is_bigtiff == big
        (page,) = tiff.pages
        tags = {tag.code: tag.value for tag in page.tags.values()}
        kinds = {tag.code: tag.dtype.name for tag in page.tags.values()}
        assert (page.asarray() == planes).all()
    assert sorted(tags) == list(tags)  # as TIFF 6.0, section 2, demands
    camera, place = tags[EXIF], tags[GPS]
    assert camera["MakerNote"] == b"maker note, odd"
    assert camera["ExifVersion"] == "0230"
    assert camera["ExposureTime"] == pytest.approx(1 / 125)
    assert camera["ISOSpeedRatings"] == 400
    assert camera["UserComment"] == "hello"
    assert place["GPSLatitude"] == (52, 1, 31, 1, 25, 2)
    assert (place["GPSLatitudeRef"], place["GPSAltitude"]) == ("N", (69, 2))
    assert tags[0x9C9B] == "title".encode("utf-16-le") + bytes(2)
    assert (kinds[0x9C9B], kinds[700], kinds[0x010F]) == ("BYTE", "BYTE", "ASCII")
    assert b'tiff:Orientation="1" tiff:ImageWidth="32"' in tags[700]
    assert len(tags[700]) % 2 == 1
    assert tags[34675] == srgb_profile()
    assert tags[282] == (300, 1)
    assert b"Waves" in tags[33723]
    assert make_iptc() == tags[34377]


def test_iptc_goes_from_jpeg_to_tiff_and_back():
    photo = read_picture(save(make_planes(3), "jpeg", extra=jpeg_segment(make_iptc())))
    again = read_picture(encode_picture(photo, "jpg"))
    there = read_picture(encode_picture(photo, "tiff"))
    back = opened(encode_picture(there, "jpg"))
    assert photo.metadata == again.metadata == there.metadata
    assert back.info["photoshop"] == {0x0404: make_iptc()[12:].rstrip(b"\x00")}


# Broken, or said in odd ways

GARBAGE = {
    "nonsense": b"garbage garbage",
    "short": b"II",
    "cut off": b"II*\x00\x08\x00\x00\x00\xff\xff",
    "big": b"II+\x00\x08\x00\x00\x00" + bytes(8),
    "pointing far": b"II*\x00\x08\x00\x00\x00\x01\x00"
    + struct.pack("<HHIII", 0x8769, 4, 1, 1 << 31, 0),
    "pointing to text": b"II*\x00\x08\x00\x00\x00\x01\x00"
    + struct.pack("<HHI4sI", 0x8769, 2, 4, b"abc", 0),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_broken_exif_is_said_and_left_out(garbage, caplog):
    if len(garbage) % 2:
        data = png_of(make_planes(3), before=chunk(b"eXIf", garbage))
    else:
        data = save(make_planes(3), "jpeg", exif=b"Exif\x00\x00" + garbage)
    result = read_picture(data, name="old.jpg")
    assert result.metadata.exif is None
    assert caplog.messages == ["old.jpg: its EXIF cannot be read: left out"]
    assert probe_picture(data).width == 32


@pytest.mark.parametrize("format", ["jpg", "tiff"])
def test_exif_that_goes_round_in_circles(format):
    circle = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00"
    circle += struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    circle += struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    source = read_picture(save(make_planes(3), "jpeg", exif=circle))
    assert (source.width, source.height) == (24, 32)
    assert opened(encode_picture(source, format)).getexif().get(0x0112, 1) == 1


def test_tags_of_surprising_types_do_no_harm():
    for tag in (
        (0x010F, 3, 1, 5, True),  # the maker as a number
        (0x013B, 3, 2, (5, 6), True),
        (0x0112, 2, 4, b"six", True),
        (0x0112, 3, 1, 99, True),
        (700, 4, 2, (1, 2), True),
        (34675, 2, 4, b"icc", True),
        (34675, 7, 0, b"", True),
        (33723, 4, 2, (1, 2), True),
        (34377, 7, 5, b"8BIM\x04", True),
        (0x8825, 4, 1, 1 << 30, True),
        (0x8769, 2, 4, b"abc", True),
    ):
        data = save_tiff(make_planes(3), photometric="rgb", extratags=[tag])
        source = read_picture(data)
        assert (source.pixels == make_planes(3)).all()
        for format in ("tiff", "png"):
            again = read_picture(encode_picture(source, format))
            assert (again.pixels == source.pixels).all()


@pytest.mark.parametrize("dpi", [(0, 300), (1, 1), (1e9, 300)])
def test_resolutions_that_cannot_be_meant_are_left_out(dpi):
    options = {"resolution": dpi, "resolutionunit": 2}
    data = save_tiff(make_planes(3), photometric="rgb", **options)
    source = read_picture(data)
    assert source.metadata.dpi is None
    encode_picture(source, "png")


@pytest.mark.parametrize("exif", [make_exif(), make_rich_exif()])
def test_a_jpeg_that_says_no_resolution_gets_none(exif):
    # Pillow makes up 72.
    assert read_picture(save(make_planes(3), "jpeg", exif=exif)).metadata.dpi is None


@pytest.mark.parametrize("kind", [b"link", bytes(4)])
def test_profiles_of_another_class_are_left_out(kind, caplog):
    icc = bytearray(srgb_profile())
    icc[12:16] = kind
    data = save(make_planes(3), "jpeg", icc_profile=bytes(icc))
    assert read_picture(data, name="a.jpg").metadata.icc is None
    assert caplog.messages == [
        "a.jpg: its colour profile does not fit its pixels: left out"
    ]


def test_xmp_may_say_the_orientation():
    for data in (
        save(make_planes(3), "jpeg", xmp=XMP),
        png_of(
            make_planes(3), before=chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP)
        ),
    ):
        info, source = probe_picture(data), read_picture(data)
        assert (info.width, info.height) == (source.width, source.height) == (24, 32)


# Resolutions


def density_of(data, format):
    """Pixels per inch of a file as the format's own header says them, and the unit."""
    if format == "jpg":
        unit, x, y = struct.unpack_from(">BHH", data, 13)
    elif format == "png":
        x, y, unit = struct.unpack_from(">IIB", data, data.index(b"pHYs") + 4)
    elif format == "bmp":
        (x, y), unit = struct.unpack_from("<ii", data, 38), 1
    elif format == "tiff":
        tags = tifffile.TiffFile(io.BytesIO(data)).pages[0].tags
        x, y = (tags[code].value[0] / tags[code].value[1] for code in (282, 283))
        unit = int(tags[296].value) - 1
    else:
        exif = opened(data).getexif()
        x, y, unit = exif[282], exif[283], exif[296] - 1
    metres = {"png": (0, 0.0254), "bmp": (0, 0.0254)}.get(format, (0, 1, 2.54))[unit]
    return (float(x) * metres, float(y) * metres) if unit else (x, y, "none")


FORMATS = ("jpg", "png", "bmp", "tiff", "webp", "avif")
# As a slide scanner says it, as fractions, and what JFIF cannot say.
SLIDE = (40_000, 40_000), 3, (101_600, 101_600)
OTHERS = [
    ((118.11, 59.055), 3, (300, 150)),
    ((1.4, 1.4), 2, (1.4, 1.4)),
    ((1_000_001, 500_000), 2, (1_000_001, 500_000)),
]


@pytest.mark.parametrize(
    ("number", "unit", "expected", "format"),
    [*((*SLIDE, format) for format in FORMATS), *((*each, "jpg") for each in OTHERS)],
)
def test_resolutions_reach_every_format(number, unit, expected, format, caplog):
    planes = make_planes(3)
    data = save_tiff(planes, photometric="rgb", resolution=number, resolutionunit=unit)
    found = encode_picture(read_picture(data), format)
    if format == "jpg" and expected[0] in (1.4, 1_000_001):  # no whole number there
        found, format = encode_picture(read_picture(found), "webp"), "webp"
    assert density_of(found, format) == pytest.approx(expected, rel=0.005)
    assert not caplog.messages


RATIOS = [("png", "png"), ("png", "webp"), ("jpeg", "png"), ("tiff", "jpg")]


@pytest.mark.parametrize(("kind", "format"), RATIOS)
def test_a_ratio_without_a_unit_is_kept_or_missed(kind, format, caplog):
    planes = make_planes(3)
    if kind == "png":
        data = png_of(planes, before=chunk(b"pHYs", struct.pack(">IIB", 3, 2, 0)))
    elif kind == "jpeg":
        data = bytearray(save(planes, "jpeg"))
        struct.pack_into(">BHH", data, 13, 0, 3, 2)
        data = bytes(data)
    else:
        data = save_tiff(
            planes, photometric="rgb", resolution=(3, 2), resolutionunit="NONE"
        )
    found = encode_picture(read_picture(data), format)
    if format in ("jpg", "png", "tiff"):
        x, y, unit = density_of(found, format)
        assert (x / y, unit) == (1.5, "none")
        assert not caplog.messages
    else:
        (said,) = caplog.messages
        assert said.endswith("cannot hold its pixel aspect ratio: left out")


@pytest.mark.parametrize(("format", "unit"), [("jpeg", 3), ("webp", 2)])
def test_resolution_that_only_exif_says(format, unit):
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 200, 100, unit
    source = read_picture(save(make_planes(3), format, exif=exif))
    factor = 2.54 if unit == 3 else 1
    assert source.metadata.dpi == pytest.approx((200 * factor, 100 * factor))
    found = density_of(encode_picture(source, "png"), "png")
    assert found == pytest.approx((200 * factor, 100 * factor), rel=1e-3)


def test_exif_does_not_contradict_the_header():
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 72, 72, 2
    source = read_picture(save(make_planes(3), "jpeg", exif=exif, dpi=(300, 300)))
    data = encode_picture(source, "jpg")
    assert density_of(data, "jpg") == density_of(data, "webp") == (300, 300)


def test_resolution_turns_with_the_picture():
    orientation = 6
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for format in ("jpeg", "png", "tiff"):
        data = save(make_planes(3), format, exif=exif, dpi=(300, 100))
        x, y = read_picture(data).metadata.dpi
        assert (round(x), round(y)) == (100, 300)
