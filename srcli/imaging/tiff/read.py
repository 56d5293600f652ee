"""Boxes of a TIFF page: only the strips or tiles that they touch are decoded.

tifffile decodes them; a bounded number is kept for the next box.
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from srcli.imaging.profiles import convert_cmyk, find_cmyk
from srcli.imaging.tiff.layout import CCITT, LAB, Page

log = logging.getLogger(__name__)

_LEAST_CACHE, _MOST_CACHE = 1 << 26, 1 << 29  # bytes of decoded strips or tiles
_AHEAD = 1 << 26  # bytes that may be decoded at a time
_THREADS = min(4, os.cpu_count() or 1)  # that decode
_END_OF_JPEG = b"\xff\xd9"  # ITU-T T.81, table B.1; coded pixels cannot contain it
# Decoders of fax make up rows where bytes are missing. What they make of a whole strip
# does not depend on what follows it.
_FAX_TAILS = b"\x00" * 64, bytes(range(255, 0, -1))


class PageReader:
    """Reads boxes of a page; not thread-safe."""

    def __init__(self, file: IO[bytes], page: Page) -> None:
        self._file, self._page = file, page
        page.directory.init_decode()
        self._cache: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._cached = 0  # bytes
        self._said: set[str] = set()
        self._convert = _find_conversion(page)

    def read(self, box: Box) -> Planes:
        """The pixels in a box, neither box nor pixels turned upright.

        Raises:
            InputError: If floating-point samples are not finite.
            ValueError: If the file is damaged (others: what decoders raise).
        """
        page = self._page
        samples = self._gather(box)
        left = page.samples - page.colours - page.info.alpha
        if left:
            one = "1 further channel is left out"
            self._warn(one if left == 1 else f"{left} further channels are left out")
        planes = self._as_float(samples) if page.is_float else widen(samples, page.bits)
        colours = planes[:, :, : page.colours]
        if page.photometric == PHOTOMETRIC.PALETTE:
            colours = look_up(page.palette, samples[:, :, 0])
        elif page.photometric == PHOTOMETRIC.MINISWHITE:
            colours = peak_level(planes.dtype) - colours
        opacity = None if page.opacity is None else planes[:, :, page.opacity]
        if opacity is not None and page.is_float:
            opacity = opacity.clip(0, 1)
        if opacity is not None and page.is_premultiplied:
            colours = unmultiply(colours, opacity)
        if self._convert is not None:
            colours = in_bands(self._convert, colours, channels=3, dtype=colours.dtype)
        return Planes(colours, opacity, page.has_own_colours)

    def _gather(self, box: Box) -> NDArray[Any]:
        """The samples in a box as they are stored, (h, w, samples)."""
        page, (height, width) = self._page, self._page.tile
        depth = page.samples // page.planes
        rows = range(box.top // height, math.ceil(box.bottom / height))
        columns = range(box.left // width, math.ceil(box.right / width))
        keys = list(product(range(page.planes), rows, columns))
        size = height * width * depth * page.dtype.itemsize
        # From box to box along a row of them, each strip or tile is then decoded once.
        room = max(_LEAST_CACHE, min((len(keys) + 1) * size, _MOST_CACHE))
        if box.size == page.stored:
            room = 0  # nothing is left to be read
        samples: NDArray[Any] | None = None
        numbers = [(p * page.rows + y) * page.columns + x for p, y, x in keys]
        pieces = self._pieces(numbers, room, max(1, min(_THREADS, _AHEAD // size)))
        for (plane, row, column), piece in zip(keys, pieces, strict=True):
            top, left = row * height - box.top, column * width - box.left
            # The part of the piece that the box has.
            y, x = max(top, 0), max(left, 0)
            inner = piece[y - top : box.height - top, x - left : box.width - left]
            if not room and inner.shape == (*box.size, page.samples):
                return inner  # no copy of what is not kept
            if samples is None:
                samples = np.empty((*box.size, page.samples), page.dtype)
            channels = slice(plane * depth, (plane + 1) * depth)
            samples[y : y + len(inner), x : x + inner.shape[1], channels] = inner
        assert samples is not None
        return samples

    def _pieces(
        self, numbers: list[int], room: int, threads: int
    ) -> Iterator[NDArray[Any]]:
        """Strips or tiles, (h, w, samples), of which `room` bytes are kept."""
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(numbers), threads):
                some = numbers[start : start + threads]
                kept = {number: self._cache.get(number) for number in some}
                coming = {
                    number: pool.submit(self._decode, self._fetch(number), number)
                    for number in some
                    if kept[number] is None
                }
                for number in some:
                    piece = kept[number]
                    if piece is None:
                        piece = coming[number].result()
                    self._keep(number, piece, room)
                    yield piece

    def _keep(self, number: int, piece: NDArray[Any], room: int) -> None:
        """Keep a strip or tile for the next box, as far as there is room."""
        if room and number not in self._cache:
            self._cache[number] = piece
            self._cached += piece.nbytes
            while self._cached > room and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        elif room:
            self._cache.move_to_end(number)

    def _fetch(self, number: int) -> bytes:
        offset, count = self._page.offsets[number], self._page.counts[number]
        self._file.seek(offset)
        data = self._file.read(count)
        if count < 1 or offset < 1 or len(data) < count:
            raise ValueError("it ends within its picture")
        return data

    def _decode(self, data: bytes, number: int) -> NDArray[Any]:
        """A strip or tile: (h, w, samples)."""
        page, tags = self._page, self._page.directory
        if page.is_plain:
            stored = np.frombuffer(data, page.dtype.newbyteorder(tags.parent.byteorder))
            native = stored.astype(page.dtype, copy=False)
            return native.reshape(-1, page.stored[1], page.samples // page.planes)
        if page.subsampling != (1, 1):
            return self._unpack_units(data, number)
        if tags.compression == COMPRESSION.JPEG and _END_OF_JPEG not in data:
            raise ValueError("a tile ends too early")  # the decoder would make up grey
        tables = {"jpegtables": tags.jpegtables, "jpegheader": tags.jpegheader}
        pieces = [
            tags.decode(data + tail, number, **tables, _fullsize=page.is_tiled)[0]
            for tail in (_FAX_TAILS if tags.compression in CCITT else (b"",))
        ]
        first, last = pieces[0], pieces[-1]
        assert first is not None  # as there are data
        assert last is not None
        if first is not last and not np.array_equal(first, last):
            raise ValueError("a strip ends too early")
        is_float = first.dtype.kind == "f"
        if is_float != page.is_float or first.itemsize != page.dtype.itemsize:
            raise ValueError("its tags contradict each other")
        return first[0]

    def _unpack_units(self, data: bytes, number: int) -> NDArray[np.uint8]:
        """A strip or tile of subsampled YCbCr: TIFF 6.0, section 21."""
        page, tags = self._page, self._page.directory
        (height, width), (across, down) = page.tile, page.subsampling
        if not page.is_tiled:
            height = min(height, page.stored[0] - number * height)
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

    def _as_float(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Floating point of 16 to 64 bits as 32 bits."""

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

    def _warn(self, text: str) -> None:
        """Log something, but of all boxes of a page only once."""
        if text not in self._said:
            self._said.add(text)
            log.warning("%s: %s", self._page.name, text)


