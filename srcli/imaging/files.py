"""Picture files in and out: whatever a file holds becomes a `Picture`, and back."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from srcli.errors import OutputError, unknown
from srcli.imaging.formats import FORMATS, format_of
from srcli.imaging.metadata import (
    Metadata,
    fit_metadata,
    pillow_options,
    png_chunks,
    read_metadata,
    set_jfif_density,
)
from srcli.imaging.opened import open_picture, turn_upright
from srcli.imaging.picture import (
    Picture,
    PictureInfo,
    Pixels,
    reduce_depth,
    strip_metadata,
)
from srcli.imaging.pillow import explain, quiet
from srcli.imaging.strips import strip_rows, write_jpeg, write_png
from srcli.imaging.tiff_writer import write_tiff
from srcli.storage import Place, fetch
from srcli.writing import write_whole

__all__ = [
    "Metadata",
    "Picture",
    "PictureInfo",
    "Pixels",
    "encode_picture",
    "probe_picture",
    "read_picture",
    "reduce_depth",
    "strip_metadata",
    "write_picture",
]

_ENCODE_ERRORS = (OSError, ValueError, OverflowError, RuntimeError, struct.error)


def probe_picture(
    source: Place | bytes, *, name: str | None = None, frame: int | None = None
) -> PictureInfo:
    """The format and size of a picture file, without decoding its pixels.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it; the path where None.
        frame: As `read_picture`.

    Raises:
        InputError: As `read_picture`, as far as the header tells.
    """
    with open_picture(source, _name(source, name), frame) as (opened, frames):
        return PictureInfo(
            opened.format,
            opened.width,
            opened.height,
            alpha=opened.has_alpha,
            depth=opened.depth,
            channels=opened.channels,
            frames=frames,
            is_windowed=opened.is_windowed,
        )


def read_picture(
    source: Place | bytes, *, name: str | None = None, frame: int | None = None
) -> Picture:
    """The picture in a file, upright, in grey or RGB, with its metadata.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it; the path where None.
        frame: Which of several frames or pages, from 1; None is the only one.

    Raises:
        InputError: If the file cannot be read, is no picture or a damaged one, holds
            several pictures and none was chosen, is implausibly large, or is of a kind
            that would lose what it holds (32-bit integers).
    """
    name = _name(source, name)
    if not isinstance(source, (Path, bytes)):
        source = fetch(source)  # in one piece: all of it is needed
    with open_picture(source, name, frame) as (opened, _):
        turned = opened.orientation  # of a TIFF that Pillow reads, until it is loaded
        pixels, alpha, own_colours = opened.load()
        pixels = turn_upright(pixels, opened.orientation)
        if alpha is not None:
            alpha = turn_upright(alpha, opened.orientation)
        channels = pixels.shape[2] if own_colours else 0
        size = (pixels.shape[1], pixels.shape[0])
        metadata = read_metadata(
            opened.info, opened.exif, opened.chunks, name, channels, size, turned
        )
        return Picture(pixels, alpha, metadata, opened.format)


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
    picture: Picture,
    path: Place,
    *,
    format: str | None = None,
    quality: int = 95,
    replace: bool = True,
    run: str | None = None,
) -> int:
    """Write a picture file, which appears whole or not at all; return its bytes.

    Args:
        picture: The picture.
        path: Where, here or remote. A file `<path>.part` exists meanwhile.
        format: A key of `FORMATS`; None takes it from the suffix of `path`, or where
            that names none, from `picture.format`.
        quality: As `encode_picture`.
        replace: Whether a file of this name may be there.
        run: As `srcli.writing.write_whole`.

    Raises:
        OutputError: If the format cannot hold the picture, or the file cannot be
            written.
    """
    format = format or format_of(path) or picture.format
    with write_whole(path, replace=replace, run=run) as part:
        with part.open("w+b") as file:
            _encode(picture, file, format, quality, str(path))
        return part.stat().st_size


def _name(source: Place | bytes, name: str | None) -> str:
    if name is not None:
        return name
    return "the picture" if isinstance(source, bytes) else str(source)


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
        raise OutputError(f"{name} cannot be written: {explain(error)}") from error


def _save(
    picture: Picture, file: IO[bytes], format: str, quality: int, name: str
) -> None:
    """`_encode` of a picture that the format can hold."""
    size = (picture.width, picture.height)
    planes = _stack(picture, keep_alpha=FORMATS[format].alpha)
    # WebP has no grey: it becomes RGB there, and a grey profile would be wrong.
    channels = 3 if format == "webp" else picture.pixels.shape[2]
    metadata = fit_metadata(picture.metadata, format, channels, size, name)
    if format == "tiff":
        write_tiff(planes, file, metadata)
        return
    planes = planes[:, :, 0] if planes.shape[2] == 1 else planes
    options = _coding_options(planes, format, quality)
    options |= pillow_options(metadata, format)
    is_rgb = planes.ndim == 3 and planes.shape[2] == 3
    if format == "png":
        write_png(planes, file, chunks=png_chunks(metadata), **options)
    elif format == "jpg" and is_rgb and picture.height > strip_rows(picture.width):
        write_jpeg(planes, file, **options)
    else:
        pillow = FORMATS[format].pillow
        Image.fromarray(planes).save(file, format=pillow, **options)
    if format == "jpg":
        set_jfif_density(file, metadata)


def _stack(picture: Picture, *, keep_alpha: bool) -> NDArray[Any]:
    """Colours and opacity as one array, (H, W, C)."""
    planes: NDArray[Any] = picture.pixels
    if picture.alpha is not None and keep_alpha:
        planes = np.concatenate((planes, picture.alpha[:, :, None]), axis=2)
    return planes


def _coding_options(planes: NDArray[Any], format: str, quality: int) -> dict[str, Any]:
    """How Pillow is to code the pixels."""
    if format == "jpg":
        return {"quality": quality, "subsampling": 0}
    if format == "webp":
        return {"quality": quality, "lossless": quality == 100}
    if format == "avif":
        colour = {} if planes.ndim == 2 else {"subsampling": "4:4:4"}
        return {"quality": quality, **colour}
    return {}
