"""TIFF pages read by window, for pictures that memory is too small for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from srcli.errors import InputError
from srcli.imaging.metadata import Metadata, read_metadata
from srcli.imaging.opened import choose_page, turn_upright
from srcli.imaging.picture import Picture
from srcli.imaging.pillow import (
    MAX_WINDOWED_PIXELS,
    blame,
    check_size,
    open_stream,
    quiet,
)
from srcli.imaging.tiff import TiffPage
from srcli.imaging.tiff_layout import find_obstacle
from srcli.imaging.tiff_pages import MAGIC, Directory
from srcli.imaging.tiff_pieces import Pieces
from srcli.storage import Place

_STEP = 2048  # px; side of the windows in which `measure` goes through a picture


class TiffWindows:
    """A page of a TIFF file of which any window can be read; not thread-safe.

    `open_windows` makes it.

    Attributes:
        width: In pixels, turned upright.
        height: In pixels, turned upright.
        channels: Of colour, 1 or 3.
        has_alpha: Whether it has transparency.
        depth: Bits a channel that its pixels come in: 8, 16, or 32 for floating point.
        metadata: What is beside the pixels.
    """

    def __init__(self, file: IO[bytes], page: Directory, name: str) -> None:
        """Read the tags.

        Raises:
            InputError: If the page is of a kind that would lose what it holds.
            ValueError: If the tags make no sense (others: what tifffile raises).
        """
        self._name = name
        self._page = TiffPage(file, page, name)
        self.width, self.height = self._page.width, self._page.height
        self.channels, self.depth = self._page.channels, self._page.depth
        self.has_alpha = self._page.has_alpha
        self.metadata = self._read_metadata()
        self._pieces = Pieces(file, page)
        self._levels: tuple[float, float] | None = None

    @property
    def levels(self) -> tuple[float, float]:
        """`Picture.levels` of the whole; of floating point, all of it is read once.

        Raises:
            InputError: If the file is damaged, or holds values that are not finite.
        """
        if self._levels is None:
            self._levels = self.measure()
        return self._levels

    def read(self, rows: slice, columns: slice) -> Picture:
        """A window of the picture, upright, without metadata.

        Args:
            rows: Of the upright picture, from start to stop.
            columns: Of it, likewise.

        Returns:
            Its pixels as `read_picture` would give them.

        Raises:
            InputError: If the file is damaged, or holds values that are not finite.
        """
        top, bottom, left, right = self._find_stored(rows, columns)
        with quiet(), blame(self._name):
            planes = self._page.convert(self._pieces.gather(top, bottom, left, right))
            turned = self._page.orientation
            pixels = turn_upright(planes.pixels, turned)
            alpha = planes.alpha
            if alpha is not None:
                alpha = turn_upright(alpha, turned)
            return Picture(pixels, alpha, format="tiff")

    def measure(
        self, change: Callable[[Picture], Picture] | None = None
    ) -> tuple[float, float]:
        """`Picture.levels` of the whole; of floating point, all of it is read.

        Args:
            change: What is done to the pixels of each window before.

        Raises:
            InputError: As `read`.
        """
        if self.depth != 32:
            return 0, 2**self.depth - 1
        black, white = 0.0, 1.0
        for top in range(0, self.height, _STEP):
            rows = slice(top, min(top + _STEP, self.height))
            for left in range(0, self.width, _STEP):
                columns = slice(left, min(left + _STEP, self.width))
                window = self.read(rows, columns)
                low, high = (change(window) if change else window).levels
                black, white = min(black, low), max(white, high)
        return black, white

    def _read_metadata(self) -> Metadata:
        page = self._page
        own_colours = page.channels if page.has_own_colours else 0
        size, turned = (page.width, page.height), page.orientation
        return read_metadata(
            page.info, page.exif, (), self._name, own_colours, size, turned
        )

    def _find_stored(self, rows: slice, columns: slice) -> tuple[int, int, int, int]:
        """Where a window is stored: top, bottom, left, right."""
        turned = self._page.orientation
        y, x = (rows.start, rows.stop), (columns.start, columns.stop)
        assert 0 <= y[0] < y[1] <= self.height
        assert 0 <= x[0] < x[1] <= self.width
        if turned in (3, 4, 7, 8):
            y = self.height - y[1], self.height - y[0]
        if turned in (2, 3, 6, 7):
            x = self.width - x[1], self.width - x[0]
        return (*x, *y) if turned >= 5 else (*y, *x)


@contextmanager
def open_windows(
    source: Place | bytes, name: str, frame: int | None = None
) -> Iterator[TiffWindows]:
    """A TIFF opened to be read by window.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it.
        frame: Which of several pages, from 1; None is the only one.

    Raises:
        InputError: If it cannot be read, is no TIFF, or of a kind that cannot be read
            by window.
    """
    with quiet(), open_stream(source, name) as file:
        with blame(name):
            if file.read(4) not in MAGIC:
                raise InputError(
                    f"{name} is no TIFF, and only those are read by window"
                )
            page, _ = choose_page(file, name, frame)
            obstacle = find_obstacle(page, name)
            if obstacle is not None:
                raise InputError(
                    f"{name} {obstacle}, and cannot be read by window: save it as a "
                    "tiled TIFF in grey or RGB"
                )
            windows = TiffWindows(file, page, name)
            check_size(windows.width, windows.height, name, MAX_WINDOWED_PIXELS)
        yield windows
