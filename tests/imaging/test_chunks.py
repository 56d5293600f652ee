"""PNG files: what their chunks say comes along, wherever these stand."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from sample_files import (
    XMP,
    chunk,
    make_planes,
    make_rich_exif,
    opened,
    png_of,
    sample,
    srgb_profile,
)

from srcli.imaging.files import (
    encode_picture,
    probe_picture,
    read_picture,
    strip_metadata,
)

TEXTS = (
    (b"tEXt", b"Title\x00Waves"),
    (b"zTXt", b"Comment\x00\x00" + zlib.compress(b"deflated")),
    (b"iTXt", b"Author\x00\x00\x00de\x00Autor\x00Ren\xc3\xa9"),
)


def chunks_of(data):
    """The chunks of a PNG beside its pixels."""
    found, position = [], 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        found.append((kind, data[position + 8 : position + 8 + length]))
        position += length + 12
    return [chunk for chunk in found if chunk[0] not in (b"IHDR", b"IDAT", b"IEND")]


@pytest.mark.parametrize(
    ("dtype", "place"), [(np.uint8, "after"), (np.uint16, "before")]
)
def test_texts_of_a_png_are_kept(place, dtype, caplog):
    said = b"".join(chunk(*text) for text in TEXTS)
    source = read_picture(png_of(make_planes(3, dtype), **{place: said}))
    assert chunks_of(encode_picture(source, "png")) == list(TEXTS)
    tiff = encode_picture(source, "tiff")
    assert b"Waves" not in tiff
    assert caplog.messages == ["the picture: TIFF cannot hold its texts: left out"]


COLOURS = {
    "primaries": [(b"cHRM", struct.pack(">8I", *range(8))), (b"gAMA", bytes(4))],
    "code points": [(b"cICP", bytes((9, 16, 0, 1)))],
}


@pytest.mark.parametrize("colours", COLOURS.values(), ids=COLOURS)
def test_how_a_png_means_its_colours_is_kept(colours, caplog):
    dtype = np.uint16 if colours == COLOURS["code points"] else np.uint8
    said = b"".join(chunk(*colour) for colour in colours)
    source = read_picture(png_of(make_planes(3, dtype), before=said))
    assert chunks_of(encode_picture(source, "png")) == colours
    assert chunks_of(encode_picture(strip_metadata(source), "png")) == colours
    encode_picture(source, "tiff")
    assert caplog.messages == [
        "the picture: TIFF cannot hold its colour space: left out"
    ]


def test_a_profile_overrules_the_colours_of_a_png():
    said = chunk(b"gAMA", bytes(4)) + chunk(b"tEXt", b"Title\x00Waves")
    icc = chunk(b"iCCP", b"any\x00\x00" + zlib.compress(srgb_profile()))
    source = read_picture(png_of(make_planes(3), before=icc + said))
    kinds = [kind for kind, _ in chunks_of(encode_picture(source, "png"))]
    assert sorted(kinds) == [b"iCCP", b"tEXt"]


def test_srgb_is_not_missed(caplog):
    said = chunk(b"sRGB", b"\x00")
    source = read_picture(png_of(make_planes(3), before=said))
    encode_picture(source, "jpg")
    assert not caplog.messages


def test_code_points_of_an_avif_reach_a_png():
    wide = imagecodecs.avif_encode(
        make_planes(3, np.uint16) >> 6,
        level=100,
        speed=10,
        bitspersample=10,
        primaries=9,
        transfer=16,
        matrix=0,
    )
    source = read_picture(wide)
    assert chunks_of(encode_picture(source, "png")) == [(b"cICP", bytes((9, 16, 0, 1)))]
    plain = read_picture(sample("avif"))
    assert not [kind for kind, _ in plain.metadata.chunks]


@pytest.mark.parametrize(
    ("dtype", "place"), [(np.uint16, "after"), (np.uint8, "before")]
)
def test_exif_of_a_png_is_found_wherever_it_stands(place, dtype):
    said = chunk(b"eXIf", make_rich_exif(6)[6:])
    said += chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP)
    said += chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1))
    data = png_of(make_planes(3, dtype), **{place: said})
    info, source = probe_picture(data), read_picture(data)
    assert (info.width, info.height) == (source.width, source.height) == (24, 32)
    assert source.metadata.exif
    assert b'Orientation="1"' in source.metadata.xmp
    assert [round(value) for value in source.metadata.dpi] == [150, 300]  # turned


def test_exif_in_the_text_of_an_old_png():
    blob = make_rich_exif(6).hex()
    text = f"\nexif\n{len(blob) // 2:8}\n{blob}\n".encode()
    said = chunk(b"zTXt", b"Raw profile type exif\x00\x00" + zlib.compress(text))
    source = read_picture(png_of(make_planes(3), after=said))
    assert (source.width, source.height) == (24, 32)
    again = opened(encode_picture(source, "png"))
    assert again.getexif()[0x010F] == "Works"
    assert [kind for kind, _ in source.metadata.chunks] == []
