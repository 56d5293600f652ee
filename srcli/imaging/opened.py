"""Picture files opened: what a header says, and the pixels once they are asked for."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import InputError
from srcli.imaging.chunks import (
    Chunk,
    carried,
    find_nclx,
    one_pixel,
    read_ancillary,
)
from srcli.imaging.decode import decode_deep, decode_planes, is_grey, stored_bits
from srcli.imaging.exif import MALFORMED, read_orientation
from srcli.imaging.formats import FORMATS
from srcli.imaging.pillow import check_size, identify
from srcli.imaging.planes import Planes, split_alpha

log = logging.getLogger(__name__)

_HEAD = 1 << 16  # bytes in which a header is looked for


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
        file.seek(0)
        head = file.read(_HEAD)
        self.format = format_name(image)
        self.chunks: tuple[Chunk, ...] = ()
        self.is_windowed = False
        self._is_whole = True
        self._spoken = image  # that knows what is said beside the pixels
        if image.format == "PNG":
            chunks, self._is_whole = read_ancillary(file)
            self.chunks = carried(chunks)
            self._spoken = identify(io.BytesIO(one_pixel(chunks)))
        elif image.format == "AVIF":
            self.chunks = find_nclx(head)
        self._size = image.size
        self.width, self.height = image.size
        # Pillow gives a TIFF's size as it will be once turned, others' as stored.
        if image.format != "TIFF" and self.orientation >= 5:
            self.width, self.height = self.height, self.width
        self.has_alpha = image.has_transparency_data
        self._bits = stored_bits(image, head)
        # An animated PNG's frames are composed by Pillow, in 8 bits.
        self._is_deep = self._bits > 8 and not (image.format == "PNG" and frame)
        self.depth = 16 if self._is_deep else 8
        self.channels = 1 if is_grey(image, head) else 3

    @property
    def info(self) -> Mapping[Any, Any]:
        """What Pillow calls so: profile, EXIF, XMP, resolution, texts."""
        return self._spoken.info

    @property
    def exif(self) -> Image.Exif:
        """EXIF; empty where it cannot be read."""
        try:
            return self._spoken.getexif()
        except MALFORMED:
            return Image.Exif()

    @property
    def orientation(self) -> int:
        """The EXIF orientation that `load` leaves to be applied, 1 to 8.

        It is 1 once a TIFF is loaded, which Pillow turns itself.
        """
        return read_orientation(self.exif)

    def load(self) -> Planes:
        """The pixels as stored.

        Raises:
            InputError: If they are of a kind that would lose what it holds.
            ValueError: If the file is damaged (others: what decoders raise).
        """
        planes = self._decode()
        if planes.pixels.shape[1::-1] != self._size:
            raise ValueError("its frames differ in size")
        if not self._is_whole:
            log.warning("%s: its metadata are damaged: some may be lost", self._name)
        if self.channels < planes.pixels.shape[2]:
            return planes._replace(pixels=planes.pixels[:, :, :1])  # all are the same
        return planes

    def _decode(self) -> Planes:
        if self._is_deep:
            return decode_deep(self._file, self.format, self._bits, self._frame)
        if self._bits > 8:
            log.warning(
                "%s: its %d bits a channel are read as 8", self._name, self._bits
            )
        self._image.load()
        planes, own_colours = decode_planes(self._image, self._name)
        return split_alpha(planes)._replace(own_colours=own_colours)


def format_name(image: Image.Image) -> str:
    """Our name of the file format that an opened file is in."""
    if image.format == "MPO":
        return "jpg"
    names = {entry.pillow: name for name, entry in FORMATS.items()}
    return names.get(image.format or "", "png")


def open_frame(file: IO[bytes], name: str, frame: int | None) -> tuple[PillowFile, int]:
    """A file that Pillow reads, not yet decoded, and how many frames it has.

    Args:
        file: The file.
        name: What messages call it.
        frame: Which of several frames, from 1; None is the only one.

    Raises:
        InputError: If it has several frames and none was chosen, has no such frame, or
            more than `MAX_PIXELS` (others: what Pillow raises).
    """
    image = identify(file)
    check_size(*image.size, name)  # before the frames are counted, which may decode
    frames = getattr(image, "n_frames", 1)
    if frame is None and image.format == "MPO":
        frame = 1  # a JPEG that carries more pictures, such as a depth map
    index = choose_frame(name, frame, frames, "frame")
    for number in range(frames > 1 and index + 1):
        image.seek(number)
        check_size(*image.size, name)  # frames of a GIF may outgrow it
    return PillowFile(file, image, name, index), frames


def choose_frame(name: str, frame: int | None, frames: int, kind: str) -> int:
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


def turn_upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels, (H, W) or (H, W, C), as EXIF's `orientation` wants them shown.

    Source: Exif 2.32, section 4.6.4, tag Orientation: which edges the stored first row
    and first column are.
    """
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)
