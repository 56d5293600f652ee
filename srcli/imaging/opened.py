"""Picture files opened: what a header says, and the pixels once they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srcli.errors import InputError
from srcli.imaging.chunks import Chunk, find_exif, find_nclx, read_ancillary
from srcli.imaging.decode import decode_deep, decode_planes, stored_bits
from srcli.imaging.exif import read_orientation
from srcli.imaging.formats import FORMATS
from srcli.imaging.pillow import check_size, identify, open_file
from srcli.imaging.tiff import MAGIC, TiffPage, list_pages

log = logging.getLogger(__name__)

_HEAD = 1 << 16  # bytes in which a header is looked for
_PNG_COLOUR = 25  # where a PNG has its colour type; 0 and 4 are grey (section 11.2.1)


class Opened(Protocol):
    """A picture file, or one frame of it, whose pixels are not decoded yet.

    Attributes:
        format: The file format, a key of `FORMATS`.
        width: In pixels, turned upright.
        height: In pixels, turned upright.
        has_alpha: Whether it has transparency.
        depth: Bits a channel that its pixels come in: 8, 16, or 32 for floating point.
        channels: Of colour, 1 or 3.
    """

    format: str
    width: int
    height: int
    has_alpha: bool
    depth: int
    channels: int

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """PNG chunks that say its colours and what it is about."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What Pillow calls so: profile, EXIF, XMP, resolution, texts."""

    @property
    def exif(self) -> Image.Exif:
        """EXIF, or a TIFF's own tags."""

    @property
    def orientation(self) -> int:
        """The EXIF orientation that `load` leaves to be applied, 1 to 8."""

    def load(self) -> tuple[NDArray[Any], bool]:
        """The pixels as stored.

        Returns:
            (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha; uint8,
            uint16 or float32; and whether they are still in the file's own colours.

        Raises:
            InputError: If they are of a kind that would lose what it holds.
        """


class PillowFile:
    """A file that Pillow reads, except that other libraries decode deep pixels."""

    def __init__(
        self, file: IO[bytes], image: Image.Image, name: str, frame: int
    ) -> None:
        """Read the header.

        Args:
            file: The file that `image` was opened from.
            image: It, standing at the frame.
            name: What messages call it.
            frame: Which frame, from 0.
        """
        self._file, self._image, self._name, self._frame = file, image, name, frame
        self._is_loaded = False
        file.seek(0)
        self._head = file.read(_HEAD)
        self.format = format_name(image)
        self.width, self.height = image.size
        # Pillow gives a TIFF's size as it will be once turned, others' as stored.
        if image.format != "TIFF" and self.orientation >= 5:
            self.width, self.height = self.height, self.width
        self.has_alpha = image.has_transparency_data
        self._bits = stored_bits(image, self._head)
        # An animated PNG's frames are composed by Pillow, in 8 bits.
        self._is_deep = self._bits > 8 and not (image.format == "PNG" and frame)
        self.depth = 16 if self._is_deep else 8
        # Pillow opens a PNG of deep grey with transparency as colour.
        is_grey = image.getbands()[0] in ("1", "L", "I")
        if image.format == "PNG":
            is_grey = self._head[_PNG_COLOUR] in (0, 4)
        self.channels = 1 if is_grey else 3

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """See `Opened`."""
        if self.format == "png" and self._image.format == "PNG":
            return read_ancillary(self._file)
        if self.format == "avif":
            return find_nclx(self._head)
        return ()

    @property
    def info(self) -> Mapping[str, Any]:
        """See `Opened`."""
        return cast("dict[str, Any]", self._image.info)

    @property
    def exif(self) -> Image.Exif:
        """See `Opened`."""
        return self._image.getexif()

    @property
    def orientation(self) -> int:
        """See `Opened`; 1 once a TIFF is loaded, which Pillow turns itself."""
        if self._image.format == "PNG" and not self._is_loaded:
            # Pillow would decode the pixels, as EXIF may stand behind them.
            blob = find_exif(self._file)
            if blob is not None:
                exif = Image.Exif()
                exif.load(blob)
                return read_orientation(exif)
        return read_orientation(self.exif)

    def load(self) -> tuple[NDArray[Any], bool]:
        """See `Opened`."""
        self._image.load()
        self._is_loaded = True
        if self._is_deep:
            deep = decode_deep(self._file, self.format, self._bits, self._frame)
            if deep.shape[:2] != self._image.size[::-1]:
                raise ValueError("its frames differ in size")
            return deep, True
        if self._bits > 8:
            log.warning(
                "%s: its %d bits a channel are read as 8", self._name, self._bits
            )
        return decode_planes(self._image, self._name)


