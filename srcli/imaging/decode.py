"""Pictures that Pillow opens: what a header says, and the pixels as grey or RGB."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO, Any

import imagecodecs
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
    read_critical,
)
from srcli.imaging.exif import MALFORMED, read_orientation
from srcli.imaging.formats import FORMATS
from srcli.imaging.pillow import check_size, identify
from srcli.imaging.planes import Planes, choose_frame, split_alpha, widen
from srcli.imaging.profiles import convert_cmyk

log = logging.getLogger(__name__)

_HEAD = 1 << 16  # bytes in which a header is looked for

_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "YCbCr")

# PNG: third edition, section 11.2.1; the signature, length and name of IHDR come first.
_PNG_HEADER, _PNG_DEPTH, _PNG_COLOUR = slice(12, 16), 24, 25
_PNG_GREY = (0, 4)  # colour types, without and with alpha
# Flags of an AVIF: AV1 in ISOBMFF, section 2.3.3.
_HIGH_BITDEPTH, _TWELVE_BIT, _MONOCHROME = 0x40, 0x20, 0x10


# Bits a channel of a PNG by what Pillow decodes it as, for those that may have a key.
_KEYED: Mapping[str, int] = MappingProxyType({"L;2": 2, "L;4": 4, "L": 8, "RGB": 8})


class PillowFile:
    """A file that Pillow reads, except that other libraries decode deep pixels.

    Attributes:
        format: The file format, a key of `FORMATS`.
        width: In pixels, turned upright.
        height: In pixels, turned upright.
        has_alpha: Whether it has transparency.
        depth: Bits a channel that its pixels come in: 8 or 16.
        channels: Of colour, 1 or 3.
        chunks: PNG chunks that say its colours and what it is about.
        is_windowed: Whether its pixels can be read by box: they cannot.
        info: What Pillow calls so: profile, EXIF, XMP, resolution, texts.
        exif: Its EXIF; empty where it cannot be read.
    """

    is_windowed = False

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
        names = {entry.pillow: name for name, entry in FORMATS.items()}
        kind = "JPEG" if image.format == "MPO" else image.format or ""
        self.format = names.get(kind, "png")
        self.chunks: tuple[Chunk, ...] = ()
        self._is_whole = True
        spoken = image  # that knows what is said beside the pixels
        if image.format == "PNG":
            chunks, self._is_whole = read_ancillary(file)
            self.chunks = carried(chunks)
            spoken = identify(io.BytesIO(one_pixel(chunks)))
        elif image.format == "AVIF":
            self.chunks = find_nclx(head)
        self.info: Mapping[Any, Any] = spoken.info
        try:
            self.exif = spoken.getexif()
        except MALFORMED:
            self.exif = Image.Exif()
        self._size = self.width, self.height = image.size
        # Pillow gives a TIFF's size as it will be once turned, others' as stored.
        if image.format != "TIFF" and self.orientation >= 5:
            self.width, self.height = self.height, self.width
        self.has_alpha = image.has_transparency_data
        self._bits = _stored_bits(image, head)
        # An animated PNG's frames are composed by Pillow, in 8 bits.
        self._is_deep = self._bits > 8 and not (image.format == "PNG" and frame)
        self.depth = 16 if self._is_deep else 8
        self.channels = 1 if _is_grey(image, head) else 3

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
            return _decode_deep(self._file, self.format, self._bits, self._frame)
        if self._bits > 8:
            log.warning(
                "%s: its %d bits a channel are read as 8", self._name, self._bits
            )
        self._image.load()
        planes, own_colours = decode_planes(self._image, self._name)
        return split_alpha(planes)._replace(own_colours=own_colours)


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
    check_size(*image.size, name)  # before anything is decoded, as to count frames
    image = mend(image)
    frames = getattr(image, "n_frames", 1)
    if frame is None and image.format == "MPO":
        frame = 1  # a JPEG that carries more pictures, such as a depth map
    index = choose_frame(name, frame, frames, "frame")
    for number in range(frames > 1 and index + 1):
        image.seek(number)
        check_size(*image.size, name)  # frames of a GIF may outgrow it
    return PillowFile(file, image, name, index), frames


def mend(image: Image.Image) -> Image.Image:
    """An opened picture whose transparency Pillow tells otherwise than it is meant.

    It gives the transparent colour of a PNG in the file's own depth (PNG, third
    edition, section 11.3.2.1: of more bits than that the lowest count), but pixels of 8
    bits. A BMP whose alpha is zero everywhere has none: older programs leave the byte
    empty, and Windows shows the picture.
    """
    key, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    rawmode = tiles[0].args if tiles else ""
    if image.format == "PNG" and key is not None and rawmode in _KEYED:
        peak = 2 ** _KEYED[rawmode] - 1
        levels = key if isinstance(key, tuple) else (key,)
        scaled = tuple((level & peak) * (255 // peak) for level in levels)
        scaled_key = scaled if isinstance(key, tuple) else scaled[0]
        image.info = {**image.info, "transparency": scaled_key}
    is_faint = image.format == "BMP" and image.mode == "RGBA"
    if is_faint and image.getchannel("A").getextrema() == (0, 0):
        opaque = image.convert("RGB")
        opaque.format = image.format
        return opaque
    return image


def _stored_bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel in the file, whatever Pillow makes of them.

    Args:
        image: What Pillow opened.
        head: The first bytes of the file.

    Raises:
        ValueError: If they do not begin as they have to.
    """
    if image.format == "PNG":
        if head[_PNG_HEADER] != b"IHDR":
            raise ValueError("its header does not come first")
        return head[_PNG_DEPTH]
    if image.format == "AVIF":
        flags = _avif_flags(head)
        return 8 if not flags & _HIGH_BITDEPTH else 12 if flags & _TWELVE_BIT else 10
    return 8


