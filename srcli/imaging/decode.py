"""The pixels of files that Pillow opens, as grey or RGB of 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import IO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import InputError
from srcli.imaging.chunks import read_critical
from srcli.imaging.planes import Planes, split_alpha, widen
from srcli.imaging.profiles import convert_cmyk

# Pillow's mode -> the mode of the planes: opaque, and with a transparent colour.
_PLANES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "1": ("L", "LA"),
        "L": ("L", "LA"),
        "LA": ("LA", "LA"),
        "La": ("LA", "LA"),
        "P": ("RGB", "RGBA"),
        "PA": ("RGBA", "RGBA"),
        "RGB": ("RGB", "RGBA"),
        "RGBX": ("RGB", "RGB"),
        "RGBA": ("RGBA", "RGBA"),
        "RGBa": ("RGBA", "RGBA"),
        "YCbCr": ("RGB", "RGB"),
    }
)
_GREY_MODES = ("1", "L", "LA", "La")

# PNG: third edition, section 11.2.1; the signature, length and name of IHDR come first.
_PNG_HEADER, _PNG_DEPTH, _PNG_COLOUR = slice(12, 16), 24, 25
_PNG_GREY = (0, 4)  # colour types, without and with alpha
# Flags of an AVIF: AV1 in ISOBMFF, section 2.3.3.
_HIGH_BITDEPTH, _TWELVE_BIT, _MONOCHROME = 0x40, 0x20, 0x10


def stored_bits(image: Image.Image, head: bytes) -> int:
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


def is_grey(image: Image.Image, head: bytes) -> bool:
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
    if image.mode not in _PLANES:
        raise InputError(
            f"{name} holds {image.mode} pixels, which are not supported: "
            "save it with 8 or 16 bits a channel"
        )
    mode = _PLANES[image.mode][1 if image.has_transparency_data else 0]
    planes = np.asarray(image if image.mode == mode else image.convert(mode))
    return planes if planes.ndim == 3 else planes[:, :, None], True


def decode_deep(file: IO[bytes], format: str, bits: int, frame: int) -> Planes:
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
