"""Metadata that is broken or said in odd ways does no harm to the picture."""

import struct

import numpy as np
import pytest
from PIL import ExifTags
from sample_files import (
    XMP,
    chunk,
    make_exif,
    make_planes,
    make_rich_exif,
    opened,
    png_of,
    save,
    save_tiff,
    srgb_profile,
)

from srcli.imaging.files import (
    encode_picture,
    probe_picture,
    read_picture,
)

EXIF, GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo


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
@pytest.mark.parametrize("format", ["jpeg", "png", "png-16", "webp"])
def test_broken_exif_is_said_and_left_out(format, garbage, caplog):
    if format.startswith("png"):
        dtype = np.uint16 if format == "png-16" else np.uint8
        data = png_of(make_planes(3, dtype), before=chunk(b"eXIf", garbage))
    else:
        data = save(make_planes(3), format, exif=b"Exif\x00\x00" + garbage)
    result = read_picture(data, name="old.jpg")
    assert result.metadata.exif is None
    assert caplog.messages == ["old.jpg: its EXIF cannot be read: left out"]
    assert probe_picture(data).width == 32


@pytest.mark.parametrize("format", ["jpg", "tiff", "avif", "webp", "png"])
def test_exif_that_goes_round_in_circles(format):
    circle = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00"
    circle += struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    circle += struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    source = read_picture(save(make_planes(3), "jpeg", exif=circle))
    assert (source.width, source.height) == (24, 32)
    assert opened(encode_picture(source, format)).getexif().get(0x0112, 1) == 1


def test_pointers_of_their_own_type_are_followed():
    exif = bytearray(make_exif(6))
    at = exif.index(struct.pack("<HHI", 0x8769, 4, 1))
    exif[at + 2 : at + 4] = struct.pack("<H", 13)  # IFD, of TIFF's supplement
    source = read_picture(save(make_planes(3), "jpeg", exif=bytes(exif)))
    found = opened(encode_picture(source, "jpg")).getexif()
    assert found.get_ifd(EXIF)[0xA002] == 24


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "tag",
    [
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
    ],
    ids=str,
)
def test_tags_of_surprising_types_do_no_harm(tag, dtype):
    data = save_tiff(make_planes(3, dtype), photometric="rgb", extratags=[tag])
    source = read_picture(data)
    assert (source.pixels == make_planes(3, dtype)).all()
    for format in ("tiff", "png"):
        again = read_picture(encode_picture(source, format))
        assert (again.pixels == source.pixels).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("dpi", [(0, 0), (0, 300), (1, 1), (1e9, 300)])
def test_resolutions_that_cannot_be_meant_are_left_out(dpi, dtype):
    data = save_tiff(
        make_planes(3, dtype), photometric="rgb", resolution=dpi, resolutionunit=2
    )
    source = read_picture(data)
    assert source.metadata.dpi is None
    encode_picture(source, "png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resolution_in_centimetres(dtype):
    data = save_tiff(
        make_planes(3, dtype), photometric="rgb", resolution=(118, 59), resolutionunit=3
    )
    assert read_picture(data).metadata.dpi == pytest.approx((299.72, 149.86))


@pytest.mark.parametrize("exif", [make_exif(), make_rich_exif()])
def test_a_jpeg_that_says_no_resolution_gets_none(exif):
    # Pillow makes up 72.
    assert read_picture(save(make_planes(3), "jpeg", exif=exif)).metadata.dpi is None


@pytest.mark.parametrize("kind", [b"link", b"abst", b"nmcl", bytes(4)])
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
            make_planes(3),
            before=chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP),
        ),
    ):
        info, source = probe_picture(data), read_picture(data)
        assert (info.width, info.height) == (source.width, source.height) == (24, 32)