def _is_grey(image: Image.Image, head: bytes) -> bool:
    """Whether the file has no colours, whatever Pillow makes of it.

    Args:
        image: What Pillow opened.
        head: The first bytes of the file.
    """
    if image.format == "PNG":
        return head[_PNG_COLOUR] in _PNG_GREY
    if image.format == "AVIF":
        return bool(_avif_flags(head) & _MONOCHROME)
    return image.mode in _GREY_MODES


def _avif_flags(head: bytes) -> int:
    """What the first bytes of an AVIF say of the depth and colours that it has."""
    box = head.find(b"av1C")
    return 0 if box < 0 else int.from_bytes(head[box + 6 : box + 7], "big")


def decode_planes(image: Image.Image, name: str) -> tuple[NDArray[np.uint8], bool]:
    """What Pillow loaded.

    Args:
        image: The loaded picture, of 8 bits a channel at most.
        name: What messages call it.

    Returns:
        (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha; and whether they
        are still in the file's own colours.

    Raises:
        InputError: If the pixels are of a kind that would lose what they hold.
    """
    if image.mode == "CMYK":
        icc = image.info.get("icc_profile") or None
        return convert_cmyk(np.asarray(image), icc, name), False
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise InputError(
            f"{name} holds {image.mode} pixels, which are not supported: "
            "save it with 8 or 16 bits a channel"
        )
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    mode += "A" if image.has_transparency_data else ""
    planes = np.asarray(image if image.mode == mode else image.convert(mode))
    return planes if planes.ndim == 3 else planes[:, :, None], True


def _decode_deep(file: IO[bytes], format: str, bits: int, frame: int) -> Planes:
    """The pixels of a PNG or AVIF of more than 8 bits a channel.

    Args:
        file: The file.
        format: "png" or "avif".
        bits: Bits a channel.
        frame: Which frame, from 0.

    Returns:
        uint16 in the full range.

    Raises:
        ValueError: If the file is damaged (RuntimeError: if the decoder says so).
    """
    if format == "png":
        levels = imagecodecs.png_decode(read_critical(file))
    else:
        file.seek(0)
        levels = imagecodecs.avif_decode(file.read(), index=frame)
    levels = levels if levels.ndim == 3 else levels[:, :, None]
    return split_alpha(widen(levels, bits))
