"""Pictures as the bytes of a file."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from srcli.errors import OutputError, unknown
from srcli.imaging.chunks import Chunk, write_chunk
from srcli.imaging.formats import FORMATS
from srcli.imaging.metadata import (
    fit_metadata,
    pillow_options,
    png_chunks,
    set_jfif_density,
)
from srcli.imaging.picture import Picture, join_planes
from srcli.imaging.pillow import explain, quiet
from srcli.imaging.tiff.write import write_tiff

# Ways to code a PNG, the fastest first: runs of what all filters leave, a search for
# repetitions in it, and one in the levels as they are, for pictures of few colours.
_RUNS, _ANY_FILTER, _NO_FILTER = 3, 0xF8, 0x08  # zlib's, libpng's
_WAYS: tuple[Mapping[str, Any], ...] = (
    {"level": 1, "strategy": _RUNS, "filter": _ANY_FILTER},
    {"level": 6, "strategy": 1, "filter": _ANY_FILTER},
    {"level": 6, "strategy": 0, "filter": _NO_FILTER},
)
_SAMPLE_ROWS = 16
_PNG_HEADER = 33  # bytes of the signature and IHDR
_ENCODE_ERRORS = (OSError, ValueError, OverflowError, RuntimeError, struct.error)


def encode(
    picture: Picture, file: IO[bytes], format: str, quality: int, name: str
) -> None:
    """Write the bytes of a picture file; see `files.encode_picture`."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    entry = FORMATS[format]
    misfit = picture.find_misfit(format)
    if misfit is not None:
        other = "tiff" if format == "png" else "png"
        raise OutputError(f"{name} cannot be written: {misfit}; choose {other}")
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
    """Write a picture that the format can hold."""
    entry = FORMATS[format]
    planes = picture.pixels if not entry.alpha else join_planes(picture)
    # WebP has no grey: it becomes RGB there, and a grey profile would be wrong.
    channels = 3 if format == "webp" else picture.pixels.shape[2]
    size = (picture.width, picture.height)
    metadata = fit_metadata(picture.metadata, format, channels, size, name)
    if format == "tiff":
        write_tiff(planes, file, metadata)
        return
    planes = planes[:, :, 0] if planes.shape[2] == 1 else planes
    if format == "png":
        _write_png(planes, file, png_chunks(metadata))
        return
    options = pillow_options(metadata, format)
    if format != "bmp":
        options["quality"] = quality
    if format == "webp":
        options["lossless"] = quality == 100
    if planes.ndim == 3 and format in ("jpg", "avif"):
        options["subsampling"] = "4:4:4"
    Image.fromarray(planes).save(file, entry.pillow, **options)
    if format == "jpg":
        set_jfif_density(file, metadata)


def _write_png(planes: NDArray[Any], file: IO[bytes], chunks: Sequence[Chunk]) -> None:
    """Write uint8 or uint16, (H, W) or (H, W, 2 to 4), as a PNG, chunks before them."""
    planes = np.ascontiguousarray(planes)
    # Set aside but not filled: more than the worst case takes.
    room: Any = np.empty(planes.nbytes * 4 // 3 + 4 * len(planes) + 65_536, np.uint8)
    way = _choose_way(planes)
    coded = memoryview(imagecodecs.png_encode(planes, out=room, **way))
    file.write(coded[:_PNG_HEADER])
    for kind, data in chunks:
        write_chunk(file, kind, data)
    file.write(coded[_PNG_HEADER:])


def _choose_way(planes: NDArray[Any]) -> Mapping[str, Any]:
    """The first of `_WAYS` that costs at most a tenth in size; strips tell.

    To search for repetitions takes most of the time. It makes drawings and screenshots
    several times smaller, but a photograph repeats nothing.
    """
    tops = (len(planes) * part // 8 for part in (1, 3, 5, 7))
    strips = [planes[top : top + _SAMPLE_ROWS] for top in tops]
    sizes = [
        sum(len(imagecodecs.png_encode(strip, **way)) for strip in strips)
        for way in _WAYS
    ]
    enough = 1.1 * min(sizes)
    return next(w for w, size in zip(_WAYS, sizes, strict=True) if size <= enough)
