"""Picture files in and out: whatever a file holds becomes a `Picture`, and back.

Pillow decodes and encodes. What it would damage without a word is announced (colour of
more than 8 bits) or refused (floating point) here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from srcli.errors import OutputError, unknown
from srcli.imaging.decode import decode_planes, format_name
from srcli.imaging.formats import FORMATS, find_misfit, format_of
from srcli.imaging.metadata import (
    Metadata,
    read_metadata,
    read_orientation,
    writing_options,
)
from srcli.imaging.pillow import open_image, quiet
from srcli.imaging.strips import strip_rows, write_jpeg, write_png
from srcli.writing import write_whole

__all__ = [
    "Metadata",
    "Picture",
    "PictureInfo",
    "encode_picture",
    "probe_picture",
    "read_picture",
    "write_picture",
]

_ENCODE_ERRORS = (OSError, ValueError, OverflowError, RuntimeError, struct.error)

# Filters, runs and Huffman codes, without the search for repetitions.
_PNG_FAST: Mapping[str, int] = MappingProxyType(
    {"compress_level": 1, "compress_type": zlib.Z_RLE}
)
_STRIP_ROWS = 16

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, turned upright.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8 or uint16, not premultiplied.
        alpha: Opacity, (H, W), same dtype; None where the file has none.
        metadata: What goes from the input file to the output file.
        format: The file format it came in, a key of `FORMATS`.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "png"

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    def find_misfit(self, name: str) -> str | None:
        """What keeps the picture out of the file format `name`, or None."""
        return find_misfit(
            name,
            self.width,
            self.height,
            alpha=self._is_transparent(),
            deep=self.pixels.dtype == np.uint16,
        )

    def _is_transparent(self) -> bool:
        """Whether any pixel lets the background through."""
        if self.alpha is None:
            return False
        return bool(self.alpha.min() < np.iinfo(self.alpha.dtype).max)


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What a file's header says of its picture; sizes in pixels, turned upright."""

    format: str
    width: int
    height: int
    alpha: bool
    deep: bool  # 16 bits a channel


def probe_picture(source: Path | bytes, *, name: str | None = None) -> PictureInfo:
    """The format and size of a picture file, without decoding its pixels.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it; the path where None.

    Raises:
        InputError: As `read_picture`, as far as the header tells.
    """
    with open_image(source, _name(source, name)) as (image, _):
        width, height = image.size
        # Pillow gives a TIFF's size as it will be once turned, others' as stored.
        if image.format != "TIFF" and read_orientation(image) >= 5:
            width, height = height, width
        return PictureInfo(
            format_name(image),
            width,
            height,
            alpha=image.has_transparency_data,
            deep=image.mode.startswith("I;16"),
        )


def read_picture(source: Path | bytes, *, name: str | None = None) -> Picture:
    """The picture in a file, upright, in grey or RGB, with its metadata.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it; the path where None.

    Raises:
        InputError: If the file cannot be read, is no picture or a damaged one, holds
            several pictures, is implausibly large, or is of a kind that would lose
            what it holds (floating point, 32-bit integers).
    """
    name = _name(source, name)
    with open_image(source, name) as (image, head):
        image.load()
        planes, own_colours = decode_planes(image, head, name)
        planes = _turn(planes, read_orientation(image))
        alpha = None
        if planes.shape[2] in (2, 4):
            planes, alpha = planes[:, :, :-1], np.ascontiguousarray(planes[:, :, -1])
        metadata = read_metadata(image, name, planes.shape[2], keep_icc=own_colours)
        pixels = np.ascontiguousarray(planes)
        return Picture(pixels, alpha, metadata, format_name(image))


def encode_picture(picture: Picture, format: str, quality: int = 95) -> bytes:
    """The bytes of a picture file.

    Args:
        picture: The picture.
        format: A key of `FORMATS`.
        quality: 1 to 100, for JPEG, WebP (100 is lossless) and AVIF.

    Raises:
        OutputError: If the format cannot hold the picture, or Pillow cannot write it.
    """
    buffer = io.BytesIO()
    _encode(picture, buffer, format, quality, "the picture")
    return buffer.getvalue()


