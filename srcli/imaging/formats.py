"""Picture file formats: what each can hold, and the file names that stand for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from types import MappingProxyType

from srcli.storage import Place


@dataclass(frozen=True, slots=True)
class FileFormat:
    """One file format; a limit of None means none that a picture here can reach."""

    title: str  # how people call it
    pillow: str  # Pillow's name for it
    suffixes: tuple[str, ...]  # lower case; the first is the one we choose
    alpha: bool = True  # holds transparency
    depth: int = 8  # bits a channel that it holds at most; 32 are floating point
    max_side: int | None = None  # px
    max_pixels: int | None = None


# JPEG: libjpeg's JPEG_MAX_DIMENSION. WebP: 14 bits a side (RFC 9649, section 2.6).
# PNG: libpng's PNG_USER_WIDTH_MAX, AVIF: libavif's default limits, beyond which common
# readers refuse a picture.
FORMATS: Mapping[str, FileFormat] = MappingProxyType(
    {
        "png": FileFormat("PNG", "PNG", (".png",), depth=16, max_side=1_000_000),
        "jpg": FileFormat(
            "JPEG",
            "JPEG",
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            alpha=False,
            max_side=65_500,
        ),
        "webp": FileFormat("WebP", "WEBP", (".webp",), max_side=16_383),
        "tiff": FileFormat("TIFF", "TIFF", (".tiff", ".tif"), depth=32),
        "bmp": FileFormat("BMP", "BMP", (".bmp", ".dib"), alpha=False),
        "avif": FileFormat(
            "AVIF", "AVIF", (".avif",), max_side=32_768, max_pixels=16_384 * 16_384
        ),
    }
)

# Read, but never written: one frame of a GIF is a palette picture.
PICTURE_SUFFIXES = frozenset(
    suffix for entry in FORMATS.values() for suffix in entry.suffixes
) | {".gif"}


def format_of(path: Place | PurePath) -> str | None:
    """The format that the suffix of `path` names, or None."""
    suffix = path.suffix.lower()
    for name, entry in FORMATS.items():
        if suffix in entry.suffixes:
            return name
    return None


def find_misfit(
    name: str, width: int, height: int, *, alpha: bool, depth: int
) -> str | None:
    """What keeps such a picture out of a format, or None where nothing does.

    Args:
        name: A key of `FORMATS`.
        width: In pixels.
        height: In pixels.
        alpha: Whether it has transparency.
        depth: Bits a channel: 8, 16, or 32 for floating point.

    Returns:
        A phrase to follow the picture's name, such as "JPEG holds no transparency".
    """
    entry = FORMATS[name]
    if alpha and not entry.alpha:
        return f"{entry.title} holds no transparency"
    if depth > entry.depth:
        kind = "16-bit channels" if depth == 16 else "floating-point channels"
        return f"{entry.title} holds no {kind}"
    too_long = entry.max_side is not None and max(width, height) > entry.max_side
    too_many = entry.max_pixels is not None and width * height > entry.max_pixels
    if too_long or too_many:
        return f"{entry.title} holds no picture of {width}x{height} pixels"
    return None
