"""Hostile and broken files: a picture or one clear error, and bounded memory."""

import struct
import subprocess
import sys
import zlib
from functools import cache

import numpy as np
import pytest
from mutations import NAMES, fix_checksums, frame_of, look_into, put_number
from PIL import Image
from sample_files import chunk, make_planes, make_png, png_of, sample, save_tiff

from srcli.errors import InputError
from srcli.imaging.files import read_picture

MEGABYTES = 400  # that reading a hostile file may take beside the program


@pytest.mark.parametrize("name", NAMES)
def test_files_cut_off_anywhere(name, caplog):
    data = sample(name)
    whole = look_into(data, name, frame_of(name))
    for end in (*(len(data) * part // 16 for part in range(16)), len(data) - 1):
        caplog.clear()
        picture = look_into(data[:end], name, frame_of(name))
        if picture is None:
            continue
        # What is behind the pixels may be missing, but none of them.
        if picture.height == whole.height:
            assert (picture.pixels == whole.pixels).all()
        else:  # turned by EXIF that is gone
            assert "its metadata are damaged: some may be lost" in caplog.text
            pixels = picture.pixels
            views = [np.rot90(p, k) for p in (pixels, pixels[::-1]) for k in (1, 3)]
            assert any((view == whole.pixels).all() for view in views)


@pytest.mark.parametrize(
    "name", [f"tiff{kind}" for kind in ("", "-16-tiled", "-float", "-full", "-big")]
)
def test_every_entry_of_a_tiff_may_lie(name):
    """Counts, offsets and values of the first directory, one after the other."""
    data = sample(name)
    order, mark = ("<", "little") if data[:2] == b"II" else (">", "big")
    big = data[2:4] in (b"+\0", b"\0+")
    if big:
        (start,) = struct.unpack_from(f"{order}Q", data, 8)
        (count,) = struct.unpack_from(f"{order}Q", data, start)
        entries = [start + 8 + 20 * index for index in range(count)]
    else:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        entries = [start + 2 + 12 * index for index in range(count)]
    for entry in entries:
        for place, width in ((2, 2), (4, 4), (12 if big else 8, 4)):
            for number in (0, 3, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF):
                lie = number & (256**width - 1)
                look_into(
                    put_number(data, entry + place, lie, width, mark),
                    name,
                    frame_of(name),
                )


def test_a_damaged_tag_that_two_libraries_read_differently():
    data = sample("tiff-half")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        for kind in (0, 9, 127, 0x7F00):  # of the value; most are none
            look_into(put_number(data, entry + 2, kind, 2, "little"), "half.tif")
    # What the fuzz test has found: a directory that is shifted in part.
    shifted = put_number(data, 124, 127, 4, "big")
    look_into(shifted[:128] + shifted[128:163] + shifted[128:], "half.tif")


def test_directories_in_a_circle():
    data = bytearray(save_tiff(make_planes(3, np.uint16), photometric="rgb"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    assert look_into(bytes(data), "ring.tif") is not None  # one page, seen once


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0" * 5000, b"\x89PNG\r\n\x1a\n", b"II*\0"]
)
def test_next_to_nothing(data):
    assert not look_into(data, "nothing.png")


def test_a_wrong_suffix_is_no_lie_that_matters(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(sample("png-16"))
    assert read_picture(path).format == "png"


def test_a_header_that_promises_more_than_there_is():
    short = make_png(900, 700, 16, 2, b"\0" * 999)
    assert not look_into(short, "short.png")
    wide = png_of(make_planes(3, np.uint16))
    lying = fix_checksums(put_number(wide, 16, 5000, 4, "big"))
    assert not look_into(lying, "wide.png")


@cache
def zeros_of_300_megabytes():
    return zlib.compress(bytes(300_000_000), 1)


def bomb(name):
    """Files of a few kilobytes that ask for gigabytes."""
    if name == "claim-png":
        return make_png(30_000, 30_000, 8, 2, b"")
    if name == "claim-png-16":
        return make_png(22_000, 22_000, 16, 6, b"")
    if name == "claim-tiff":
        data = save_tiff(make_planes(3, np.uint16), photometric="rgb")
        (start,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            (tag,) = struct.unpack_from("<H", data, entry)
            if tag in (256, 257, 278):  # width, length, rows in a strip
                field = struct.pack("<HII", 4, 1, 20_000)
                data = data[: entry + 2] + field + data[entry + 12 :]
        return data
    if name == "claim-bmp":
        image = bytearray(sample("bmp"))
        struct.pack_into("<ii", image, 18, 20_000, 20_000)
        return bytes(image)
    if name == "strip-tiff":
        data = save_tiff(make_planes(1, np.uint16)[:, :, 0], compression="deflate")
        return _swap_strip(data)
    depth, kind = name.rpartition("-")[::2]
    planes = make_planes(3, np.uint16 if depth == "16" else np.uint8)
    zeros = zeros_of_300_megabytes()
    body = {
        "ztxt": chunk(b"zTXt", b"Comment\0\0" + zeros),
        "itxt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros),
        "iccp": chunk(b"iCCP", b"profile\0\0" + zeros),
    }[kind]
    data = png_of(planes)
    return data[:33] + body + data[33:]


def _swap_strip(data):
    """A TIFF whose only strip unpacks to 300 MB instead of a few kilobytes."""
    strip = zeros_of_300_megabytes()
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        (tag,) = struct.unpack_from("<H", data, entry)
        value = {273: len(data), 279: len(strip)}.get(tag)
        if value is not None:
            field = struct.pack("<HII", 4, 1, value)
            data = data[: entry + 2] + field + data[entry + 12 :]
    return data + strip


BOMBS = [
    *("claim-png", "claim-png-16", "claim-tiff", "claim-bmp", "strip-tiff"),
    *("8-ztxt", "16-itxt", "8-iccp"),
]


def test_bombs_take_little_memory(tmp_path):
    for name in BOMBS:
        (tmp_path / name).write_bytes(bomb(name))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from srcli.errors import InputError\n"
        "from srcli.imaging.files import probe_picture, read_picture\n"
        "unit = 1 if sys.platform == 'darwin' else 1024\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit\n"
        "for name in sys.argv[1:]:\n"
        "    before = peak()\n"
        "    try:\n        probe_picture(Path(name)); read_picture(Path(name))\n"
        "    except InputError as error:\n        assert name in str(error)\n"
        "    print(Path(name).name, (peak() - before) // 10**6)\n"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name) for name in BOMBS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    taken = dict(line.split() for line in done.stdout.splitlines())
    assert set(taken) == set(BOMBS)
    assert {name: mb for name, mb in taken.items() if int(mb) > MEGABYTES} == {}


def test_a_folder_of_broken_files_gives_one_line_each(tmp_path, run_process):
    """Libraries that print by themselves would be seen here."""
    folder = tmp_path / "in"
    folder.mkdir()
    names = [name for name in NAMES if frame_of(name) is None]
    for name in names:
        data = bytearray(sample(name))
        middle = len(data) // 2
        data[middle:] = bytes(len(data) - middle)
        (folder / f"{name}.png").write_bytes(bytes(data[: -len(data) // 5]))
    Image.new("RGB", (8, 6)).save(folder / "whole.png")
    done = run_process("-q", "upscale", folder, "-m", "bicubic", "-o", tmp_path / "out")
    assert done.returncode == 7
    lines = done.stderr.decode().splitlines()
    failed = [line for line in lines if line.startswith(f"error: {folder}")]
    results = done.stdout.decode().splitlines()
    assert str(tmp_path / "out" / "whole_bicubic_x4.png") in results
    assert len(failed) + len(results) == len(names) + 1
    assert lines == [*failed, f"error: {len(failed)} of {len(names) + 1} inputs failed"]
    assert len(failed) > len(names) * 0.8
    assert len(list((tmp_path / "out").iterdir())) == len(results)


def test_header_alone_is_enough_to_refuse_a_giant():
    with pytest.raises(InputError, match="more than 500 million"):
        read_picture(make_png(30_000, 30_000, 8, 2, b""), name="giant.png")
