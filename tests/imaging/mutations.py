"""Ways in which files get damaged, and what reading them may then come to."""

import struct
import zlib

from sample_files import SAMPLES

from srcli.errors import InputError
from srcli.imaging.files import probe_picture, read_picture

NAMES = tuple(SAMPLES)
SIGNATURE = 8  # bytes before the first chunk of a PNG
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


def frame_of(name):
    """Which frame of a sample is read."""
    several = "animated" in name or "pages" in name or name in ("apng", "mpo")
    return 2 if several else None


def look_into(data, name, frame=None):
    """The picture in a file, or None after one clear error; else the test fails."""
    picture = None
    for look in (probe_picture, read_picture):
        try:
            picture = look(data, name=name, frame=frame)
        except InputError as error:
            message = str(error)
            assert message.startswith(name)
            assert message.isprintable()
            assert len(message) < 400
            picture = None
    if picture is not None:
        assert picture.pixels.shape[:2] == (picture.height, picture.width)
        assert picture.pixels.shape[2] in (1, 3)
    return picture


def put_number(data, place, number, width, order):
    """The file with a whole number written over what stood there."""
    return data[:place] + number.to_bytes(width, order) + data[place + width :]


def fix_checksums(png):
    """A damaged PNG whose chunks have the right check sums again, as far as it goes."""
    fixed, place = bytearray(png), SIGNATURE
    while place + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, place)
        end = place + 8 + length
        if end + 4 > len(png):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(png[place + 4 : end]))
        place = end + 4
    return bytes(fixed)
