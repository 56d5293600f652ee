"""Files of several frames or pages: one is chosen, and never taken by chance."""

import io
import struct

import numpy as np
import pytest
import tifffile
from exact import check
from PIL import Image
from sample_files import (
    chunk,
    make_planes,
    make_tiff,
    png_of,
    sample,
    save,
    save_tiff,
)

from srcli.errors import InputError
from srcli.imaging.files import probe_picture, read_picture

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


@pytest.mark.parametrize("name", ["apng", "webp-animated", "tiff-pages"])
def test_the_chosen_frame_is_read_exactly(name):
    expected = (FIRST, FIRST if name == "tiff-pages" else SECOND)
    for frame in (1, 2):
        check(sample(name), expected[frame - 1], frame=frame)


@pytest.mark.parametrize("name", ["gif-animated", "avif-animated"])
def test_the_chosen_frame_is_read(name):
    for frame, expected in ((1, FIRST), (2, SECOND)):
        result = read_picture(sample(name), frame=frame)
        assert np.abs(result.pixels.astype(int) - expected).mean() < 16


def test_pages_may_differ_in_every_respect():
    buffer = io.BytesIO()
    pages = [
        make_planes(3),
        make_planes(1, np.uint16)[:10],
        make_planes(4, np.float32)[:, :9],
        make_planes(4)[:7],
    ]
    with tifffile.TiffWriter(buffer) as writer:
        for planes in pages:
            rgb = planes.shape[2] > 1
            writer.write(
                planes if rgb else planes[:, :, 0],
                photometric="rgb" if rgb else "minisblack",
                extrasamples=["unassalpha"] if planes.shape[2] == 4 else None,
                metadata=None,
            )
    for number, planes in enumerate(pages, 1):
        check(buffer.getvalue(), planes, frame=number)


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
    ("order", "kind", "dtype"),
    [
        ("before", 1, np.uint16),
        ("behind", 4, np.uint8),
    ],
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


def test_frames_of_a_gif_that_outgrow_it():
    """A frame may be larger than the screen that the header claims."""
    data = bytearray(sample("gif-animated"))
    struct.pack_into("<HH", data, 6, 5, 4)
    for frame in (1, 2):
        info = probe_picture(bytes(data), frame=frame)
        result = read_picture(bytes(data), frame=frame)
        assert (info.width, info.height) == (result.width, result.height)
