"""JPEGs and PNGs coded strip by strip.

Pillow keeps four bytes a pixel for RGB. A strip at a time, the copy stays small; whole,
it would be larger than the picture itself.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.imaging.chunks import SIGNATURE, Chunk, read_chunks, write_chunk

_BLOCK = 8  # px; what a JPEG without subsampling codes at a time
_MOST_BLOCKS = 65_535  # between two restart markers: ITU-T T.81, section B.2.4.4
_FIRST_FRAME, _SCAN, _RESTART, _END = 0xC0, 0xDA, 0xD0, b"\xff\xd9"
# What only the first strip carries.
_PARTING = ("exif", "xmp", "icc_profile", "dpi", "comment", "extra")
# zlib's level and strategy: filters, runs and Huffman codes; and a search as well.
_FAST, _SEARCH = (1, zlib.Z_RLE), (6, zlib.Z_FILTERED)
_SAMPLE_ROWS = 16
_ALL_FILTERS = 0xF8  # libpng's PNG_ALL_FILTERS: the best of them for each row


def strip_rows(width: int) -> int:
    """The rows of a strip of a picture so wide; one of no more needs no strips."""
    return _BLOCK * max(1, _MOST_BLOCKS // math.ceil(width / _BLOCK))


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
    pixels: NDArray[Any],
    file: IO[bytes],
    *,
    chunks: Sequence[Chunk] = (),
    **options: Any,  # noqa: ANN401
) -> None:
    """Write a PNG; strips of it are filtered by themselves and compressed as one.

    Args:
        pixels: (H, W) or (H, W, 1 to 4), uint8 or uint16.
        file: To write to.
        chunks: Written before the pixels.
        **options: Of Pillow's `save`.
    """
    height, width = pixels.shape[:2]
    rows = strip_rows(width)
    level, strategy = _FAST if _is_natural(pixels) else _SEARCH
    coder = zlib.compressobj(level, strategy=strategy)
    file.write(SIGNATURE)
    for top in range(0, height, rows):
        # A row is filtered by the one above it, which comes along and is cut off.
        above = min(top, 1)
        strip = pixels[top - above : top + rows]
        stored = list(_code_strip(strip))
        if top == 0:
            header = next(data for kind, data in stored if kind == b"IHDR")[8:]
            write_chunk(file, b"IHDR", struct.pack(">II", width, height) + header)
            for kind, data in (*_describing(options), *chunks):
                write_chunk(file, kind, data)
        filtered = _filtered(stored)
        cut = above * (len(filtered) // len(strip))
        write_chunk(file, b"IDAT", coder.compress(memoryview(filtered)[cut:]))
    write_chunk(file, b"IDAT", coder.flush())
    write_chunk(file, b"IEND", b"")


def _code_strip(strip: NDArray[Any]) -> Iterator[Chunk]:
    """A strip as a PNG by itself: its chunks, rows filtered but not compressed."""
    if strip.dtype == np.uint16:
        strip = np.ascontiguousarray(strip)
        data = imagecodecs.png_encode(strip, level=0, filter=_ALL_FILTERS)
    else:
        buffer = io.BytesIO()
        Image.fromarray(strip).save(buffer, format="PNG", compress_level=0)
        data = buffer.getvalue()
    return read_chunks(io.BytesIO(data[len(SIGNATURE) :]))


def _filtered(chunks: Iterable[Chunk]) -> bytes:
    """The filtered rows that chunks of a PNG hold."""
    return zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))


def _is_natural(pixels: NDArray[Any]) -> bool:
    """Whether a PNG gains next to nothing from a search for repetitions.

    The search takes most of the time of writing a PNG. It makes drawings and
    screenshots several times smaller, but a photograph repeats nothing. Strips tell.
    """
    sizes = [0, 0]
    for part in (1, 3, 5, 7):
        top = len(pixels) * part // 8
        rows = _filtered(_code_strip(pixels[top : top + _SAMPLE_ROWS]))
        for index, (level, strategy) in enumerate((_FAST, _SEARCH)):
            coder = zlib.compressobj(level, strategy=strategy)
            sizes[index] += len(coder.compress(rows)) + len(coder.flush())
    return sizes[0] <= 1.1 * sizes[1]


def _describing(options: Mapping[str, Any]) -> list[Chunk]:
    """The chunks of what Pillow's `save` takes beside the pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, format="PNG", **options)
    file = io.BytesIO(buffer.getvalue()[len(SIGNATURE) :])
    pixels = (b"IHDR", b"IDAT", b"IEND")
    return [chunk for chunk in read_chunks(file) if chunk[0] not in pixels]
