"""TIFF files of any depth written, deflated: in strips, or piece by piece in tiles.

tifffile writes the pixels and the plain tags. The directories of EXIF and GPS, which it
does not write, are made by Pillow and put behind.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product, repeat
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from srcli.imaging.chunks import resources_tags
from srcli.imaging.exif import EXIF_IFD, GPS_IFD, copy_descriptive
from srcli.imaging.metadata import Metadata

TILE = 512  # px
_LEVEL = 6  # of deflating, as tifffile's own
_THREADS = min(4, os.cpu_count() or 1)
_XMP = 700
_CLASSIC_END = 0xF000_0000  # offsets of 32 bits end at 4 GiB
_STRIP = 1 << 22  # bytes of pixels that are compressed at a time
_BYTE, _ASCII, _LONG, _LONG8 = 1, 2, 4, 16  # TIFF 6.0, section 2

_Place = tuple[int, int]  # row and column of a tile


class TileWriter:
    """A tiled BigTIFF, deflated, of one page, whose pixels arrive in any order.

    A tile is coded and written as soon as it is complete, so that no more is in memory
    than the block that is added and tiles of which parts are missing. Not thread-safe.
    """

    def __init__(
        self,
        file: IO[bytes],
        size: tuple[int, int],
        channels: int,
        dtype: np.dtype[Any],
        metadata: Metadata,
    ) -> None:
        """Write everything but the pixels.

        Args:
            file: Seekable and readable.
            size: Height and width in pixels.
            channels: 1 to 4: grey, grey and alpha, RGB, or RGB and alpha.
            dtype: uint8, uint16 or float32.
            metadata: What is beside the pixels.
        """
        self._file, self._size = file, size
        self._channels, self._dtype = channels, dtype
        self._rows, self._columns = (math.ceil(length / TILE) for length in size)
        count = self._rows * self._columns
        _write_page(
            repeat(b"", count),
            file,
            metadata,
            channels=channels,
            is_big=True,
            shape=size if channels == 1 else (*size, channels),
            dtype=dtype,
            tile=(TILE, TILE),
        )
        self._offsets, self._counts = [0] * count, [0] * count
        self._started: dict[_Place, NDArray[Any]] = {}
        self._missing: dict[_Place, int] = {}  # pixels

    def add(self, top: int, left: int, block: NDArray[Any]) -> None:
        """Write a part, (h, w, C), that begins at a row and column; no pixel twice."""
        whole = self._complete(top, left, block)
        with ThreadPoolExecutor(_THREADS) as coders:
            for (row, column), data in coders.map(_code, whole):
                index = row * self._columns + column
                self._offsets[index] = self._file.seek(0, 2)
                self._counts[index] = len(data)
                self._file.write(data)

    def finish(self) -> None:
        """Write where the tiles are.

        Raises:
            ValueError: If a tile is missing.
        """
        if not all(self._counts):
            raise ValueError("parts of the picture have not been written")
        tags = _read_tags(self._file)
        tags["TileOffsets"].overwrite(self._offsets)
        tags["TileByteCounts"].overwrite(self._counts)

    def _complete(
        self, top: int, left: int, block: NDArray[Any]
    ) -> Iterator[tuple[_Place, NDArray[Any]]]:
        """The tiles that a block completes; what it has of others is kept."""
        bottom, right = top + block.shape[0], left + block.shape[1]
        rows = range(top // TILE, math.ceil(bottom / TILE))
        columns = range(left // TILE, math.ceil(right / TILE))
        for place in product(rows, columns):
            y, x = place[0] * TILE, place[1] * TILE
            y0, y1 = max(y, top), min(y + TILE, bottom)
            x0, x1 = max(x, left), min(x + TILE, right)
            part = block[y0 - top : y1 - top, x0 - left : x1 - left]
            if part.shape[:2] == (TILE, TILE):
                yield place, part
                continue
            if place not in self._started:
                shape = TILE, TILE, self._channels
                self._started[place] = np.zeros(shape, self._dtype)
                height, width = self._size
                self._missing[place] = min(TILE, height - y) * min(TILE, width - x)
            self._started[place][y0 - y : y1 - y, x0 - x : x1 - x] = part
            self._missing[place] -= part.shape[0] * part.shape[1]
            if not self._missing[place]:
                del self._missing[place]
                yield place, self._started.pop(place)


def write_tiff(planes: NDArray[Any], file: IO[bytes], metadata: Metadata) -> None:
    """Write a TIFF of one page, deflated in strips.

    Args:
        planes: (H, W, 1 to 4): grey, grey and alpha, RGB, or RGB and alpha; uint8,
            uint16 or float32.
        file: Seekable and readable.
        metadata: What is beside the pixels.
    """
    _, width, channels = planes.shape
    _write_page(
        planes if channels > 1 else planes[:, :, 0],
        file,
        metadata,
        channels=channels,
        is_big=planes.nbytes > _CLASSIC_END,
        rowsperstrip=max(1, _STRIP // (width * channels * planes.itemsize)),
    )


def _write_page(
    content: NDArray[Any] | Iterator[bytes],
    file: IO[bytes],
    metadata: Metadata,
    *,
    channels: int,
    is_big: bool,
    **layout: Any,  # noqa: ANN401 - what tifffile takes
) -> None:
    """Write a TIFF of one page, deflated: its pixels, or its coded tiles."""
    import tifffile  # noqa: PLC0415 - few pictures need it

    found = _gather(metadata)
    nested = [tag for tag in (EXIF_IFD, GPS_IFD) if found.get_ifd(tag)]
    # tifffile does not take these tags; the numbers before them are free.
    kind = _LONG8 if is_big else _LONG
    places = [(tag - 1, kind, 1, 0, True) for tag in nested]
    with tifffile.TiffWriter(file, bigtiff=is_big, byteorder="<") as writer:
        writer.write(
            content,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            compression="adobe_deflate",
            predictor=True,
            iccprofile=metadata.icc,
            resolution=metadata.dpi or metadata.aspect,
            resolutionunit="INCH" if metadata.dpi else "NONE",
            software=False,
            metadata=None,
            extratags=_describe(found) + places,
            **layout,
        )
    for tag in nested:
        start = _append_directory(file, tag, found.get_ifd(tag), is_big=is_big)
        place = _read_tags(file)[tag - 1]
        place.overwrite(start)
        file.seek(place.offset)
        file.write(struct.pack("<H", tag))


def _read_tags(file: IO[bytes]) -> Any:  # noqa: ANN401 - of tifffile
    """The tags of the page that has been written, which can be overwritten."""
    import tifffile  # noqa: PLC0415 - few pictures need it

    file.seek(0)
    return tifffile.TiffFile(file).pages.first.tags


def _gather(metadata: Metadata) -> Image.Exif:
    """The tags of a TIFF that describe it, and the directories below them."""
    found, tags = Image.Exif(), Image.Exif()
    found.load(metadata.exif or b"")
    copy_descriptive(found, tags)
    if metadata.xmp is not None:
        tags[_XMP] = metadata.xmp
    tags.update(resources_tags(metadata.iptc) if metadata.iptc else {})
    return tags


def _describe(tags: Image.Exif) -> list[tuple[int, int, int, Any, bool]]:
    """Tags as tifffile takes them: number, type, count, value, whether only once.

    All that describe a picture are text or bytes; what is neither makes no sense.
    """
    described: list[tuple[int, int, int, Any, bool]] = []
    for tag, value in tags.items():
        if isinstance(value, bytes):
            described.append((tag, _BYTE, len(value), value, True))
        elif isinstance(value, str):
            # Pillow reads all text as Latin-1, so this gives its bytes back.
            text = value.encode("latin-1", "replace")
            described.append((tag, _ASCII, len(text) + 1, text, True))
    return described


def _append_directory(
    file: IO[bytes], tag: int, values: dict[int, Any], *, is_big: bool
) -> int:
    """Put a directory at the end of a TIFF, at an even byte, and say where that is."""
    end = file.seek(0, 2)
    start = end + file.write(b"\x00" * (end % 2))
    head = b"II+\x00\x08\x00\x00\x00" + bytes(8) if is_big else b"II*\x00" + bytes(4)
    directory = ImageFileDirectory_v2(head, group=tag)
    for number, value in values.items():
        directory[number] = value
    file.write(directory.tobytes(start))
    return start


def _code(tile: tuple[_Place, NDArray[Any]]) -> tuple[_Place, bytes]:
    """A tile deflated, with tifffile's predictor: 2 for whole numbers, else 3."""
    place, pixels = tile
    pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    is_float = pixels.dtype.kind == "f"
    predict = imagecodecs.floatpred_encode if is_float else imagecodecs.delta_encode
    deflate = imagecodecs.zlib_encode
    if imagecodecs.DEFLATE.available:  # faster
        deflate = imagecodecs.deflate_encode
    return place, bytes(deflate(predict(pixels, axis=-2).tobytes(), _LEVEL))
