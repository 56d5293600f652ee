"""Tiled BigTIFFs written piece by piece, for pictures that memory is too small for."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product, repeat
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.metadata import Metadata
from srcli.imaging.tiff_writer import write_page

TILE = 512  # px
_LEVEL = 6  # of deflating, as tifffile's own
_THREADS = min(4, os.cpu_count() or 1)
_KINDS = {3: "<u2", 4: "<u4", 16: "<u8"}  # TIFF 6.0, section 2; BigTIFF

_TABLES = ("TileOffsets", "TileByteCounts")

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
            file: To write to; must be seekable and readable.
            size: Height and width in pixels.
            channels: Grey, grey and alpha, RGB, or RGB and alpha.
            dtype: uint8, uint16 or float32.
            metadata: What is beside the pixels.
        """
        self._file, self._size = file, size
        self._channels, self._dtype = channels, dtype
        self._rows, self._columns = (math.ceil(length / TILE) for length in size)
        count = self._rows * self._columns
        write_page(
            repeat(b"", count),
            file,
            metadata,
            channels=channels,
            is_big=True,
            shape=size if channels == 1 else (*size, channels),
            dtype=dtype,
            tile=(TILE, TILE),
        )
        self._offsets = np.zeros(count, np.uint64)
        self._counts = np.zeros(count, np.uint64)
        self._started: dict[_Place, NDArray[Any]] = {}
        self._missing: dict[_Place, int] = {}  # pixels

    def add(self, top: int, left: int, block: NDArray[Any]) -> None:
        """Write part of the picture; every pixel once.

        Args:
            top: Its first row in the picture.
            left: Its first column.
            block: (h, w, C).

        Raises:
            OSError: If the file cannot be written.
        """
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
            OSError: If the file cannot be written.
        """
        import tifffile  # noqa: PLC0415 - few pictures need it

        if not self._counts.all():
            raise ValueError("parts of the picture have not been written")
        self._file.seek(0)
        with tifffile.TiffFile(self._file) as tiff:
            tags = tiff.pages.first.tags
            found = [(tags[name].valueoffset, tags[name].dtype) for name in _TABLES]
        tables = self._offsets, self._counts
        for (place, kind), table in zip(found, tables, strict=True):
            self._file.seek(place)
            self._file.write(table.astype(_KINDS[kind]).tobytes())

    def _complete(
        self, top: int, left: int, block: NDArray[Any]
    ) -> Iterator[tuple[_Place, NDArray[Any]]]:
        """The tiles that a block completes; what it has of others is kept."""
        bottom, right = top + block.shape[0], left + block.shape[1]
        rows = range(top // TILE, math.ceil(bottom / TILE))
        columns = range(left // TILE, math.ceil(right / TILE))
        for row, column in product(rows, columns):
            place = row, column
            y, x = row * TILE, column * TILE
            y0, y1 = max(y, top), min(y + TILE, bottom)
            x0, x1 = max(x, left), min(x + TILE, right)
            part = block[y0 - top : y1 - top, x0 - left : x1 - left]
            if part.shape[:2] == (TILE, TILE):
                yield place, part
                continue
            if place not in self._started:
                shape = TILE, TILE, self._channels
                self._started[place] = np.zeros(shape, self._dtype)
                self._missing[place] = self._area(y, x)
            self._started[place][y0 - y : y1 - y, x0 - x : x1 - x] = part
            self._missing[place] -= part.shape[0] * part.shape[1]
            if not self._missing[place]:
                del self._missing[place]
                yield place, self._started.pop(place)

    def _area(self, top: int, left: int) -> int:
        """Pixels of the picture that the tile there has."""
        height, width = self._size
        return min(TILE, height - top) * min(TILE, width - left)


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
