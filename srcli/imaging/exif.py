"""EXIF edited in place rather than taken apart and written anew.

So everything that we do not understand survives byte for byte, maker notes with
absolute offsets among it. Layout: TIFF 6.0, section 2; tags: Exif 2.32 (CIPA
DC-008-2019), sections 4.6.4, 4.6.5.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping

from PIL import Image

_HEADER = b"Exif\x00\x00"
_ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_INTEROP_IFD = 0xA005  # below that of Exif
_WIDTH_TAGS = (0x0100, 0xA002)  # ImageWidth, PixelXDimension
_HEIGHT_TAGS = (0x0101, 0xA003)  # ImageLength, PixelYDimension
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG, _IFD = 3, 4, 13
MALFORMED = (
    struct.error, SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError,
    ArithmeticError, AttributeError, RuntimeError,
)  # fmt: skip

# A TIFF's first directory mixes description with the layout of its pixels. These are
# description: document, image, maker, model, software, date, artist, host, copyright,
# Windows' title to subject, and the two directories of Exif and GPS.
_DESCRIPTIVE = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298}
    | {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, EXIF_IFD, GPS_IFD}
)


def read_orientation(exif: Image.Exif) -> int:
    """The orientation that EXIF says, 1 to 8; 1 where it says nothing valid."""
    try:
        value = exif.get(_ORIENTATION, 1)
    except MALFORMED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def make_upright(exif: bytes) -> bytes:
    """EXIF with its header, orientation 1 and no thumbnail.

    Raises:
        ValueError: If it is no TIFF structure (struct.error: if it is cut off).
    """
    upright = _edit(exif, {_ORIENTATION: 1})
    return _edit(upright, {})  # still whole without its thumbnail


def size_exif(exif: bytes, width: int, height: int) -> bytes:
    """EXIF whose size tags, where it has them, say so many pixels."""
    values = dict.fromkeys(_WIDTH_TAGS, width) | dict.fromkeys(_HEIGHT_TAGS, height)
    return _edit(exif, values)


def survives_pillow(exif: bytes) -> bool:
    """Whether Pillow can take EXIF apart and put it together, as some formats need."""
    try:
        loaded = Image.Exif()
        loaded.load(exif)
        loaded.tobytes()
    except MALFORMED:
        return False
    return True


def rebuild(tags: Image.Exif) -> bytes:
    """EXIF of a file that keeps it elsewhere: in a TIFF's own tags, or as PNG text."""
    kept = Image.Exif()
    copied = copy_descriptive(tags, kept)
    return kept.tobytes() if copied else b""


def copy_descriptive(source: Image.Exif, target: Image.Exif) -> frozenset[int]:
    """Copy the tags that describe a picture, not its layout, and say which."""
    copied = _DESCRIPTIVE & set(source)
    for tag in sorted(copied):
        if tag not in (EXIF_IFD, GPS_IFD):
            target[tag] = source[tag]
            continue
        nested = dict(source.get_ifd(tag))
        if _INTEROP_IFD in nested:  # now where it was in the source
            nested[_INTEROP_IFD] = dict(source.get_ifd(_INTEROP_IFD))
        target.get_ifd(tag).update(nested)
    return copied


def _entries(exif: bytes | bytearray, order: str, start: int) -> range:
    """Offsets of the 12-byte entries of the directory at `start`."""
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    if start + 2 + 12 * count + 4 > len(exif):
        raise ValueError("a directory runs past the end")
    return range(start + 2, start + 2 + 12 * count, 12)


def _number_at(exif: bytes | bytearray, order: str, entry: int) -> int:
    """The single SHORT, LONG or IFD that an entry holds."""
    kind, count = struct.unpack_from(f"{order}HI", exif, entry + 2)
    if kind not in (_SHORT, _LONG, _IFD) or count != 1:
        raise ValueError("not a single whole number")
    code = "H" if kind == _SHORT else "I"
    number: int = struct.unpack_from(order + code, exif, entry + 8)[0]
    return number


def _edit(exif: bytes, values: Mapping[int, int]) -> bytes:
    """EXIF with its header, the tags of `values` that it has set anew, no thumbnail.

    Raises:
        ValueError: If it is no TIFF structure (struct.error: if it is cut off).
    """
    exif = exif.removeprefix(_HEADER)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    edited = bytearray(exif)
    (main,) = struct.unpack_from(f"{order}I", exif, 4)
    directories = [main]
    for directory in directories:
        for entry in _entries(exif, order, directory):
            (tag,) = struct.unpack_from(f"{order}H", exif, entry)
            if tag == EXIF_IFD and directory == main:
                nested = _number_at(exif, order, entry)
                if nested not in directories:  # lest it goes round for ever
                    directories.append(nested)
            elif tag in values:
                # A size may outgrow a SHORT; a LONG takes the same four bytes.
                number = (_LONG, 1, values[tag])
                struct.pack_into(f"{order}HII", edited, entry + 2, *number)
                if tag == _ORIENTATION:
                    short = (_SHORT, 1, values[tag], 0)
                    struct.pack_into(f"{order}HIHH", edited, entry + 2, *short)
    return _HEADER + _without_thumbnail(edited, order, main)


def _without_thumbnail(exif: bytearray, order: str, main: int) -> bytes:
    """EXIF whose first directory is its last, with the thumbnail's data wiped."""
    (count,) = struct.unpack_from(f"{order}H", exif, main)
    link = main + 2 + 12 * count
    (second,) = struct.unpack_from(f"{order}I", exif, link)
    if second == 0:
        return bytes(exif)
    struct.pack_into(f"{order}I", exif, link, 0)
    found: dict[int, int] = {}
    with contextlib.suppress(ValueError, struct.error):
        for entry in _entries(exif, order, second):
            (tag,) = struct.unpack_from(f"{order}H", exif, entry)
            if tag in (_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH):
                found[tag] = _number_at(exif, order, entry)
    start, length = found.get(_THUMBNAIL_OFFSET, 0), found.get(_THUMBNAIL_LENGTH, 0)
    end = start + length
    # Only what is a JPEG for certain is wiped: offsets in the wild can be wrong.
    if exif[start : start + 2] == b"\xff\xd8" and end <= len(exif):
        exif[start:end] = b"" if end == len(exif) else bytes(length)
    return bytes(exif)