def _find_conversion(page: Page) -> partial[NDArray[Any]] | None:
    """What makes RGB of a page's bands; None where they are grey or RGB."""
    if page.photometric == PHOTOMETRIC.YCBCR:
        shares = np.array(page.numbers(529, (0.299, 0.587, 0.114)), np.float32)
        default = 0, 255, 128, 255, 128, 255  # ReferenceBlackWhite
        low, high = np.array(page.numbers(532, default), np.float32).reshape(3, 2).T
        if not shares[1] or (low == high).any():
            raise ValueError("its tags of YCbCr make no sense")
        scale = np.array((255, 127, 127), np.float32) / (high - low)
        return partial(_from_ycbcr, shares=shares, low=low, scale=scale)
    if page.photometric in LAB:
        return partial(_from_lab, is_icc=page.photometric == PHOTOMETRIC.ICCLAB)
    if page.photometric == PHOTOMETRIC.SEPARATED:
        icc = find_cmyk(page.said.get("icc_profile"), page.name)
        return partial(convert_cmyk, icc=icc)
    return None


def _from_ycbcr(
    planes: NDArray[np.uint8],
    shares: NDArray[np.float32],
    low: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> NDArray[np.float32]:
    """YCbCr as RGB, from the shares of RGB in the luma: TIFF 6.0, sections 20, 21."""
    red, green, blue = shares
    y, cb, cr = np.moveaxis((planes - low) * scale, 2, 0)
    r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
    g = (y - blue * b - red * r) / green
    return np.floor(np.stack((r, g, b), 2).clip(0, 255) + np.float32(0.5))


def _from_lab(planes: NDArray[Any], is_icc: bool) -> NDArray[np.float32]:
    """Lab of 8 or 16 bits as sRGB; white is that of D50.

    Source: TIFF 6.0, section 23; for ICCLab ICC.1:2001-04, section 6.3.4.
    """
    peak = white = peak_level(planes.dtype)
    unit = np.float32(1 if peak == 255 else 256)
    if is_icc:
        chroma, white = planes[:, :, 1:] / unit - np.float32(128), int(255 * unit)
    else:
        chroma = planes[:, :, 1:].view(f"i{planes.itemsize}") / unit
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
        flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,  # else by tables, which are too coarse
    )
    return np.floor(rgb.clip(0, 1) * np.float32(peak) + np.float32(0.5))
