"""The pixels of files that Pillow opens, as grey or RGB of 8 or 16 bits."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import IO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from srcli.errors import InputError
from srcli.imaging.chunks import SIGNATURE, read_chunks, write_chunk
from srcli.imaging.profiles import convert_cmyk
from srcli.imaging.tiff import widen

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
_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
# What the pixels of a PNG are made of; all else is left to Pillow, which bounds it.
_CRITICAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def stored_bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel in the file, whatever Pillow makes of them.

    Args:
        image: What Pillow opened.
        head: The first bytes of the file.
    """
    if image.format == "PNG":
        return head[24]  # IHDR: width, height, bit depth (PNG, section 11.2.1)
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8)
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "AVIF" and (box := head.find(b"av1C")) >= 0:
        # high_bitdepth and twelve_bit (AV1 in ISOBMFF, section 2.3.3)
        flags = int.from_bytes(head[box + 6 : box + 7], "big")
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8


def decode_planes(image: Image.Image, name: str) -> tuple[NDArray[np.uint8], bool]:
    """What Pillow loaded, see `Opened.load`.

    Args:
        image: The loaded picture, of 8 bits a channel at most.
        name: What messages call it.

    Raises:
        InputError: If the pixels are of a kind that would lose what they hold.
    """
    if image.mode == "CMYK":
        icc = image.info.get("icc_profile") or None
        return convert_cmyk(np.asarray(image), icc, name), False
    if image.mode == "LAB":
        srgb = ImageCms.createProfile("sRGB")
        lab = ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.asarray(converted), False
    if image.mode not in _PLANES:
        raise InputError(
            f"{name} holds {image.mode} pixels, which are not supported: "
            "save it with 8 or 16 bits a channel"
        )
    mode = _PLANES[image.mode][1 if image.has_transparency_data else 0]
    planes = np.asarray(image if image.mode == mode else image.convert(mode))
    return planes if planes.ndim == 3 else planes[:, :, None], True


def decode_deep(
    file: IO[bytes], format: str, bits: int, frame: int
) -> NDArray[np.uint16]:
    """The pixels of a PNG or AVIF of more than 8 bits a channel.

    Args:
        file: The file.
        format: "png" or "avif".
        bits: Bits a channel.
        frame: Which frame, from 0.

    Returns:
        (H, W, C), grey, grey and alpha, RGB, or RGB and alpha, in the full range.

    Raises:
        ValueError: If the file is damaged (RuntimeError: if the decoder says so).
    """
    file.seek(0)
    if format == "avif":
        levels = imagecodecs.avif_decode(file.read(), index=frame)
        planes = widen(levels, bits)
    else:
        planes = imagecodecs.png_decode(_critical(file))
    return planes if planes.ndim == 3 else planes[:, :, None]


def _critical(file: IO[bytes]) -> bytes:
    """A PNG with nothing but its picture."""
    kept = io.BytesIO()
    kept.write(file.read(len(SIGNATURE)))
    for kind, data in read_chunks(file):
        if kind in _CRITICAL:
            write_chunk(kept, kind, data)
    return kept.getvalue()
