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
    jpeg_segment,
    make_exif,
    make_iptc,
    make_planes,
    make_rich_exif,
    opened,
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


TURNED = [("jpeg", orientation) for orientation in range(1, 9)]
TURNED += [
    (format, turn) for format in ("png", "webp", "tiff", "avif") for turn in (3, 6)
]


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


# Everything at once, into every format

KEPT = {
    "png": {"icc", "exif", "xmp", "dpi"},
    "jpg": {"icc", "exif", "xmp", "dpi", "iptc", "comment"},
    "webp": {"icc", "exif", "xmp"},
    "tiff": {"icc", "exif", "xmp", "dpi", "iptc"},
    "bmp": {"dpi"},
    "avif": {"icc", "exif", "xmp"},
}
SAID = {
    "png": "PNG cannot hold its IPTC and comment: left out",
    "jpg": None,
    "webp": "WebP cannot hold its IPTC and comment: left out",
    "tiff": "TIFF cannot hold its comment: left out",
    "bmp": "BMP cannot hold its colour profile and EXIF and XMP and IPTC and comment: "
    "left out",
    "avif": "AVIF cannot hold its IPTC and comment: left out",
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
    assert found_in(data) == KEPT[format]
    said = [] if SAID[format] is None else [f"the picture: {SAID[format]}"]
    assert caplog.messages == said


@pytest.mark.parametrize("format", KEPT)
def test_stripped_pictures_keep_nothing(format, caplog):
    source = strip_metadata(read_picture(sample("jpeg-full")))
    assert source.metadata == Metadata()
    data = encode_picture(source, format)
    assert not found_in(data) - ({"dpi"} if format == "bmp" else set())  # it has to
    for word in (b"Works", b"Waves", b"xmpmeta", b"2020:01:02"):
        assert word not in data
    assert not caplog.messages


@pytest.mark.parametrize("format", ["jpg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("big", [False, True])
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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("big", [False, True])
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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_a_tiff_says_reaches_every_format(dtype):
    """Of TIFFs that Pillow reads, and of those that another library does."""
    source = read_picture(sample("jpeg-full"))
    tiff = read_picture(
        encode_picture(Picture(make_planes(3, dtype), None, source.metadata), "tiff")
    )
    for format in ("jpg", "png", "webp", "avif", "tiff"):
        flat = Picture(make_planes(3), None, tiff.metadata)
        data = encode_picture(flat, format)
        assert found_in(data) == KEPT[format] - {"comment"}
        exif = opened(data).getexif()
        assert exif[0x010F] == "Works"
        assert exif.get_ifd(GPS)[2] == (52, 31, 12.5)
        assert exif.get_ifd(EXIF)[0x9003] == "2020:01:02 03:04:05"


def test_iptc_goes_from_jpeg_to_tiff_and_back():
    photo = read_picture(save(make_planes(3), "jpeg", extra=jpeg_segment(make_iptc())))
    again = read_picture(encode_picture(photo, "jpg"))
    there = read_picture(encode_picture(photo, "tiff"))
    back = opened(encode_picture(there, "jpg"))
    assert photo.metadata == again.metadata == there.metadata
    assert back.info["photoshop"] == {0x0404: make_iptc()[12:].rstrip(b"\x00")}


def test_iptc_of_a_tiff_alone():
    """As some programs keep it: without Photoshop's block around it."""
    data = make_iptc(b"odd")[12:]
    tiff = save_tiff(
        make_planes(3), photometric="rgb", extratags=[(33723, 7, len(data), data, True)]
    )
    jpeg = opened(encode_picture(read_picture(tiff), "jpg"))
    assert jpeg.info["photoshop"][0x0404] == data


def test_layers_and_paths_of_photoshop_are_left_out():
    other = struct.pack(">4sH6sI", b"8BIM", 0x07D0, b"\x04path\x00", 3) + b"abc\x00"
    photo = save(make_planes(3), "jpeg", extra=jpeg_segment(other + make_iptc()))
    assert read_picture(photo).metadata.iptc == make_iptc()