@contextmanager
def open_picture(
    source: Path | bytes, name: str, frame: int | None = None
) -> Iterator[tuple[Opened, int]]:
    """A picture file opened but not yet decoded, and how many frames it has.

    Whatever a decoder raises inside the `with` block becomes an `InputError`.

    Args:
        source: A file, or the bytes of one.
        name: What messages call it.
        frame: Which of several frames or pages, from 1; None is the only one.

    Raises:
        InputError: If the file cannot be read, is no picture, has several frames and
            none was chosen, has no such frame, or more than `MAX_PIXELS`.
    """
    with open_file(source, name) as file:
        is_tiff = file.read(4) in MAGIC
        opened, frames = (_open_tiff if is_tiff else _open_other)(file, name, frame)
        check_size(opened.width, opened.height, name)
        yield opened, frames


def format_name(image: Image.Image) -> str:
    """Our name of the file format that an opened file is in."""
    if image.format == "MPO":
        return "jpg"
    names = {entry.pillow: name for name, entry in FORMATS.items()}
    return names.get(image.format or "", "png")


def _open_other(file: IO[bytes], name: str, frame: int | None) -> tuple[Opened, int]:
    image = identify(file)
    check_size(*image.size, name)  # before the frames are counted, which may decode
    frames = getattr(image, "n_frames", 1)
    if frame is None and image.format == "MPO":
        frame = 1  # a JPEG that carries more pictures, such as a depth map
    index = _choose_frame(name, frame, frames, "frame")
    if frames > 1:
        image.seek(index)
    return PillowFile(file, image, name, index), frames


def _open_tiff(file: IO[bytes], name: str, frame: int | None) -> tuple[Opened, int]:
    pages = list_pages(file, name)
    page = pages[_choose_frame(name, frame, len(pages), "page")]
    if not page.is_deep:
        try:
            image = identify(file)
            if page.index:
                image.seek(page.index)
            return PillowFile(file, image, name, page.index), len(pages)
        except UnidentifiedImageError:
            pass  # a compression or combination of channels that Pillow does not know
    return TiffPage(file, page, name), len(pages)


def _choose_frame(name: str, frame: int | None, frames: int, kind: str) -> int:
    """Which frame is read, from 0.

    Raises:
        InputError: If none was chosen of several, or one that is not there.
    """
    if frame is None and frames > 1:
        raise InputError(
            f"{name} has {frames} {kind}s: choose one with --frame 1 to {frames}"
        )
    if frame is not None and not 1 <= frame <= frames:
        has = f"{frames} {kind}s" if frames > 1 else f"one {kind} only"
        raise InputError(f"{name} has {has}: there is no {kind} {frame}")
    return (frame or 1) - 1


def turn_upright(planes: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels (H, W, C) as EXIF's `orientation` wants them shown.

    Source: Exif 2.32, section 4.6.4, tag Orientation: which edges the stored first row
    and first column are.
    """
    if orientation >= 5:
        planes = planes.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        planes = planes[::-1]
    if orientation in (2, 3, 6, 7):
        planes = planes[:, ::-1]
    return np.ascontiguousarray(planes)