def write_picture(
    picture: Picture, path: Path, *, format: str | None = None, quality: int = 95
) -> None:
    """Write a picture file, which appears whole or not at all.

    Args:
        picture: The picture.
        path: Where; replaced if it is there. A file `<path>.part` exists meanwhile.
        format: A key of `FORMATS`; None takes it from the suffix of `path`, or where
            that names none, from `picture.format`.
        quality: As `encode_picture`.

    Raises:
        OutputError: If the format cannot hold the picture, or the file cannot be
            written.
    """
    format = format or format_of(path) or picture.format
    with write_whole(path) as part, part.open("w+b") as file:
        _encode(picture, file, format, quality, str(path))


def _name(source: Path | bytes, name: str | None) -> str:
    if name is not None:
        return name
    return str(source) if isinstance(source, Path) else "the picture"


def _turn(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels (H, W, C) as EXIF's `orientation` wants them shown.

    Source: Exif 2.32, section 4.6.4, tag Orientation: which edges the stored first row
    and first column are.
    """
    if orientation >= 5:
        planes = planes.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        planes = planes[::-1]
    if orientation in (2, 3, 6, 7):
        planes = planes[:, ::-1]
    return planes


def _encode(
    picture: Picture, file: IO[bytes], format: str, quality: int, name: str
) -> None:
    """Write the bytes of a picture file; see `encode_picture`."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    entry = FORMATS[format]
    misfit = picture.find_misfit(format)
    if misfit is not None:
        raise OutputError(f"{name} cannot be written: {misfit}; choose png")
    if format in ("webp", "avif") and not features.check(format):
        raise OutputError(
            f"{name} cannot be written: this Pillow has no {entry.title}; choose png "
            "or install pillow 11.3 or later"
        )
    try:
        with quiet():
            _save(picture, file, format, quality, name)
    except _ENCODE_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OutputError(f"{name} cannot be written: {reason}") from error


def _save(
    picture: Picture, file: IO[bytes], format: str, quality: int, name: str
) -> None:
    """`_encode` of a picture that the format can hold."""
    entry, size = FORMATS[format], (picture.width, picture.height)
    planes = _stack(picture, name, keep_alpha=entry.alpha)
    mode = Image.fromarray(planes[:1]).mode
    options = _coding_options(planes, format, quality)
    options |= writing_options(picture.metadata, format, mode, size, name)
    write_strips = {"jpg": write_jpeg, "png": write_png}.get(format)
    if mode == "RGB" and write_strips and picture.height > strip_rows(picture.width):
        write_strips(planes, file, **options)
    else:
        Image.fromarray(planes).save(file, format=entry.pillow, **options)


def _stack(picture: Picture, name: str, *, keep_alpha: bool) -> NDArray[Any]:
    """What Pillow takes for mode L or I;16, (H, W), or LA, RGB or RGBA, (H, W, C)."""
    planes: NDArray[Any] = picture.pixels
    if picture.alpha is not None and keep_alpha:
        planes = np.concatenate((planes, picture.alpha[:, :, None]), axis=2)
    if planes.dtype == np.uint16 and planes.shape[2] > 1:
        raise OutputError(
            f"{name} cannot be written: 16-bit colour and transparency are not "
            "supported yet"
        )
    return planes[:, :, 0] if planes.shape[2] == 1 else planes


def _coding_options(planes: NDArray[Any], format: str, quality: int) -> dict[str, Any]:
    """How Pillow is to code the pixels."""
    if format == "jpg":
        return {"quality": quality, "subsampling": 0}
    if format == "webp":
        return {"quality": quality, "lossless": quality == 100}
    if format == "avif":
        colour = {} if planes.ndim == 2 else {"subsampling": "4:4:4"}
        return {"quality": quality, **colour}
    if format == "tiff":
        size = max(planes.size, 2 * planes.shape[0] * planes.shape[1])
        return {"big_tiff": size > 0xF000_0000}  # offsets of 32 bits end at 4 GiB
    if format == "png" and _is_natural(planes):
        return dict(_PNG_FAST)
    return {}


def _is_natural(planes: NDArray[Any]) -> bool:
    """Whether a PNG gains next to nothing from a search for repetitions.

    The search takes most of the time of writing a PNG. It makes drawings and
    screenshots several times smaller, but a photograph repeats nothing. Strips tell.
    """
    sizes = [0, 0]
    for part in (1, 3, 5, 7):
        top = len(planes) * part // 8
        strip = Image.fromarray(planes[top : top + _STRIP_ROWS])
        for index, options in enumerate((_PNG_FAST, {})):
            buffer = io.BytesIO()
            strip.save(buffer, format="PNG", **options)
            sizes[index] += buffer.tell()
    return sizes[0] <= 1.1 * sizes[1]
