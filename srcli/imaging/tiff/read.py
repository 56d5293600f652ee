"""Boxes of a TIFF page read: only the strips or tiles that they touch are decoded.

tifffile decodes them; a bounded number is kept for the next box.
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from itertools import product
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF

from srcli.errors import InputError
from srcli.imaging.alpha import peak_level
from srcli.imaging.box import Box
from srcli.imaging.planes import Planes, in_bands, look_up, unmultiply, widen
from srcli.imaging.profiles import convert_cmyk, convert_to_srgb, profile_fits
from srcli.imaging.tiff.layout import CCITT, Page

log = logging.getLogger(__name__)

_LEAST_CACHE, _MOST_CACHE = 1 << 26, 1 << 29  # bytes of decoded strips or tiles
_AHEAD = 1 << 26  # bytes that may be decoded at a time
_THREADS = min(4, os.cpu_count() or 1)  # that decode
_PART = 1 << 20  # bytes of a plain strip that are read at a time
_END_OF_JPEG = b"\xff\xd9"  # ITU-T T.81, table B.1; coded pixels cannot contain it
# Decoders of fax make up rows where bytes are missing. What they make of a whole strip
# does not depend on what follows it.
_FAX_TAILS = b"\x00" * 64, bytes(range(255, 0, -1))

_Key = tuple[int, int, int]  # of a piece: plane, row and column


class PageReader:
    """Reads boxes of a page; not thread-safe.

    What is read at a time is a piece: a strip or tile, or part of a long strip.
    """

    def __init__(self, file: IO[bytes], page: Page) -> None:
        self._file, self._page = file, page
        assert page.directory.dtype is not None
        self._dtype: np.dtype[Any] = page.directory.dtype
        page.directory.init_decode()
        self._tops, self._parts = self._cut()
        self._cache: OrderedDict[_Key, NDArray[Any]] = OrderedDict()
        self._cached = 0  # bytes
        self._said: set[str] = set()

    def read(self, box: Box) -> Planes:
        """The pixels in a box, neither box nor pixels turned upright.

        Raises:
            InputError: If floating-point samples are not finite.
            ValueError: If the file is damaged (others: what decoders raise).
        """
        page = self._page
        samples = self._gather(box)
        left = page.samples - page.colours - page.has_alpha
        if left:
            one = "1 further channel is left out"
            self._warn(one if left == 1 else f"{left} further channels are left out")
        is_float = page.depth == 32
        planes = self._as_float(samples) if is_float else widen(samples, page.bits)
        colours = planes[:, :, : page.colours]
        if page.photometric == PHOTOMETRIC.PALETTE:
            colours = look_up(self._page.palette, samples[:, :, 0])
        elif page.photometric == PHOTOMETRIC.MINISWHITE:
            colours = peak_level(planes.dtype) - colours
        opacity = None if page.opacity is None else planes[:, :, page.opacity]
        if opacity is not None and is_float:
            opacity = opacity.clip(0, 1)
        if opacity is not None and page.is_premultiplied:
            colours = unmultiply(colours, opacity)
        if page.photometric == PHOTOMETRIC.YCBCR:
            colours = in_bands(self._from_ycbcr, colours, channels=3, dtype=np.uint8)
        elif page.photometric in (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB):
            dtype = colours.dtype
            colours = in_bands(self._from_lab, colours, channels=3, dtype=dtype)
        elif page.photometric == PHOTOMETRIC.SEPARATED:
            colours = convert_cmyk(colours, self._cmyk_profile, page.name)
        return Planes(colours, opacity, page.has_own_colours)

    def _gather(self, box: Box) -> NDArray[Any]:
        """The samples in a box as they are stored, (h, w, samples)."""
        page = self._page
        width, depth = page.tile[1], page.samples // page.planes
        first = int(np.searchsorted(self._tops, box.top, "right")) - 1
        last = int(np.searchsorted(self._tops, box.bottom - 1, "right"))
        rows = range(first, last)
        columns = range(box.left // width, (box.right - 1) // width + 1)
        keys = list(product(range(page.planes), rows, columns))
        # From box to box along a row of them, each piece is then decoded once.
        piece = math.prod(page.tile) * depth * self._dtype.itemsize // self._parts
        room = max(_LEAST_CACHE, min((len(keys) + 1) * piece, _MOST_CACHE))
        if box.size == page.stored:
            room = 0  # nothing is left to be read
        samples: NDArray[Any] | None = None
        for (plane, row, column), found in self._pieces(keys, room, piece):
            top, left = int(self._tops[row]) - box.top, column * width - box.left
            # The part of the piece that the box has.
            y, x = max(top, 0), max(left, 0)
            inner = found[y - top : box.height - top, x - left : box.width - left]
            if not room and inner.shape == (*box.size, page.samples):
                return inner  # no copy of what is not kept
            if samples is None:
                samples = np.empty((*box.size, page.samples), self._dtype)
            channels = slice(plane * depth, (plane + 1) * depth)
            height, across = inner.shape[:2]
            samples[y : y + height, x : x + across, channels] = inner
        assert samples is not None
        return samples

    def _pieces(
        self, keys: list[_Key], room: int, size: int
    ) -> Iterator[tuple[_Key, NDArray[Any]]]:
        """Decoded pieces, (h, w, samples), some of them at a time.

        Args:
            keys: Which.
            room: Bytes of them that are kept for later.
            size: Bytes of one, about.
        """
        page = self._page
        threads = max(1, min(_THREADS, _AHEAD // max(size, 1)))
        waiting: deque[tuple[_Key, Future[NDArray[Any]]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            for key in keys:
                if key in self._cache:
                    self._cache.move_to_end(key)
                    yield key, self._cache[key]
                elif page.is_plain:
                    yield key, self._keep(key, self._read_rows(key), room)
                else:
                    index = (key[0] * page.rows + key[1]) * page.columns + key[2]
                    data = self._fetch(page.offsets[index], page.counts[index])
                    waiting.append((key, pool.submit(self._decode, data, index)))
                if len(waiting) > threads:
                    first, piece = waiting.popleft()
                    yield first, self._keep(first, piece.result(), room)
            for first, piece in waiting:
                yield first, self._keep(first, piece.result(), room)

    def _keep(self, key: _Key, piece: NDArray[Any], room: int) -> NDArray[Any]:
        """A piece, kept if there is room for more than the last one."""
        is_float = self._dtype.kind == "f", piece.dtype.kind == "f"
        if is_float[0] != is_float[1] or piece.itemsize != self._dtype.itemsize:
            raise ValueError("its tags contradict each other")
        if room:
            self._cache[key] = piece
            self._cached += piece.nbytes
            while self._cached > room and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return piece

    def _read_rows(self, key: _Key) -> NDArray[Any]:
        """Rows of a plain strip."""
        page, (plane, row, _) = self._page, key
        strip, part = divmod(row, self._parts)
        index = plane * page.rows + strip
        rows = min(page.tile[0], page.stored[0] - strip * page.tile[0])
        if page.counts[index] < rows * page.row_bytes:
            raise ValueError("a strip ends too early")
        step = math.ceil(page.tile[0] / self._parts)
        rows = min(step, rows - part * step)
        start = page.offsets[index] + part * step * page.row_bytes
        order = page.directory.parent.byteorder
        data = self._fetch(start, rows * page.row_bytes)
        stored = np.frombuffer(data, self._dtype.newbyteorder(order))
        native = stored.astype(self._dtype, copy=False)
        return native.reshape(rows, page.stored[1], page.samples // page.planes)

    def _fetch(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(count)
        if count < 1 or offset < 1 or len(data) < count:
            raise ValueError("it ends within its picture")
        return data

    def _decode(self, data: bytes, index: int) -> NDArray[Any]:
        """A strip or tile by its place in the tags: (h, w, samples)."""
        page, tags = self._page, self._page.directory
        if page.subsampling != (1, 1):
            return self._unpack_units(data, index)
        if tags.compression == COMPRESSION.JPEG and _END_OF_JPEG not in data:
            raise ValueError("a tile ends too early")  # the decoder would make up grey
        pieces = [
            tags.decode(
                data + tail,
                index,
                jpegtables=tags.jpegtables,
                jpegheader=tags.jpegheader,
                _fullsize=page.is_tiled,
            )[0]
            for tail in (_FAX_TAILS if tags.compression in CCITT else (b"",))
        ]
        first, last = pieces[0], pieces[-1]
        assert first is not None  # as there are data
        assert last is not None
        if first is not last and not np.array_equal(first, last):
            raise ValueError("a strip ends too early")
        return first[0]

    def _unpack_units(self, data: bytes, index: int) -> NDArray[np.uint8]:
        """A strip or tile of subsampled YCbCr: TIFF 6.0, section 21."""
        page, tags = self._page, self._page.directory
        (height, width), (across, down) = page.tile, page.subsampling
        if not page.is_tiled:
            height = min(height, page.stored[0] - index * height)
        rows, columns = math.ceil(height / down), math.ceil(width / across)
        size = across * down + 2
        if tags.fillorder == 2:
            data = bytes(imagecodecs.bitorder_decode(data))
        if tags.compression != COMPRESSION.NONE:
            decompress = TIFF.DECOMPRESSORS[tags.compression]
            data = decompress(data, out=rows * columns * size)
        if len(data) < rows * columns * size:
            raise ValueError("a strip ends too early")
        units = np.frombuffer(data, np.uint8, rows * columns * size)
        units = units.reshape(rows, columns, size)
        luma = units[:, :, :-2].reshape(rows, columns, down, across).swapaxes(1, 2)
        piece = np.empty((rows * down, columns * across, 3), np.uint8)
        piece[:, :, 0] = luma.reshape(piece.shape[:2])
        piece[:, :, 1:] = units[:, :, -2:].repeat(down, axis=0).repeat(across, axis=1)
        return piece[:height, :width]

    def _from_ycbcr(self, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A band of YCbCr as RGB: TIFF 6.0, sections 20 and 21."""
        (red, green, blue), low, scale = self._ycbcr
        y, cb, cr = np.moveaxis((planes - low) * scale, 2, 0)
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        g = (y - blue * b - red * r) / green
        return np.floor(np.stack((r, g, b), 2).clip(0, 255) + np.float32(0.5))

    @cached_property
    def _ycbcr(self) -> tuple[NDArray[np.float32], ...]:
        """Shares of RGB in the luma; what is 0, and how long a level is, of each."""
        shares = np.array(self._page.numbers(529, (0.299, 0.587, 0.114)), np.float32)
        default = 0, 255, 128, 255, 128, 255  # ReferenceBlackWhite
        low, high = (
            np.array(self._page.numbers(532, default), np.float32).reshape(3, 2).T
        )
        if not shares[1] or (low == high).any():
            raise ValueError("its tags of YCbCr make no sense")
        return shares, low, np.array((255, 127, 127), np.float32) / (high - low)

    def _from_lab(self, planes: NDArray[Any]) -> NDArray[np.float32]:
        """A band of Lab of 8 or 16 bits as sRGB; white is that of D50.

        Source: TIFF 6.0, section 23; for ICCLab ICC.1:2001-04, section 6.3.4.
        """
        peak = peak_level(planes.dtype)
        unit = np.float32(1 if peak == 255 else 256)
        if self._page.photometric == PHOTOMETRIC.CIELAB:
            chroma = planes[:, :, 1:].view(f"i{planes.itemsize}") / unit
            white = peak
        else:
            chroma = planes[:, :, 1:] / unit - np.float32(128)
            white = int(255 * unit)
        lab = np.empty(planes.shape, np.float32)
        lab[:, :, 0] = planes[:, :, 0] * np.float32(100 / white)
        lab[:, :, 1:] = chroma
        rgb = imagecodecs.cms_transform(
            lab,
            imagecodecs.cms_profile("lab4"),
            imagecodecs.cms_profile("srgb"),
            colorspace="lab",
            outcolorspace="rgb",
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
            # Else it makes tables, which are too coarse.
            flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,
        )
        return np.floor(rgb.clip(0, 1) * np.float32(peak) + np.float32(0.5))

    def _as_float(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Floating point of 16 to 64 bits as 32 bits.

        Raises:
            InputError: If a value is not finite.
        """

        def shorten(band: NDArray[Any]) -> NDArray[Any]:
            with np.errstate(over="ignore"):
                return band.astype(np.float32)

        single = samples
        if samples.dtype != np.float32:
            channels = samples.shape[2]
            single = in_bands(shorten, samples, channels=channels, dtype=np.float32)
        if not np.isfinite(single).all():
            name = self._page.name
            raise InputError(f"{name} holds values that are not finite numbers")
        if samples.dtype.itemsize > 4 and (single != samples).any():
            self._warn("its 64-bit values are read with 32 bits")
        return single

    @cached_property
    def _cmyk_profile(self) -> bytes | None:
        """The page's profile if it can be used for CMYK."""
        icc = self._page.info.get("icc_profile")
        if icc is None or not profile_fits(icc, self._page.colours):
            return None
        try:
            convert_to_srgb(np.zeros((1, 1, self._page.colours), np.uint8), icc)
        except ValueError:
            self._warn("its CMYK profile cannot be used: converted plainly")
            return None
        return bytes(icc)

    def _warn(self, text: str) -> None:
        """Log something, but of all boxes of a page only once."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s: %s", self._page.name, text)

    def _cut(self) -> tuple[NDArray[np.intp], int]:
        """Where pieces begin, in rows, and how many of them make a strip.

        A plain strip is taken in parts if it is long: some programs make one of a
        whole picture.
        """
        page, height = self._page, self._page.tile[0]
        parts = 1
        if page.is_plain:
            step = min(height, max(1, _PART // page.row_bytes))
            step = math.ceil(height / math.ceil(height / step))
            parts = math.ceil(height / step)
        tops = np.arange(page.rows, dtype=np.intp) * height
        tops = (tops[:, None] + np.arange(parts) * math.ceil(height / parts)).ravel()
        return tops[tops < page.stored[0]], parts
