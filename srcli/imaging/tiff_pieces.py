"""The strips and tiles of a TIFF page, decoded where they are needed.

tifffile decodes them; a bounded number is kept for the next window.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import product
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.tiff_layout import read_layout
from srcli.imaging.tiff_pages import Compression, Directory

_LEAST_CACHE, _MOST_CACHE = 1 << 26, 1 << 29  # bytes of decoded strips or tiles
_PART = 1 << 20  # bytes of a plain strip that are read at a time
_END_OF_JPEG = b"\xff\xd9"  # ITU-T T.81, table B.1; coded pixels cannot contain it


class Pieces:
    """What a page is cut into; not thread-safe."""

    def __init__(self, file: IO[bytes], page: Directory) -> None:
        """Compare what tifffile makes of the tags.

        Raises:
            ValueError: If the tags make no sense (others: what tifffile raises).
        """
        import tifffile  # noqa: PLC0415 - few pictures need it

        self._file, self._layout = file, read_layout(page)
        file.seek(0)
        tiff_page = tifffile.TiffFile(file).pages[page.index]
        assert isinstance(tiff_page, tifffile.TiffPage)
        self._tiff = tiff_page
        self._check()
        self._tops, self._parts = self._cut()
        self._cache: OrderedDict[tuple[int, int, int], NDArray[Any]] = OrderedDict()
        self._cached, self._room = 0, _LEAST_CACHE  # bytes

    def gather(self, top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
        """The samples of a window as they are stored, (h, w, samples).

        Args:
            top: First row, as stored.
            bottom: Row behind the last.
            left: First column.
            right: Column behind the last.

        Raises:
            ValueError: If the file is damaged (others: what decoders raise).
        """
        layout = self._layout
        shape = bottom - top, right - left, layout.planes * layout.samples
        samples = np.empty(shape, self._dtype)
        first_row = int(np.searchsorted(self._tops, top, "right")) - 1
        last_row = int(np.searchsorted(self._tops, bottom - 1, "right"))
        first, last = left // layout.tile_width, (right - 1) // layout.tile_width + 1
        rows, columns = range(first_row, last_row), range(first, last)
        self._make_room(layout.planes * len(rows) * len(columns))
        for plane in range(layout.planes):
            channels = slice(plane * layout.samples, (plane + 1) * layout.samples)
            for row, column in product(rows, columns):
                piece = self._piece(plane, row, column)
                y, x = int(self._tops[row]) - top, column * layout.tile_width - left
                # The part of the piece that the window has.
                y0, y1 = max(y, 0), min(y + piece.shape[0], shape[0])
                x0, x1 = max(x, 0), min(x + piece.shape[1], shape[1])
                inner = piece[y0 - y : y1 - y, x0 - x : x1 - x]
                samples[y0:y1, x0:x1, channels] = inner
        return samples

    def _make_room(self, pieces: int) -> None:
        """Let the cache hold at least so many pieces, if they are not too large.

        From window to window along a row of them, each strip is then decoded once.
        """
        layout = self._layout
        size = layout.tile_width * layout.tile_height * layout.samples
        touched = (pieces + 1) * size * self._dtype.itemsize // self._parts
        self._room = max(_LEAST_CACHE, min(touched, _MOST_CACHE))

    def _piece(self, plane: int, row: int, column: int) -> NDArray[Any]:
        """A decoded strip or tile, or part of a strip: (h, w, samples).

        Raises:
            ValueError: If it is damaged (others: what decoders raise).
        """
        key = plane, row, column
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        strip, part = divmod(row, self._parts)
        layout = self._layout
        index = (plane * layout.rows + strip) * layout.columns + column
        piece = self._read_rows(index, part) if layout.is_plain else self._decode(index)
        is_float = self._dtype.kind == "f", piece.dtype.kind == "f"
        if is_float[0] != is_float[1] or piece.itemsize != self._dtype.itemsize:
            raise ValueError("its tags contradict each other")
        self._cache[key] = piece
        self._cached += piece.nbytes
        while self._cached > self._room and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._cached -= oldest.nbytes
        return piece

    def _decode(self, index: int) -> NDArray[Any]:
        """A strip or tile by its place in the tags: (h, w, samples)."""
        tiff = self._tiff
        data = self._fetch(tiff.dataoffsets[index], tiff.databytecounts[index])
        if tiff.compression == Compression.JPEG and _END_OF_JPEG not in data:
            raise ValueError("a tile ends too early")  # the decoder would make up grey
        piece, _, _ = tiff.decode(
            data,
            index,
            jpegtables=tiff.jpegtables,
            jpegheader=tiff.jpegheader,
            _fullsize=self._layout.is_tiled,
        )
        assert piece is not None  # as there are data
        return piece[0]

    def _read_rows(self, index: int, part: int) -> NDArray[Any]:
        """Part of a plainly stored strip: (h, w, samples)."""
        layout, tiff = self._layout, self._tiff
        strip = index % layout.rows
        rows = min(layout.tile_height, layout.height - strip * layout.tile_height)
        row = layout.width * layout.samples * self._dtype.itemsize
        if tiff.databytecounts[index] < rows * row:
            raise ValueError("a strip ends too early")
        step = math.ceil(layout.tile_height / self._parts)
        count = min(step, rows - part * step)
        data = self._fetch(tiff.dataoffsets[index] + part * step * row, count * row)
        stored = np.frombuffer(data, self._dtype.newbyteorder(tiff.parent.byteorder))
        shape = count, layout.width, layout.samples
        return stored.astype(self._dtype, copy=False).reshape(shape)

    def _fetch(self, offset: int, count: int) -> bytes:
        """Bytes of the file.

        Raises:
            ValueError: If it does not have them.
        """
        self._file.seek(offset)
        data = self._file.read(count)
        if count < 1 or offset < 1 or len(data) < count:
            raise ValueError("it ends within its picture")
        return data

    def _check(self) -> None:
        """Refuse tags of which tifffile makes something else.

        Raises:
            ValueError: If there are such.
        """
        layout, tiff = self._layout, self._tiff
        shape = layout.planes, 1, layout.height, layout.width, layout.samples
        tile = layout.tile_width, layout.tile_height
        theirs = tiff.tilewidth, tiff.tilelength
        if not layout.is_tiled:
            theirs = layout.width, min(tiff.rowsperstrip, layout.height)
        pieces = layout.planes * layout.rows * layout.columns
        if (
            (tiff.shaped, theirs) != (shape, tile)
            or tiff.dtype is None
            or tiff.imagedepth != 1
            or tiff.tiledepth != 1
            or min(len(tiff.dataoffsets), len(tiff.databytecounts)) < pieces
        ):
            raise ValueError("its tags contradict each other")
        self._dtype = tiff.dtype

    def _cut(self) -> tuple[NDArray[np.intp], int]:
        """Where pieces begin, in rows, and how many of them make a strip.

        A strip that is stored plainly is taken in parts if it is long: some programs
        make one of a whole picture.
        """
        layout = self._layout
        tops = np.arange(layout.rows, dtype=np.intp) * layout.tile_height
        row = layout.width * layout.samples * self._dtype.itemsize
        part = max(1, _PART // row)
        if not layout.is_plain or layout.tile_height <= part:
            return tops, 1
        parts = math.ceil(layout.tile_height / part)
        part = math.ceil(layout.tile_height / parts)
        parts = math.ceil(layout.tile_height / part)
        tops = (tops[:, None] + np.arange(parts) * part).ravel()
        return tops[tops < layout.height], parts
