"""Colour profiles: CMYK is converted, and other colours once they are stripped."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from sample_files import chunk, make_planes, png_of, save, save_tiff, srgb_profile

from srcli.imaging.files import (
    Metadata,
    Picture,
    encode_picture,
    read_picture,
    strip_metadata,
)


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
    tags = {b"desc": words + text, b"cprt": words + text, b"wtpt": white, b"A2B0": lut}
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


@pytest.mark.parametrize(
    ("kind", "dtype"), [("wide", np.uint8), ("grey", np.uint16), ("linear", np.float32)]
)
def test_stripped_colours_are_srgb(kind, dtype):
    icc, alpha = PROFILES[kind](), dtype != np.uint8
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


def test_srgb_is_left_as_it_is():
    planes = make_planes(3, np.uint16)
    for icc in (srgb_profile(), imagecodecs.cms_profile("srgb"), None):
        result = strip_metadata(Picture(planes, None, Metadata(icc=icc)))
        assert result.pixels is planes
        assert result.metadata == Metadata()


def test_unusable_profile_is_said_once_stripped(caplog):
    icc = PROFILES["wide"]()[:140]
    picture = Picture(make_planes(3), None, Metadata(icc=icc))
    result = strip_metadata(picture, "a.png")
    assert result.pixels is picture.pixels
    assert result.metadata == Metadata()
    assert caplog.messages == ["a.png: its colour profile cannot be used: left out"]


# Colours that no profile says

# To linear sRGB: Adobe RGB (1998) through XYZ, both with the white D65, by the matrices
# of Adobe's specification (4.3.5.3) and of IEC 61966-2-1; the others as CSS Color 4 and
# ITU-R BT.2087 give them.
ADOBE = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
) @ [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]  # noqa: E501 # fmt: skip
P3 = [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
BT2020 = [
    [1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187],
]  # fmt: skip


def encode(linear):
    """The curve of sRGB, in parts of white: IEC 61966-2-1."""
    linear = np.asarray(linear).clip(0, 1)
    return np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )


def decode(levels):
    """`encode` backwards."""
    return np.where(
        levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4
    )


def in_parts(planes):
    return planes / (1 if planes.dtype == np.float32 else np.iinfo(planes.dtype).max)


def camera_exif(space=65535, index="R03"):
    exif = Image.Exif()
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    if space is not None:
        camera[0xA001] = space
    if index is not None:
        camera[0xA005] = {1: index, 2: b"0100"}
    return exif


@pytest.mark.parametrize(
    ("said", "dtype"),
    [((65535, "R03"), np.uint8), ((None, "R03"), np.float32), ((2, None), np.uint16)],
)
def test_adobe_rgb_of_a_camera_is_converted_once_stripped(said, dtype):
    planes = make_planes(3, dtype)
    exif = camera_exif(*said)
    if dtype == np.float32:
        file = encode_picture(
            Picture(planes, None, Metadata(exif=exif.tobytes())), "tiff"
        )
    else:
        file = png_of(planes, before=chunk(b"eXIf", exif.tobytes()[6:]))
    result = strip_metadata(read_picture(file))
    expected = encode(in_parts(planes) ** 2.19921875 @ ADOBE.T)
    assert np.abs(in_parts(result.pixels).clip(0, 1) - expected).max() < 1.1 / 255
    assert result.metadata == Metadata()
    assert np.abs(expected - in_parts(planes)).max() > 0.05


@pytest.mark.parametrize("said", [(1, "R03"), (65535, "R98"), (65535, None)])
def test_other_cameras_mean_srgb(said):
    data = save(make_planes(3), "jpeg", exif=camera_exif(*said))
    source = read_picture(data)
    assert strip_metadata(source).pixels is source.pixels


def test_adobe_rgb_of_a_camera_is_kept_as_it_is_said(caplog):
    data = save(make_planes(3), "jpeg", exif=camera_exif())
    source = read_picture(data)
    for format in ("jpg", "png", "webp", "tiff", "avif"):
        exif = Image.open(io.BytesIO(encode_picture(source, format))).getexif()
        assert exif.get_ifd(ExifTags.IFD.Exif)[0xA001] == 65535
        assert exif.get_ifd(ExifTags.IFD.Interop)[1] == "R03"
    assert not caplog.messages
    encode_picture(source, "bmp")
    assert caplog.messages == [
        "the picture: BMP cannot hold its EXIF and colour space: left out"
    ]


def primaries(*numbers):
    return chunk(b"cHRM", struct.pack(">8I", *(round(n * 1e5) for n in numbers)))


def gamma(exponent):
    return chunk(b"gAMA", struct.pack(">I", round(exponent * 1e5)))


WIDE = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
SAID = {
    "linear": (gamma(1), lambda levels: levels),
    "gamma 1.8": (gamma(1 / 1.8), lambda levels: levels**1.8),
    "linear, wide": (gamma(1) + primaries(*WIDE), lambda levels: levels @ ADOBE.T),
    "Display P3": (
        chunk(b"cICP", bytes((12, 13, 0, 1))),
        lambda levels: decode(levels) @ np.transpose(P3),
    ),
    "BT.2020, linear": (
        chunk(b"cICP", bytes((9, 8, 0, 1))),
        lambda levels: levels @ np.transpose(BT2020),
    ),
    "code points before gamma": (
        chunk(b"cICP", bytes((1, 8, 0, 1))) + gamma(1 / 1.8),
        lambda levels: levels,
    ),
}


@pytest.mark.parametrize("kind", SAID)
def test_colours_that_chunks_say(kind):
    """Converted once stripped, and a profile where the format has no such chunks."""
    said, linear = SAID[kind]
    dtype = np.uint16 if "linear" in kind else np.uint8
    planes = make_planes(3, dtype)
    source = read_picture(png_of(planes, before=said))
    expected = encode(linear(in_parts(planes)))
    result = strip_metadata(source)
    assert result.metadata == Metadata()
    assert np.abs(in_parts(result.pixels) - expected).max() < 1.1 / 255
    again = strip_metadata(read_picture(encode_picture(source, "tiff")))
    assert (again.pixels == result.pixels).all()


PLAIN = {
    "gamma": gamma(0.45455),
    "sRGB": chunk(b"sRGB", b"\0") + gamma(1),
    "code points": chunk(b"cICP", bytes((1, 1, 0, 1))),
}


@pytest.mark.parametrize("said", PLAIN.values(), ids=PLAIN)
def test_chunks_that_mean_srgb_change_nothing(said):
    source = read_picture(png_of(make_planes(3), before=said))
    assert strip_metadata(source).pixels is source.pixels


def test_display_p3_of_an_avif_reaches_a_jpeg(caplog):
    levels = make_planes(3)
    wide = imagecodecs.avif_encode(
        levels, level=100, speed=10, primaries=12, transfer=13, matrix=0
    )
    result = read_picture(encode_picture(read_picture(wide), "jpg", quality=100))
    expected = encode(decode(in_parts(levels)) @ np.transpose(P3))
    found = in_parts(strip_metadata(result).pixels)
    assert np.abs(found - expected).mean() < 2 / 255
    assert not caplog.messages
