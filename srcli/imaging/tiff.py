"""TIFF pages whose pixels Pillow would damage or cannot read: deep and floating point.

tifffile reads them; what they say beside their pixels is parsed by Pillow, as for all
other files. Tags: TIFF 6.0, sections 8 to 19; NewSubfileType: section 8.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from srcli.errors import InputError
from srcli.imaging.alpha import peak_level
from srcli.imaging.chunks import Chunk
from srcli.imaging.profiles import convert_cmyk

log = logging.getLogger(__name__)

MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_SUBFILE, _WIDTH, _LENGTH, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_ORIENTATION, _SAMPLES, _X_DPI, _Y_DPI, _UNIT = 274, 277, 282, 283, 296
_SUB_DIRECTORIES, _EXTRA, _SAMPLE_FORMAT = 330, 338, 339
_XMP, _ICC, _PHOTOSHOP, _DNG_VERSION = 700, 34675, 34377, 50706
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_RAW = (32803, 34892)  # colour filter array, linear raw
_KINDS = {3: "palette", 6: "YCbCr", 8: "Lab", 9: "Lab", 10: "Lab"}
_PREMULTIPLIED, _STRAIGHT = 1, 2  # of ExtraSamples
_UINT, _INT, _FLOAT = 1, 2, 3  # of SampleFormat
_MOST_PAGES = 10_000
_MOST_SAMPLES = 32
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}


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
        value = self.tags.get(tag, default)
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or not all(isinstance(number, int) for number in numbers):
            raise ValueError(f"its tag {tag} makes no sense")
        return max(numbers)

    @property
    def is_deep(self) -> bool:
        """Whether a pixel has more than 8 bits a channel, or is no whole number."""
        return self.number(_BITS, 1) > 8 or self.number(_SAMPLE_FORMAT, 1) != _UINT


def list_pages(file: IO[bytes], name: str) -> list[Directory]:
    """The pages of a TIFF, without reduced copies and masks.

    Args:
        file: The file.
        name: What messages call it.

    Raises:
        InputError: If it is a camera's raw file.
        ValueError: If its directories make no sense (others: what Pillow raises).
    """
    file.seek(0)
    head = file.read(8)
    if head[2:3] == b"+" or head[3:4] == b"+":
        head += file.read(8)
    pages: list[Directory] = []
    seen: set[int] = set()
    offset = ImageFileDirectory_v2(head).next
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        tags = ImageFileDirectory_v2(head)
        file.seek(offset)
        tags.load(file)
        page = Directory(len(seen), offset, tags)
        _refuse_raw(page, name)
        if not pages or not page.number(_SUBFILE, 0) & (_REDUCED | _MASK):
            pages.append(page)
        seen.add(offset)
        offset = tags.next
    if not pages:
        raise ValueError("it has no page")
    return pages


def _refuse_raw(page: Directory, name: str) -> None:
    """Refuse a raw file, whose first page is a small preview.

    Raises:
        InputError: If it is one.
    """
    is_preview = page.index == 0 and page.number(_SUBFILE, 0) & _REDUCED
    if (
        _DNG_VERSION in page.tags
        or (is_preview and _SUB_DIRECTORIES in page.tags)
        or page.number(_PHOTOMETRIC, _BLACK_IS_ZERO) in _RAW
    ):
        raise InputError(f"{name} is a camera's raw file: develop it first")


class TiffPage:
    """A page of a TIFF file, its pixels not decoded yet; an `Opened`."""

    format = "tiff"
    chunks: tuple[Chunk, ...] = ()

    def __init__(self, file: IO[bytes], page: Directory, name: str) -> None:
        """Read the tags.

        Raises:
            InputError: If the page is of a kind that would lose what it holds.
            ValueError: If the tags make no sense.
        """
        self._file, self._page, self._name = file, page, name
        self._photometric = page.number(_PHOTOMETRIC, _BLACK_IS_ZERO)
        self._bits = page.number(_BITS, 1)
        self._kind = page.number(_SAMPLE_FORMAT, _UINT)
        self._samples = page.number(_SAMPLES, 1)
        turned = page.number(_ORIENTATION, 1)
        self.orientation = turned if 1 <= turned <= 8 else 1
        size = page.number(_WIDTH, 0), page.number(_LENGTH, 0)
        self.width, self.height = size if self.orientation < 5 else size[::-1]
        self._check_kind()
        self.depth = 32 if self._kind == _FLOAT else 16 if self._bits > 8 else 8
        self.channels = 1 if _COLOURS[self._photometric] == 1 else 3
        self._extra = self._find_alpha()
        self.has_alpha = self._extra is not None

    @property
    def exif(self) -> Image.Exif:
        """The page's tags, and the directories below them, as Pillow has them."""
        exif = Image.Exif()
        exif.endian = ">" if self._page.tags.prefix == b"MM" else "<"
        exif.bigtiff = self._is_big()
        exif.load_from_fp(self._file, self._page.offset)
        return exif

    @property
    def info(self) -> Mapping[str, Any]:
        """What Pillow's `info` would hold: profile, XMP, resolution."""
        tags = self._page.tags
        found = {
            "icc_profile": tags.get(_ICC),
            "xmp": tags.get(_XMP),
            "photoshop": tags.get(_PHOTOSHOP),
        }
        info = {key: value for key, value in found.items() if isinstance(value, bytes)}
        if _X_DPI in tags and _Y_DPI in tags and tags.get(_UNIT, 2) in (2, 3):
            unit = 2.54 if tags.get(_UNIT, 2) == 3 else 1
            x, y = float(tags[_X_DPI]) * unit, float(tags[_Y_DPI]) * unit
            return MappingProxyType({**info, "dpi": (x, y)})
        return MappingProxyType(info)

    def load(self) -> tuple[NDArray[Any], bool]:
        """The pixels, not turned; see `Opened.load`."""
        planes = self._decode()
        colours = planes[:, :, : _COLOURS[self._photometric]]
        if self._photometric == _WHITE_IS_ZERO:
            colours = peak_level(planes.dtype) - colours
        if self._extra is not None:
            opacity = planes[:, :, self._extra]
            if planes.dtype == np.float32:
                opacity = opacity.clip(0, 1)
            if self._is_premultiplied:
                colours = _divide(colours, opacity)
        if self._photometric == _CMYK:
            icc = self.info.get("icc_profile")
            colours = convert_cmyk(colours, icc, self._name)
        if self._extra is not None:
            colours = np.concatenate((colours, opacity[:, :, None]), axis=2)
        return colours, self._photometric != _CMYK

    def _is_big(self) -> bool:
        return bool(getattr(self._page.tags, "_bigtiff", False))

    def _check_kind(self) -> None:
        """Refuse what `load` cannot keep whole.

        Raises:
            InputError: If the page is of such a kind.
        """
        kind = None
        if self._photometric not in _COLOURS:
            kind = f"{_KINDS.get(self._photometric, 'unknown')} pixels of this depth"
        elif self._kind not in (_UINT, _INT, _FLOAT):
            kind = "pixels of an unknown kind"
        elif self._kind != _FLOAT and self._bits > 16:
            kind = f"whole numbers of {self._bits} bits"
        elif self._kind == _INT:
            kind = "signed whole numbers"
        elif self._kind == _FLOAT and self._photometric == _CMYK:
            kind = "floating-point CMYK"
        if kind is not None:
            raise InputError(
                f"{self._name} holds {kind}, which are not supported: "
                "save it with 8 or 16 bits a channel, or in floating point"
            )

    def _find_alpha(self) -> int | None:
        """Which sample is the opacity; others beside the colours are left out."""
        extra = self._page.tags.get(_EXTRA, ())
        extra = extra if isinstance(extra, tuple) else (extra,)
        colours = _COLOURS[self._photometric]
        known = [
            index
            for index, kind in enumerate(extra[: self._samples - colours])
            if kind in (_PREMULTIPLIED, _STRAIGHT)
        ]
        self._is_premultiplied = bool(known) and extra[known[0]] == _PREMULTIPLIED
        return colours + known[0] if known else None

    def _decode(self) -> NDArray[Any]:
        """All samples as uint8, uint16 or float32, (H, W, samples).

        Raises:
            InputError: If floating-point samples are not finite.
            ValueError: If the file is damaged.
        """
        import tifffile  # noqa: PLC0415 - few pictures need it

        self._file.seek(0)
        with tifffile.TiffFile(self._file) as tiff:
            page = tiff.pages[self._page.index]
            assert isinstance(page, tifffile.TiffPage)
            _check_extent(self._file, page)
            pixels = page.asarray()
            axes = page.axes
        if axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        planes = pixels.reshape(*pixels.shape[:2], -1)
        if planes.shape[2] != self._samples or axes.strip("YXS"):
            raise ValueError("its tags contradict each other")
        left = self._samples - _COLOURS[self._photometric] - (self._extra is not None)
        if left:
            log.warning("%s: %d further channels are left out", self._name, left)
        if self._kind == _FLOAT:
            return self._as_float(planes)
        return _as_whole(planes, self._bits)

    def _as_float(self, planes: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            single = planes.astype(np.float32)
        if not np.isfinite(single).all():
            raise InputError(f"{self._name} holds values that are not finite numbers")
        if planes.dtype.itemsize > 4 and (single != planes).any():
            log.warning("%s: its 64-bit values are read with 32 bits", self._name)
        return single


def _as_whole(planes: NDArray[Any], bits: int) -> NDArray[Any]:
    """Whole numbers of 1 to 16 bits in the full range of uint8 or uint16."""
    if bits <= 8:
        levels = planes.astype(np.uint16) * 255
        return (levels // (2**bits - 1)).astype(np.uint8)
    return planes.astype(np.uint16) if bits == 16 else widen(planes, bits)


def widen(levels: NDArray[Any], bits: int) -> NDArray[np.uint16]:
    """Levels of 9 to 15 bits as the full range of 16, to the nearest."""
    peak = 2**bits - 1
    wide = levels.astype(np.uint32) * 65535 + peak // 2
    return np.minimum(wide // peak, 65535).astype(np.uint16)


def _divide(colours: NDArray[Any], opacity: NDArray[Any]) -> NDArray[Any]:
    """Colours that were premultiplied by the opacity, (H, W, C), without it."""
    if colours.dtype == np.float32:
        some = np.where(opacity > 0, opacity, 1)[:, :, None]
        return (colours / some).astype(np.float32)
    peak = int(np.iinfo(colours.dtype).max)
    some = np.maximum(opacity, 1).astype(np.uint32)[:, :, None]
    straight = (colours.astype(np.uint32) * peak + some // 2) // some
    return np.minimum(straight, peak).astype(colours.dtype)


def _check_extent(file: IO[bytes], page: Any) -> None:  # noqa: ANN401 - tifffile's
    """Refuse a page whose data the file does not hold, or that claims too much.

    Raises:
        ValueError: If it is one.
    """
    end = file.seek(0, 2)
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not pieces or any(start + count > end for start, count in pieces):
        raise ValueError("it ends within its picture")
    tile = page.tilewidth * page.tilelength
    room = 4 * page.imagewidth * page.imagelength + 4096 * 4096
    if page.samplesperpixel > _MOST_SAMPLES or tile > room or page.imagedepth > 1:
        raise ValueError("its tags make no sense")
