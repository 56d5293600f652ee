"""EXIF edited in place rather than taken apart and written anew.

So everything that we do not understand survives byte for byte, maker notes with
absolute offsets among it. Layout: TIFF 6.0, section 2; tags: Exif 2.32 (CIPA
DC-008-2019), sections 4.6.4, 4.6.5.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from fractions import Fraction

from PIL import Image

from srcli.imaging.geometry import Geometry

HEADER = b"Exif\x00\x00"
EMPTY = HEADER + b"II*\x00\x08\x00\x00\x00" + bytes(6)
_ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
_INTEROP_IFD = 0xA005  # below that of Exif
_COLOR_SPACE, _INTEROP_INDEX = 0xA001, 1
_DENSITY, _DENSITY_UNIT = (0x011A, 0x011B), 0x0128
# Pairs along x and y: sizes of the picture, and pixels per unit of the sensor.
_SIZES = ((0x0100, 0x0101), (0xA002, 0xA003))
_FOCAL_PLANE = (0xA20E, 0xA20F)
_SUBJECTS = (0x9214, 0xA214)  # area and location, in pixels as stored
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG, _RATIONAL, _IFD = 3, 4, 5, 13
_CODES = {_SHORT: "H", _LONG: "I", _RATIONAL: "II", _IFD: "I"}
_MOST_SHORT, _MOST_LONG = 2**16 - 1, 2**32 - 1
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


def read_density(exif: Image.Exif) -> tuple[float, float, int] | None:
    """Pixels along x and y of a unit, and which: 1 none, 2 inch, 3 centimetre."""
    try:
        x, y = (float(exif[tag]) for tag in _DENSITY)
        return x, y, int(exif.get(_DENSITY_UNIT, 2))
    except MALFORMED:
        return None


def says_adobe_rgb(exif: Image.Exif) -> bool:
    """Whether EXIF says Adobe RGB: by DCF 2.0 (R03), or by 2, as older cameras do."""
    try:
        camera = exif.get_ifd(EXIF_IFD)
        space = camera.get(_COLOR_SPACE)
        below = exif.get_ifd(_INTEROP_IFD)
        index = str(below.get(_INTEROP_INDEX, "")).rstrip("\0 ")
    except MALFORMED:
        return False
    return space == 2 or (space != 1 and index == "R03")


def follow_exif(exif: bytes, geometry: Geometry) -> tuple[bytes, list[str]]:
    """EXIF of a picture that was turned and enlarged; no thumbnail, orientation 1.

    Returns:
        It, with its header, and what had to be left out of it.

    Raises:
        ValueError: If it is no TIFF structure (struct.error: if it is cut off).
    """
    lost: list[str] = []

    def change(tags: _Tags) -> None:
        if _ORIENTATION in tags.entries:
            tags.put(_ORIENTATION, _SHORT, 1)
        for pair in _SIZES:
            for tag, length in zip(pair, geometry.size, strict=True):
                if tag in tags.entries:
                    tags.put(tag, _LONG, length)
        if not geometry.is_same:
            lost.extend(_move(tags, geometry))

    edited = _edit(exif, change, change)
    _edit(edited)  # whether it is still whole without its thumbnail
    return edited, lost


def set_density(exif: bytes, dpi: tuple[float, float]) -> bytes:
    """EXIF that says so many pixels per inch along x and y."""

    def change(tags: _Tags) -> None:
        for tag, density in zip(_DENSITY, dpi, strict=True):
            tags.put_rational(tag, density)
        tags.put(_DENSITY_UNIT, _SHORT, 2)

    return _edit(exif, change)


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
    return kept.tobytes() if copy_descriptive(tags, kept) else b""


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


class _Tags:
    """A directory of EXIF to be edited: its entries, and where the next one is.

    Entries are type, count and value or its offset, 10 bytes, by tag.
    """

    def __init__(self, exif: bytearray, order: str, start: int) -> None:
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        end = start + 2 + 12 * count
        if end + 4 > len(exif):
            raise ValueError("a directory runs past the end")
        self._exif, self._order, self.start, self.room = exif, order, start, count
        self.link = exif[end : end + 4]
        rows = struct.iter_unpack(f"{order}H10s", exif[start + 2 : end])
        self._read: list[tuple[int, bytes]] = list(rows)
        self.entries = dict(self._read)

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The numbers of a tag; none where it is absent or holds something else."""
        if tag not in self.entries:
            return ()
        kind, count, value = struct.unpack(f"{self._order}HI4s", self.entries[tag])
        code = self._order + _CODES.get(kind, "") * min(count, 5)
        size = struct.calcsize(code)
        if size > 4:
            (place,) = struct.unpack(f"{self._order}I", value)
            value = bytes(self._exif[place : place + size])
        if len(value) < size:
            return ()
        read = struct.unpack(code, value[:size])
        if kind != _RATIONAL:
            return read
        pairs = zip(read[::2], read[1::2], strict=True)
        return tuple(above / below for above, below in pairs if below)

    def put(self, tag: int, kind: int, *numbers: int) -> None:
        """Set a tag; longer values go to the end, so that nothing else moves."""
        code = _CODES[kind]
        value = struct.pack(self._order + code * (len(numbers) // len(code)), *numbers)
        if len(value) > 4:
            self._exif += bytes(len(self._exif) % 2)
            place = struct.pack(f"{self._order}I", len(self._exif))
            self._exif += value
            value = place
        head = struct.pack(f"{self._order}HI", kind, len(numbers) // len(code))
        self.entries[tag] = head + value.ljust(4, b"\0")

    def put_rational(self, tag: int, number: float) -> None:
        """Set a tag to the fraction nearest to a positive number."""
        most = max(1, min(1_000_000, int(_MOST_LONG / max(number, 1e-9))))
        near = Fraction(number).limit_denominator(most)
        self.put(tag, _RATIONAL, min(near.numerator, _MOST_LONG), near.denominator)

    def write(self) -> None:
        """Put the entries where they stood, or at the end if they have become more."""
        if self.entries == dict(self._read):
            return
        rows = sorted(self.entries.items())
        body = b"".join(struct.pack(f"{self._order}H10s", *row) for row in rows)
        content = struct.pack(f"{self._order}H", len(rows)) + body + self.link
        if len(rows) > self.room:
            self._exif += bytes(len(self._exif) % 2)
            self.start = len(self._exif)
        self._exif[self.start : self.start + len(content)] = content


def _move(tags: _Tags, geometry: Geometry) -> list[str]:
    """Scale the sensor's density and place the subject; what had to be left out."""
    lost: list[str] = []
    x, y = (tags.numbers(tag) for tag in _FOCAL_PLANE)
    said = [tags.entries.pop(tag, None) for tag in _FOCAL_PLANE]
    if len(x) == len(y) == 1:
        scaled = geometry.scale((x[0], y[0]))
        for tag, density in zip(_FOCAL_PLANE, scaled, strict=True):
            tags.put_rational(tag, density)
    elif any(said):
        lost.append("focal plane")
    for tag in _SUBJECTS:
        if tag in tags.entries and not _place_subject(tags, tag, geometry):
            lost.append("subject area")
    return lost


def _place_subject(tags: _Tags, tag: int, geometry: Geometry) -> bool:
    """Set a point, circle or rectangle that is given by its centre; else remove it."""
    numbers = tags.numbers(tag)
    x, y, *sides = numbers if len(numbers) > 1 else (-1, -1)  # of which nothing is left
    wide, high = (*sides, *sides)[:2] if sides else (0, 0)
    moved = (*geometry.place(x, y), *geometry.scale((wide, high)))
    placed = [round(number) for number in moved[: 2 + len(sides)]]
    if len(sides) > 2 or min(placed) < 0 or max(placed) > _MOST_SHORT:
        del tags.entries[tag]
        return False
    tags.put(tag, _SHORT, *placed)
    return True


def _edit(
    exif: bytes,
    main: Callable[[_Tags], None] = lambda _: None,
    nested: Callable[[_Tags], None] = lambda _: None,
) -> bytes:
    """EXIF with its header, its directories changed, no thumbnail."""
    edited = bytearray(exif.removeprefix(HEADER))
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(bytes(edited[:4]))
    if order is None:
        raise ValueError("not a TIFF structure")
    (start,) = struct.unpack_from(f"{order}I", edited, 4)
    first = _Tags(edited, order, start)
    _drop_thumbnail(edited, order, first)
    if EXIF_IFD in first.entries:
        places = first.numbers(EXIF_IFD)
        if len(places) != 1:
            raise ValueError("not a single whole number")
        if places[0] != start:  # lest it goes round in circles
            second = _Tags(edited, order, int(places[0]))
            nested(second)
            second.write()
    main(first)
    first.write()
    struct.pack_into(f"{order}I", edited, 4, first.start)
    return HEADER + bytes(edited)


def _drop_thumbnail(exif: bytearray, order: str, first: _Tags) -> None:
    """Make the first directory the last, and wipe the thumbnail's data."""
    (second,) = struct.unpack(f"{order}I", first.link)
    if second == 0:
        return
    link = first.start + 2 + 12 * first.room
    first.link = bytearray(4)
    exif[link : link + 4] = first.link
    with contextlib.suppress(ValueError, struct.error):
        tags = _Tags(exif, order, second)
        start, length = (
            int(sum(tags.numbers(tag)))
            for tag in (_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH)
        )
        end = start + length
        # Only what is a JPEG for certain is wiped: offsets in the wild can be wrong.
        if exif[start : start + 2] == b"\xff\xd8" and end <= len(exif):
            exif[start:end] = b"" if end == len(exif) else bytes(length)
