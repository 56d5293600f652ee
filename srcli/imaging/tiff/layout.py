"""The layout of a TIFF's pages, and what their samples stand for.

tifffile parses the tags, Pillow what is beside the pixels, as it does for other files.

Source: TIFF 6.0; for BigTIFF the design that libtiff publishes; for ICCLab the
"Adobe Photoshop TIFF Technical Notes" of 2002; for JPEG the TIFF Technical Note 2.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import cached_property
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION as CODEC
from tifffile import EXTRASAMPLE, FILETYPE, PHOTOMETRIC, SAMPLEFORMAT, TiffFile
from tifffile import TiffPage as Directory

from srcli.errors import InputError
from srcli.imaging import pillow
from srcli.imaging.chunks import Chunk
from srcli.imaging.exif import MALFORMED
from srcli.imaging.picture import PictureInfo

_GREY = PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK
LAB = PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB
_RAW = PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW
# Samples of a pixel that are colours.
_COLOURS: dict[int, int] = dict.fromkeys((*_GREY, PHOTOMETRIC.PALETTE), 1)
_COLOURS |= dict.fromkeys((PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, *LAB), 3)
_COLOURS |= {PHOTOMETRIC.SEPARATED: 4}
# Bits a sample that those may have which are not the result's own levels.
_BITS: dict[int, Sequence[int]] = dict.fromkeys(LAB, (8, 16))
_BITS |= {PHOTOMETRIC.PALETTE: range(1, 9), PHOTOMETRIC.YCBCR: (8,)}
_TITLES: dict[int, str] = dict.fromkeys((*LAB, PHOTOMETRIC.ITULAB), "Lab")
_TITLES |= {PHOTOMETRIC.PALETTE: "palette", PHOTOMETRIC.YCBCR: "YCbCr"}

CCITT = CODEC.CCITTRLE, CODEC.CCITT_T4, CODEC.CCITT_T6
ONLY_LIBTIFF = CODEC.OJPEG, CODEC.THUNDERSCAN  # as Pillow has it
# Bytes in, the same bytes out; and each strip or tile a picture of its own. Not among
# these is JPEG XR, which makes up what its data lack.
_BYTE_CODECS = (
    CODEC.NONE, CODEC.LZW, CODEC.ADOBE_DEFLATE, CODEC.DEFLATE,
    CODEC.PACKBITS, CODEC.LZMA, CODEC.ZSTD,
)  # fmt: skip
_PICTURE_CODECS = (
    CODEC.JPEG, CODEC.JPEG2000, CODEC.LERC, CODEC.PNG,
    CODEC.WEBP, CODEC.JPEGXL, CODEC.APERIO_JP2000_RGB,
)  # fmt: skip

# Attributes of tifffile's that are whole numbers unless a tag is damaged.
_NUMBERS = (
    "imagewidth", "imagelength", "imagedepth", "tilewidth", "tilelength", "tiledepth",
    "rowsperstrip", "samplesperpixel", "photometric", "compression", "predictor",
    "planarconfig", "fillorder", "sampleformat", "subfiletype",
)  # fmt: skip

_MOST_PAGES, _MOST_TAGS = 10_000, 4096
_SPARE = 1 << 20  # bytes that directories may claim beyond those of the file
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # of values, by type
# Bytes that the largest picture has a pixel: RGB and alpha in single precision; and
# that a tile may have beyond those of four pictures.
_MOST_BYTES, _SPARE_BYTES = 16, 1 << 28
# Of what is read by box, bits of a strip or tile, and of a pixel with all channels.
_MOST_BITS, _MOST_PIXEL = 1 << 33, 512
_PART = 1 << 20  # bytes of an uncompressed strip that are read at a time


class Page:
    """A page of a TIFF, as its tags describe it; lengths in pixels.

    Attributes:
        info: What the header says of the picture, upright.
        directory: The tags as tifffile has them.
        name: What messages call the file.
        stored: Rows and columns, not turned.
        orientation: As in EXIF, 1 to 8.
        photometric: How samples are colours, once a strip or tile is decoded.
        bits: Of a sample.
        samples: Of a pixel.
        colours: Samples of a pixel that are its colours; the others come behind.
        opacity: Which sample is the opacity; None where there is none.
        planes: That have strips or tiles of their own.
        tile: Rows and columns of one strip or tile, those at the edge too. What is
            plain, rows in a row without compression, is cut into strips of some rows.
        rows: Strips or tiles one below the other.
        columns: Tiles side by side.
        subsampling: Columns and rows of pixels that share their chroma; (1, 1) where
            each has its own, or the decoder sees to it.
        offsets: Where in the file each strip or tile is.
        counts: How many bytes it has there.
    """

    chunks: tuple[Chunk, ...] = ()

    def __init__(
        self, file: IO[bytes], directory: Directory, name: str, pages: int
    ) -> None:
        """Check the tags.

        Raises:
            InputError: If the pixels are of a kind that would lose what they hold.
            ValueError: If the tags make no sense, or the file ends within its picture.
        """
        if any(not isinstance(getattr(directory, key), int) for key in _NUMBERS):
            raise ValueError("its tags make no sense")
        self.directory, self.name, self._file = directory, name, file
        self._read_samples()
        self._refuse_kinds()
        self._read_layout()
        self._find_pieces(file.seek(0, 2))
        turned = directory.tags.valueof(274, 1)
        self.orientation = turned if turned in range(1, 9) else 1
        pixel = self.samples * self.bits
        piece = math.prod(self.tile) * pixel // self.planes
        height, width = self.stored[:: 1 if self.orientation < 5 else -1]
        self.info = PictureInfo(
            "tiff",
            width,
            height,
            alpha=self.opacity is not None,
            depth=32 if self.is_float else 16 if self.bits > 8 else 8,
            channels=1 if self.photometric in _GREY else 3,
            frames=pages,
            is_windowed=pixel <= _MOST_PIXEL and piece <= _MOST_BITS,
        )

    @property
    def has_own_colours(self) -> bool:
        """Whether its pixels come in the file's own colours, not in sRGB."""
        return self.photometric not in (PHOTOMETRIC.SEPARATED, *LAB)

    @property
    def exif(self) -> Image.Exif:
        """The page's tags, and the directories below them, as Pillow has them."""
        exif = Image.Exif()
        exif.endian = self.directory.parent.byteorder
        exif.bigtiff = self.directory.parent.is_bigtiff
        try:
            exif.load_from_fp(self._file, self.directory.offset)
        except MALFORMED:
            return Image.Exif()
        return exif

    @property
    def said(self) -> dict[str, bytes]:
        """What Pillow's `info` would hold: profile, XMP, IPTC."""
        tags = {"icc_profile": 34675, "xmp": 700, "photoshop": 34377}
        found = {key: self.directory.tags.valueof(tag) for key, tag in tags.items()}
        return {key: value for key, value in found.items() if isinstance(value, bytes)}

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """The colours of a palette, (at least 2 ** bits, 3).

        Raises:
            ValueError: If it has too few.
        """
        stored = np.asarray(self.directory.tags.valueof(320), np.uint16)
        if stored.size < 3 << self.bits:
            raise ValueError("its palette is too short")
        # Some programs write levels of 8 bits, as libtiff has found.
        levels = stored >> 8 if stored.max() > 255 else stored
        return levels.reshape(3, -1).T.astype(np.uint8)

    def numbers(self, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
        """The numbers of a tag, as many as the default has.

        Raises:
            ValueError: If there are others.
        """
        value = self.directory.tags.valueof(tag)
        if value is None:
            return default
        if self.directory.tags[tag].dtype == 5:  # each a fraction
            value = [a / b for a, b in zip(value[::2], value[1::2], strict=True)]
        if len(value) != len(default) or not np.isfinite(value).all():
            raise ValueError(f"its tag {tag} makes no sense")
        return tuple(value)

    def check_size(self) -> None:
        """Refuse a page that is too large to be read as a whole.

        Raises:
            InputError: If it is.
            ValueError: If it claims implausibly many bytes a pixel.
        """
        if math.prod(self.stored) > pillow.MAX_PIXELS:
            raise InputError(
                f"{self.name} has more than {pillow.MAX_PIXELS // 10**6} million "
                "pixels: too many to be read at once; srcli upscale takes it where "
                "the result is a TIFF"
            )
        size = math.prod(self.stored) * self.samples * self.dtype.itemsize
        if size > _MOST_BYTES * pillow.MAX_PIXELS:
            raise ValueError("its tags make no sense")

    def _read_samples(self) -> None:
        tags = self.directory
        self.photometric, self.samples = tags.photometric, tags.samplesperpixel
        self.bits = max(np.ravel(tags.bitspersample).tolist())
        self.subsampling = 1, 1
        self.planes = self.samples if tags.planarconfig == 2 else 1
        if self.photometric == PHOTOMETRIC.YCBCR:
            layout = tags.compression, self.planes, self.samples, self.bits
            if layout == (CODEC.JPEG, 1, 3, 8):
                # Which libjpeg makes of it as of any JPEG, whatever the tags say.
                self.photometric = PHOTOMETRIC.RGB
            else:
                across, down = self.numbers(530, (2, 2))
                self.subsampling = int(across), int(down)
        self.colours = _COLOURS.get(self.photometric, 1)
        self.is_float = tags.sampleformat == SAMPLEFORMAT.IEEEFP
        extra = tags.extrasamples[: max(self.samples - self.colours, 0)]
        kinds = EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA
        opaque = [place for place, kind in enumerate(extra) if kind in kinds]
        self.opacity = self.colours + opaque[0] if opaque else None
        self.is_premultiplied = any(extra[place] == kinds[0] for place in opaque[:1])

    def _refuse_kinds(self) -> None:
        """Refuse what cannot be read, or not kept whole."""
        tags, is_float = self.directory, self.is_float
        codec, is_int = tags.compression, tags.sampleformat == SAMPLEFORMAT.INT
        title = _TITLES.get(self.photometric, "unknown")
        layout = self.planes, self.samples, tags.predictor
        is_known = is_float or is_int or tags.sampleformat == SAMPLEFORMAT.UINT
        is_odd = self.subsampling != (1, 1) and layout != (1, 3, 1)
        bits: Sequence[int] = (self.bits,) if self.photometric in _COLOURS else ()
        if self.photometric in _BITS:
            is_odd = is_odd or codec not in _BYTE_CODECS
            bits = () if is_float else _BITS[self.photometric]
        is_ink = self.photometric == PHOTOMETRIC.SEPARATED
        has_codec = codec in (*_BYTE_CODECS, *CCITT, *_PICTURE_CODECS)
        kinds = {
            "CMYK in floating point": is_float and is_ink,
            f"{title} pixels of {self.bits} bits a channel": self.bits not in bits,
            f"{title} pixels in an unusual layout": is_odd,
            f"pixels compressed by {getattr(codec, 'name', codec)}": not has_codec,
            "pixels of an unknown kind": not is_known,
            f"whole numbers of {self.bits} bits": self.bits > 16 and not is_float,
            "signed whole numbers": is_int,
            "channels of different depths": not isinstance(tags.bitspersample, int),
        }
        kind = next((kind for kind, is_so in kinds.items() if is_so), None)
        if kind is not None:
            raise InputError(
                f"{self.name} holds {kind}, which are not supported: save it deflated "
                "in grey or RGB, with 8 or 16 bits a channel or in floating point"
            )
        if self.samples < self.colours:
            raise ValueError("it has too few samples a pixel")
        if {*self.subsampling} - {1, 2, 4}:
            raise ValueError("its chroma is subsampled in no valid way")

    def _read_layout(self) -> None:
        tags = self.directory
        self.stored = tags.imagelength, tags.imagewidth
        self.is_tiled = bool(tags.is_tiled)
        self.tile = tags.tilelength, tags.tilewidth
        if not self.is_tiled:
            self.tile = min(tags.rowsperstrip, tags.imagelength), tags.imagewidth
        if min(*self.stored, *self.tile) < 1 or tags.imagedepth * tags.tiledepth > 1:
            raise ValueError("it has no pixels, or no plain picture of them")
        shaped = self.planes, 1, *self.stored, self.samples // self.planes
        if tags.dtype is None or tags.shaped != shaped:
            raise ValueError("its tags contradict each other")
        self.dtype: np.dtype[Any] = tags.dtype
        size = self.samples * self.dtype.itemsize
        most = 4 * math.prod(self.stored) * size + _SPARE_BYTES
        if math.prod(self.tile) * size > most:
            raise ValueError("its tiles are larger than the picture")
        self.is_plain = (
            not self.is_tiled
            and (tags.compression, tags.predictor, tags.fillorder) == (1, 1, 1)
            and self.bits in (8, 16, 32, 64)
            and self.subsampling == (1, 1)
        )

    def _find_pieces(self, end: int) -> None:
        """Find the strips or tiles in a file of so many bytes.

        Raises:
            ValueError: If it does not hold them all: decoders would make up black ones.
        """
        tags, (height, width) = self.directory, self.tile
        self.offsets, self.counts = tags.dataoffsets, tags.databytecounts
        self.rows = math.ceil(self.stored[0] / height)
        self.columns = math.ceil(self.stored[1] / width)
        needed = self.planes * self.rows * self.columns
        if len(self.offsets) < needed:
            raise ValueError("it ends within its picture")
        line = self.stored[1] * (self.samples // self.planes) * self.bits // 8
        plain: list[int] = []  # bytes that each strip has to have
        if self.is_plain:
            tops = range(0, self.stored[0], height)
            plain = [min(height, self.stored[0] - top) * line for top in tops]
            plain *= self.planes
            if 279 not in tags.tags:  # as some programs write it
                self.counts = tuple(plain)
        held = zip(self.offsets[:needed], self.counts[:needed], strict=False)
        if sum(0 < start <= end - max(size, 1) for start, size in held) < needed:
            raise ValueError("it ends within its picture")
        if not self.is_plain:
            return
        if any(has < needs for has, needs in zip(self.counts, plain, strict=False)):
            raise ValueError("a strip ends too early")
        # Some programs make one strip of a whole picture: it is read in parts, of as
        # many rows each; the last of several strips' parts ends with the strip.
        step = max(1, min(height, _PART // line))
        while self.rows > 1 and height % step:
            step -= 1
        starts = [start + top * line
                  for start, size in zip(self.offsets, plain, strict=False)
                  for top in range(0, size // line, step)]  # fmt: skip
        sizes = [min(step, size // line - top) * line
                 for size in plain for top in range(0, size // line, step)]  # fmt: skip
        self.offsets, self.counts = tuple(starts), tuple(sizes)
        self.tile, self.rows = (step, width), len(sizes) // self.planes


def list_pages(file: IO[bytes], name: str) -> list[Directory]:
    """The pages of a TIFF, without reduced copies and masks if there is another.

    Raises:
        InputError: If it is a camera's raw file.
        ValueError: If its directories make no sense (others: what tifffile raises).
    """
    offsets = _find_directories(file)
    file.seek(0)
    tiff = TiffFile(file)
    pages: list[Directory] = []
    for index, offset in enumerate(offsets):
        tiff.filehandle.seek(offset)
        pages.append(Directory(tiff, index))
    first = pages[0]
    if (
        any(50706 in page.tags or page.photometric in _RAW for page in pages)
        or (first.is_reduced and 330 in first.tags)  # a raw file's small preview
    ):
        raise InputError(f"{name} is a camera's raw file: develop it first")
    copies = FILETYPE.REDUCEDIMAGE | FILETYPE.MASK
    kept = [page for page in pages if not page.subfiletype & copies]
    return kept or pages[:1]


def _find_directories(file: IO[bytes]) -> list[int]:
    """Where the directories of a TIFF are, in the order in which they are chained.

    Raises:
        ValueError: If they claim to hold more than the file (struct.error: if one runs
            past its end). tifffile would read all that they claim.
    """
    # Directories may share their values, but hardly more than the file has.
    allowed = 4 * file.seek(0, 2) + _SPARE
    file.seek(0)
    head = file.read(16)
    order, is_big = "<" if head[:1] == b"I" else ">", b"+" in head[2:4]
    entry, link = (f"{order}2xHQ8x", "Q") if is_big else (f"{order}2xHI4x", "I")
    counter = struct.Struct(f"{order}{'Q' if is_big else 'H'}")
    size, after = struct.calcsize(entry), struct.Struct(order + link)
    (offset,) = after.unpack_from(head, 8 if is_big else 4)
    found: dict[int, None] = {}
    while offset and offset not in found and len(found) < _MOST_PAGES:
        found[offset] = None
        file.seek(offset)
        (count,) = counter.unpack(file.read(counter.size))
        entries = file.read(min(count, _MOST_TAGS) * size)
        if not entries or len(entries) < count * size:
            raise ValueError("it ends within a directory")
        allowed -= len(entries) + sum(
            number * (_SIZES[kind] if kind < len(_SIZES) else 0)
            for kind, number in struct.iter_unpack(entry, entries)
        )
        if allowed < 0:
            raise ValueError("its directories hold more than the file")
        (offset,) = after.unpack(file.read(after.size).ljust(after.size, b"\x00"))
    if not found:
        raise ValueError("it has no page")
    return list(found)
