"""Large colour JPEGs and PNGs coded strip by strip.

Pillow keeps four bytes a pixel for RGB. A strip at a time, the copy stays small; whole,
it would be larger than the picture itself.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from itertools import groupby
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BLOCK = 8  # px; what a JPEG without subsampling codes at a time
_MOST_BLOCKS = 65_535  # between two restart markers: ITU-T T.81, section B.2.4.4
_FIRST_FRAME, _SCAN, _RESTART, _END = 0xC0, 0xDA, 0xD0, b"\xff\xd9"
_PNG_HEAD = 8  # bytes before the first chunk
_PARTING = ("exif", "xmp", "icc_profile", "dpi")  # what only the first strip carries


def strip_rows(width: int) -> int:
    """The rows of a strip of a picture so wide; one of no more needs no strips."""
    return _BLOCK * (_MOST_BLOCKS // math.ceil(width / _BLOCK))


def write_jpeg(pixels: NDArray[np.uint8], file: IO[bytes], **options: Any) -> None:  # noqa: ANN401
    """Write a JPEG that decodes as Pillow's own would.

    Each strip is coded as a JPEG by itself. After a restart marker a decoder begins
    anew, as it does with a picture, so that the coded strips make one scan.

    Args:
        pixels: (H, W, 3), taller than `strip_rows`.
        file: To write to.
        **options: Of Pillow's `save`, subsampling 0 among them.
    """
    height, width, _ = pixels.shape
    rows = strip_rows(width)
    interval = rows // _BLOCK * math.ceil(width / _BLOCK)
    for number, top in enumerate(range(0, height, rows)):
        buffer = io.BytesIO()
        strip = Image.fromarray(pixels[top : top + rows])
        strip.save(buffer, format="JPEG", restart_marker_blocks=interval, **options)
        data = buffer.getvalue()
        frame, scan = _find(data, _FIRST_FRAME), _find(data, _SCAN)
        (length,) = struct.unpack_from(">H", data, scan + 2)
        if number == 0:
            # Marker, length, precision, and then the height.
            file.write(data[: frame + 5] + struct.pack(">H", height))
            file.write(data[frame + 7 : scan + 2 + length])
            options = {key: options[key] for key in options if key not in _PARTING}
        else:
            file.write(bytes((0xFF, _RESTART + (number - 1) % 8)))
        file.write(data[scan + 2 + length :].removesuffix(_END))
    file.write(_END)


def _find(data: bytes, marker: int) -> int:
    """Where a segment of a JPEG begins."""
    position = 2  # after the marker that begins the picture
    while data[position + 1] != marker:
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    return position


def write_png(
    pixels: NDArray[np.uint8],
    file: IO[bytes],
    compress_level: int = 6,
    compress_type: int = zlib.Z_FILTERED,
    **options: Any,  # noqa: ANN401
) -> None:
    """Write a PNG that decodes as Pillow's own would.

    Pillow filters each strip, stored in a PNG of its own; all are compressed as one.

    Args:
        pixels: (H, W, 3), taller than `strip_rows`.
        file: To write to.
        compress_level: As zlib.
        compress_type: zlib's strategy.
        **options: Others of Pillow's `save`.
    """
    height, width, _ = pixels.shape
    rows = strip_rows(width)
    coder = zlib.compressobj(compress_level, strategy=compress_type)
    ending: list[tuple[bytes, bytes]] = []
    for top in range(0, height, rows):
        buffer = io.BytesIO()
        # A row is filtered by the one above it, which comes along and is cut off.
        above = min(top, 1)
        strip = Image.fromarray(pixels[top - above : top + rows])
        strip.save(buffer, format="PNG", compress_level=0, **options)
        parts = groupby(_chunks(buffer.getvalue()), lambda chunk: chunk[0] == b"IDAT")
        before, stored, after = (list(part) for _, part in parts)
        if top == 0:
            file.write(buffer.getvalue()[:_PNG_HEAD])
            header = before[0][1]  # width, height and the rest
            size = struct.pack(">II", width, height)
            for kind, data in ((b"IHDR", size + header[8:]), *before[1:]):
                _put(file, kind, data)
            ending, options = after, {}
        filtered = zlib.decompress(b"".join(data for _, data in stored))
        cut = above * (1 + 3 * width)
        _put(file, b"IDAT", coder.compress(memoryview(filtered)[cut:]))
    _put(file, b"IDAT", coder.flush())
    for kind, data in ending:
        _put(file, kind, data)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG: kind and data."""
    position = _PNG_HEAD
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        yield kind, png[position + 8 : position + 8 + length]
        position += 12 + length


def _put(file: IO[bytes], kind: bytes, data: bytes) -> None:
    """Write a chunk of a PNG."""
    check = zlib.crc32(data, zlib.crc32(kind))
    file.write(struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", check))
