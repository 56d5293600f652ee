"""Colour profiles: CMYK is converted, and other colours once they are stripped."""

import struct

import numpy as np
from PIL import Image
from sample_files import save

from srcli.imaging.files import read_picture


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
