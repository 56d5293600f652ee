"""Metadata: all that a picture says beside its pixels comes along, or it is said."""

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from sample_files import XMP, make_exif, opened, save, srgb_profile

from srcli.imaging.files import (
    Metadata,
    Picture,
    encode_picture,
    probe_picture,
    read_picture,
)
from srcli.imaging.opened import format_name

EXIF, GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo


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
    icc = srgb_profile()
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
