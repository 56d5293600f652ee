"""Colour profiles: CMYK is converted, and other colours once they are stripped."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms
from sample_files import make_planes, save, save_tiff, srgb_profile

from srcli.imaging.files import Metadata, Picture, read_picture, strip_metadata


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


def test_deep_cmyk_goes_through_its_profile_as_flat_does():
    icc = make_cmyk_profile(paper=(90, 0, 0), cyan=(53, 80, 67))
    ink = np.tile(make_planes(4), (12, 1, 1))  # 288 rows: more than one band
    flat = read_picture(save(Image.fromarray(ink, "CMYK"), "tiff", icc_profile=icc))
    deep = save_tiff(
        ink.astype(np.uint16) * 257,
        photometric="separated",
        planarconfig="contig",
        iccprofile=icc,
    )
    result = read_picture(deep)
    assert result.pixels.dtype == np.uint16
    assert np.abs(result.pixels / 257 - flat.pixels).max() <= 1
    assert result.metadata.icc is None


def test_lab_becomes_rgb():
    lab = Image.new("LAB", (3, 2), (138, 208, 195))  # L* 54, a* 80, b* 67
    result = read_picture(save(lab, "tiff"))
    red, green, blue = result.pixels[0, 0].tolist()
    assert red > 245
    assert max(green, blue) < 25


# Stripped

PROFILES = {
    "wide": lambda: imagecodecs.cms_profile("adobergb"),
    "linear": lambda: imagecodecs.cms_profile(
        "rgb",
        whitepoint=(0.3127, 0.3290, 1.0),
        primaries=(0.64, 0.33, 1, 0.3, 0.6, 1, 0.15, 0.06, 1),
        gamma=1.0,
    ),
    "grey": lambda: imagecodecs.cms_profile("gray", gamma=1.8),
}


def in_srgb(planes, icc):
    """8 bits converted by Pillow's colour management."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    image = Image.fromarray(planes.squeeze())
    converted = ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return np.asarray(converted)[:, :, : planes.shape[2]].astype(float)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("kind", PROFILES)
def test_stripped_colours_are_srgb(kind, dtype, alpha):
    icc = PROFILES[kind]()
    channels = 1 if kind == "grey" else 3
    flat = np.tile(make_planes(channels), (12, 1, 1))  # more than one band
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    planes = (flat / 255 * peak).astype(dtype) if peak != 255 else flat
    opacity = planes[:, :, 0] if alpha else None
    source = Picture(planes, opacity, Metadata(icc=icc, comment=b"x"), "tiff")
    result = strip_metadata(source)
    assert result.metadata == Metadata()
    assert result.alpha is opacity
    assert result.format == "tiff"
    assert result.pixels.dtype == dtype
    assert result.pixels.shape == planes.shape
    expected = in_srgb(flat, icc)
    assert np.abs(expected - flat).max() > 10
    levels = (result.pixels * (255 / peak)).clip(0, 255)
    assert np.abs(levels - expected).max() <= 1


def test_colours_that_srgb_lacks_are_kept_in_floating_point():
    green = np.array([[[0, 1, 0]]], np.float32)
    icc = PROFILES["wide"]()
    result = strip_metadata(Picture(green, None, Metadata(icc=icc)))
    assert result.pixels[0, 0, 0] < -0.1
    bright = strip_metadata(
        Picture(green * 4, None, Metadata(icc=PROFILES["linear"]()))
    )
    assert bright.pixels[0, 0, 1] > 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_srgb_is_left_as_it_is(dtype):
    planes = make_planes(3, dtype)
    for icc in (srgb_profile(), imagecodecs.cms_profile("srgb"), None):
        result = strip_metadata(Picture(planes, None, Metadata(icc=icc)))
        assert result.pixels is planes
        assert result.metadata == Metadata()


@pytest.mark.parametrize("length", [128, 140, 300])
def test_unusable_profile_is_said_once_stripped(length, caplog):
    icc = PROFILES["wide"]()[:length]
    picture = Picture(make_planes(3), None, Metadata(icc=icc))
    result = strip_metadata(picture, "a.png")
    assert result.pixels is picture.pixels
    assert result.metadata == Metadata()
    assert caplog.messages == ["a.png: its colour profile cannot be used: left out"]
