"""The pages of a TIFF file and what their tags say of the pixels.

Source: TIFF 6.0, sections 2 and 8 to 19; for BigTIFF the design that libtiff publishes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import IO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from srcli.errors import InputError

MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


class Tag(IntEnum):
    """The numbers of tags."""

    SUBFILE = 254
    WIDTH = 256
    LENGTH = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    STRIP_ROWS = 278
    STRIP_COUNTS = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    RESOLUTION_UNIT = 296
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    SUB_DIRECTORIES = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    XMP = 700
    PHOTOSHOP = 34377
    ICC = 34675
    DNG_VERSION = 50706


class Photometric(IntEnum):
    """How samples are colours."""

    WHITE_IS_ZERO = 0
    BLACK_IS_ZERO = 1
    RGB = 2
    PALETTE = 3
    CMYK = 5
    YCBCR = 6
    CIELAB = 8
    ICCLAB = 9
    ITULAB = 10
    FILTER_ARRAY = 32803
    LINEAR_RAW = 34892


class Compression(IntEnum):
    """How strips and tiles are coded; those that are of use elsewhere."""

    NONE = 1
    CCITT_RLE = 2
    CCITT_3 = 3
    CCITT_4 = 4
    LZW = 5
    OLD_JPEG = 6  # keeps its data in its own way
    JPEG = 7
    ADOBE_DEFLATE = 8
    PACKBITS = 32773
    DEFLATE = 32946
    LZMA = 34925
    ZSTD = 50000


class SampleFormat(IntEnum):
    """What kind of numbers samples are."""

    UINT = 1
    INT = 2
    FLOAT = 3


# Samples of a pixel that are colours; absent is what only Pillow may know.
COLOURS: Mapping[int, int] = MappingProxyType(
    {
        Photometric.WHITE_IS_ZERO: 1,
        Photometric.BLACK_IS_ZERO: 1,
        Photometric.RGB: 3,
        Photometric.CMYK: 4,
    }
)
PREMULTIPLIED, STRAIGHT = 1, 2  # kinds of opacity in ExtraSamples

_DENSITY = (Tag.X_RESOLUTION, Tag.Y_RESOLUTION)
_PER_INCH = {2: 1, 3: 2.54}  # by ResolutionUnit: inches, centimetres
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_SEPARATE = 2  # planes of PlanarConfiguration
_RAW = (Photometric.FILTER_ARRAY, Photometric.LINEAR_RAW)
_MOST_PAGES, _MOST_TAGS, _MOST_SAMPLES = 10_000, 65_535, 65_535
# Bytes of a value by its type.
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
_SPARE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Directory:
    """One page of a TIFF as its tags describe it."""

    index: int  # in the file's chain of directories
    offset: int  # bytes
    tags: ImageFileDirectory_v2

    def number(self, tag: int, default: int) -> int:
        """The largest number of a tag.

        Raises:
            ValueError: If it holds no whole numbers.
        """
        numbers = self.numbers(tag) if tag in self.tags else (default,)
        if not numbers:
            raise ValueError(f"its tag {int(tag)} makes no sense")
        return max(numbers)

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The numbers of a tag; none where it is absent or holds something else."""
        value = self.tags.get(tag, ())
        numbers = value if isinstance(value, tuple) else (value,)
        return numbers if all(isinstance(number, int) for number in numbers) else ()

    def blob(self, tag: int) -> bytes | None:
        """The bytes of a tag; None where it is absent or holds something else."""
        value = self.tags.get(tag)
        return value if isinstance(value, bytes) else None

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch along x and y, if the tags say so."""
        unit = _PER_INCH.get(max(self.numbers(Tag.RESOLUTION_UNIT), default=2))
        try:
            x, y = (float(self.tags[tag]) for tag in _DENSITY)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            return None
        return None if unit is None else (x * unit, y * unit)

    @property
    def is_big(self) -> bool:
        """Whether the file is a BigTIFF."""
        return bool(getattr(self.tags, "_bigtiff", False))

    @property
    def orientation(self) -> int:
        """As in EXIF, 1 to 8; 1 where it says nothing valid."""
        turned = max(self.numbers(Tag.ORIENTATION), default=1)
        return turned if 1 <= turned <= 8 else 1

    @property
    def colours(self) -> int | None:
        """Samples of a pixel that are its colours; None where only Pillow may know."""
        return COLOURS.get(self.number(Tag.PHOTOMETRIC, Photometric.BLACK_IS_ZERO))

    @property
    def samples(self) -> int:
        """Samples of a pixel.

        Raises:
            ValueError: If it has implausibly many.
        """
        samples = self.number(Tag.SAMPLES, 1)
        if samples > _MOST_SAMPLES:
            raise ValueError(f"it claims {samples} samples a pixel")
        return samples

    @property
    def extra(self) -> tuple[int, ...]:
        """What the samples behind the colours are; 0 is unspecified."""
        extra = self.samples - (self.colours or 0)
        said = self.numbers(Tag.EXTRA_SAMPLES)[: max(extra, 0)]
        return said + (0,) * (extra - len(said))

    @property
    def is_ycbcr_jpeg(self) -> bool:
        """Whether it is JPEGs of YCbCr, as slide scanners write them."""
        return (
            self.number(Tag.PHOTOMETRIC, Photometric.BLACK_IS_ZERO) == Photometric.YCBCR
            and self.number(Tag.COMPRESSION, 1) == Compression.JPEG
            and not self.is_planar
            and (self.number(Tag.BITS, 1), self.samples) == (8, 3)
        )

    @property
    def is_planar(self) -> bool:
        """Whether each sample has strips or tiles of its own."""
        return self.samples > 1 and self.number(Tag.PLANAR, 1) == _SEPARATE

    @property
    def is_reduced(self) -> bool:
        """Whether it is a smaller copy, or the mask, of another page."""
        return bool(self.number(Tag.SUBFILE, 0) & (_REDUCED | _MASK))

    @property
    def suits_pillow(self) -> bool:
        """Whether Pillow reads the pixels as they are, if at all.

        It makes 8 bits of whatever has more, mixes up the planes of grey and alpha,
        passes over samples without a word, and stumbles over XMP that is no text.
        """
        kind = self.number(Tag.SAMPLE_FORMAT, SampleFormat.UINT)
        if self.number(Tag.BITS, 1) > 8 or kind != SampleFormat.UINT:
            return False
        if isinstance(self.tags.get(Tag.XMP), tuple):
            return False
        if self.colours is None:
            return True
        in_planes = self.colours == 1 and self.number(Tag.PLANAR, 1) == _SEPARATE
        return self.extra == () or (self.extra == (STRAIGHT,) and not in_planes)


def list_pages(file: IO[bytes], name: str) -> list[Directory]:
    """The pages of a TIFF, without reduced copies and masks if there is another.

    Args:
        file: The file.
        name: What messages call it.

    Raises:
        InputError: If it is a camera's raw file.
        ValueError: If its directories make no sense (others: what Pillow raises).
    """
    file.seek(0)
    head = file.read(8)
    is_big = b"+" in head[2:4]
    if is_big:
        head += file.read(8)
    pages: list[Directory] = []
    seen: set[int] = set()
    # Directories may share their values, but hardly more than the file has.
    allowed = 4 * file.seek(0, 2) + _SPARE
    offset = ImageFileDirectory_v2(head).next
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        allowed -= _measure(file, offset, "<" if head[:1] == b"I" else ">", is_big)
        if allowed < 0:
            raise ValueError("its directories hold more than the file")
        tags = ImageFileDirectory_v2(head)
        file.seek(offset)
        tags.load(file)
        page = Directory(len(seen), offset, tags)
        _refuse_raw(page, name)
        pages.append(page)
        seen.add(offset)
        offset = tags.next
    if not pages:
        raise ValueError("it has no page")
    return [page for page in pages if not page.is_reduced] or pages[:1]


def _measure(file: IO[bytes], offset: int, order: str, is_big: bool) -> int:
    """The bytes of a directory and of the values that it claims to have.

    Raises:
        ValueError: If it runs past the end of the file.
    """
    kind, size = ("Q", 20) if is_big else ("H", 12)
    entry = f"{order}2xH{'Q8x' if is_big else 'I4x'}"
    length = struct.calcsize(f"{order}{kind}")
    file.seek(offset)
    head = file.read(length)
    count = struct.unpack(f"{order}{kind}", head)[0] if len(head) == length else 0
    entries = file.read(min(count, _MOST_TAGS) * size)
    if not entries or len(entries) < count * size:
        raise ValueError("it ends within a directory")
    return len(entries) + sum(
        number * (_SIZES[kind] if kind < len(_SIZES) else 0)
        for kind, number in struct.iter_unpack(entry, entries)
    )


def _refuse_raw(page: Directory, name: str) -> None:
    """Refuse a raw file, whose first page is a small preview.

    Raises:
        InputError: If it is one.
    """
    is_preview = page.index == 0 and page.is_reduced
    if (
        Tag.DNG_VERSION in page.tags
        or (is_preview and Tag.SUB_DIRECTORIES in page.tags)
        or page.number(Tag.PHOTOMETRIC, Photometric.BLACK_IS_ZERO) in _RAW
    ):
        raise InputError(f"{name} is a camera's raw file: develop it first")
