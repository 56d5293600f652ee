"""Pillow's many modes, each turned into grey or RGB of 8 or 16 bits, or refused."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from srcli.errors import InputError
from srcli.imaging.formats import FORMATS

log = logging.getLogger(__name__)

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
        "CMYK": ("RGB", "RGB"),
    }
)
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
_WHITE_IS_ZERO = 0


def format_name(image: Image.Image) -> str:
    """Our name of the file format that an opened file is in."""
    if image.format == "MPO":
        return "jpg"
    names = {entry.pillow: name for name, entry in FORMATS.items()}
    return names.get(image.format or "", "png")


def decode_planes(
    image: Image.Image, head: bytes, name: str
) -> tuple[NDArray[Any], bool]:
    """The pixels of a loaded file as stored, not yet turned upright.

    Args:
        image: What Pillow loaded.
        head: The first bytes of the file, where Pillow does not tell the bit depth.
        name: What messages call it.

    Returns:
        (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha, uint8 or uint16;
        and whether they are still in the file's own colour space.

    Raises:
        InputError: If the pixels are of a kind that would lose what they hold.
    """
    stored = _stored_bits(image, head)
    if image.mode.startswith("I;16"):
        return _decode_deep(image, stored, name), True
    if image.mode not in _PLANES:
        kind = {"F": "floating-point", "I": "32-bit"}.get(image.mode, image.mode)
        raise InputError(
            f"{name} holds {kind} pixels, which are not supported yet: "
            "save it with 8 or 16 bits a channel"
        )
    if stored > 8:
        log.warning("%s: its %d bits a channel are read as 8", name, stored)
    if image.mode == "CMYK":
        return np.asarray(_convert_cmyk(image, name)), False
    mode = _PLANES[image.mode][1 if image.has_transparency_data else 0]
    planes = np.asarray(image if image.mode == mode else image.convert(mode))
    return planes if planes.ndim == 3 else planes[:, :, None], True


def _stored_bits(image: Image.Image, head: bytes) -> int:
    """Bits a channel in the file, whatever Pillow made of them."""
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


def _decode_deep(image: Image.Image, stored: int, name: str) -> NDArray[np.uint16]:
    """Grey of more than 8 bits as the full range of 16 bits, (H, W, 1)."""
    if image.has_transparency_data:
        raise InputError(
            f"{name} is 16-bit grey with a transparent value, which is not supported "
            "yet: save it with 8 bits a channel"
        )
    grey = np.asarray(image).astype(np.uint16)
    if 8 < stored < 16:
        levels = grey.astype(np.uint32) * 65535 + (2**stored - 1) // 2
        grey = (levels // (2**stored - 1)).astype(np.uint16)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 65535 - grey
    return grey[:, :, None]


def _convert_cmyk(image: Image.Image, name: str) -> Image.Image:
    """CMYK as sRGB, through the file's own profile if it has one for CMYK."""
    icc = image.info.get("icc_profile") or b""
    if icc[16:20] == b"CMYK":
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, ImportError, OSError, ValueError):
            converted = None
        if converted is not None:
            return converted
        log.warning("%s: its CMYK profile cannot be used: converted plainly", name)
    return image.convert("RGB")
