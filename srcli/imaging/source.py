"""A picture file opened to be read, whole or box by box."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from srcli.imaging.box import Box
from srcli.imaging.files import probe_picture, read_picture
from srcli.imaging.metadata import Metadata
from srcli.imaging.picture import Picture, PictureInfo, strip_metadata
from srcli.imaging.profiles import convert_to_srgb
from srcli.imaging.tiff_windows import TiffWindows, open_windows
from srcli.storage import Place


class PictureFile:
    """A picture file whose pixels are read when they are asked for; not thread-safe.

    `open_picture` makes it.

    Attributes:
        info: What its header says.
        metadata: What goes from the input file to the output file.
        levels: `Picture.levels` of the whole; of floating point that is read by box,
            all of it is read once to find them.
    """

    def __init__(
        self, info: PictureInfo, whole: Picture | None, windows: TiffWindows | None
    ) -> None:
        self.info, self._whole, self._windows = info, whole, windows
        self.metadata: Metadata = Metadata()
        self.levels: tuple[float, float] = (0, 1)
        self._icc: bytes | None = None

    def read(self, box: Box | None = None) -> Picture:
        """The pixels in a box, `whole_levels` set; None is all of the picture."""
        if self._whole is not None:
            if box is None:
                return self._whole
            rows, columns = box.slices
            alpha = self._whole.alpha
            return replace(
                self._whole,
                pixels=self._whole.pixels[rows, columns],
                alpha=None if alpha is None else alpha[rows, columns],
                whole_levels=self.levels,
            )
        assert self._windows is not None
        box = box or Box(0, 0, self.info.height, self.info.width)
        part = self._convert(self._windows.read(*box.slices))
        return replace(part, metadata=self.metadata, whole_levels=self.levels)

    def _convert(self, part: Picture) -> Picture:
        if self._icc is None:
            return part
        return replace(part, pixels=convert_to_srgb(part.pixels, self._icc))


@contextmanager
def open_picture(
    source: Place | bytes,
    *,
    name: str | None = None,
    frame: int | None = None,
    keep_metadata: bool = True,
    by_box: bool = False,
) -> Iterator[PictureFile]:
    """A picture file opened to be read.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it; the path where None.
        frame: Which of several frames or pages, from 1; None is the only one.
        keep_metadata: Whether metadata are kept; else colours are converted to sRGB.
        by_box: Whether it is never decoded as a whole, as it may be larger than memory;
            only a picture whose `info.is_windowed` is can be read so.

    Raises:
        InputError: As `read_picture`; with `by_box` what is about the pixels is raised
            by `read`.
    """
    info = probe_picture(source, name=name, frame=frame)
    title = name or ("the picture" if isinstance(source, bytes) else str(source))
    if not by_box:
        whole = read_picture(source, name=name, frame=frame)
        if not keep_metadata:
            whole = strip_metadata(whole, title)
        opened = PictureFile(info, whole, None)
        opened.metadata, opened.levels = whole.metadata, whole.levels
        yield opened
        return
    with open_windows(source, title, frame) as windows:
        opened = PictureFile(info, None, windows)
        opened.metadata = windows.metadata
        if not keep_metadata:
            kept = windows.metadata.stripped()
            pixel = np.zeros((1, 1, windows.channels), np.uint8)
            stripped = strip_metadata(Picture(pixel, metadata=kept), title)
            opened.metadata = stripped.metadata
            try:
                convert_to_srgb(pixel, kept.icc or b"")
                opened._icc = kept.icc
            except ValueError:
                opened._icc = None
        opened.levels = windows.measure(opened._convert)
        yield opened
