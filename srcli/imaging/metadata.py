"""What a picture file says beside its pixels: profile, EXIF, XMP, IPTC, resolution."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from PIL import Image

from srcli.imaging import iptc
from srcli.imaging.chunks import COLOUR_CHUNKS, Chunk
from srcli.imaging.exif import (
    MALFORMED,
    make_upright,
    rebuild,
    size_exif,
    survives_pillow,
)
from srcli.imaging.formats import FORMATS
from srcli.imaging.profiles import profile_fits

log = logging.getLogger(__name__)

_XMP_MARKER = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_X_RESOLUTION = 0x011A  # in EXIF
_MOST_DPI = 65_535  # that a JPEG can say
_SEGMENT = 65_533  # bytes that a JPEG segment holds

# The attributes of `Metadata` that each format holds, and what messages call those.
_HELD: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "png": frozenset(("icc", "exif", "xmp", "dpi", "chunks")),
        "jpg": frozenset(("icc", "exif", "xmp", "dpi", "iptc", "comment")),
        "webp": frozenset(("icc", "exif", "xmp")),
        "tiff": frozenset(("icc", "exif", "xmp", "dpi", "iptc")),
        "bmp": frozenset(("dpi",)),
        "avif": frozenset(("icc", "exif", "xmp")),
    }
)
_TITLES: Mapping[str, str] = MappingProxyType(
    {
        "icc": "colour profile",
        "exif": "EXIF",
        "xmp": "XMP",
        "iptc": "IPTC",
        "comment": "comment",
        "dpi": "resolution",
    }
)
# Resolutions that programs write where they know none, so that none is missed.
_USUAL = ((72, 72), (96, 96))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is carried from the input file to the output file.

    Attributes:
        icc: ICC profile that gives the pixels their meaning; None means sRGB.
        exif: EXIF as Pillow takes it, its header first; orientation 1, no thumbnail.
        xmp: An XMP packet; orientation 1.
        dpi: Pixels per inch along x and y.
        iptc: IPTC and copyright as Photoshop's image resources.
        comment: The comment of a JPEG.
        chunks: PNG chunks of texts and, where there is no profile, of colours.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    chunks: tuple[Chunk, ...] = ()

    def stripped(self) -> Metadata:
        """Only what gives the pixels their colours."""
        colours = tuple(chunk for chunk in self.chunks if chunk[0] in COLOUR_CHUNKS)
        return Metadata(icc=self.icc, chunks=colours)


def read_metadata(
    info: Mapping[Any, Any],
    exif: Image.Exif,
    chunks: tuple[Chunk, ...],
    name: str,
    channels: int,
) -> Metadata:
    """The metadata of a decoded file; parts that cannot be read are left out, and said.

    Args:
        info: What Pillow calls so.
        exif: EXIF, or a TIFF's tags.
        chunks: PNG chunks that can be carried over.
        name: What the log calls the picture.
        channels: Colour channels of the pixels, 1 or 3, if they are still in the file's
            own colours, else 0.
    """
    icc = (info.get("icc_profile") or None) if channels else None
    if icc is not None and not profile_fits(icc, channels):
        log.warning("%s: its colour profile does not fit its pixels: left out", name)
        icc = None
    xmp, comment = info.get("xmp"), info.get("comment")
    return Metadata(
        icc=icc,
        exif=_read_exif(info, exif, name),
        xmp=_edit_xmp(xmp, {"Orientation": 1}) if isinstance(xmp, bytes) else None,
        dpi=_read_dpi(info, exif),
        iptc=iptc.find(info.get("photoshop"), exif),
        comment=comment if isinstance(comment, bytes) and comment else None,
        chunks=tuple(c for c in chunks if icc is None or c[0] not in COLOUR_CHUNKS),
    )


def fit_metadata(
    metadata: Metadata, format: str, channels: int, size: tuple[int, int], name: str
) -> Metadata:
    """What of the metadata a format holds, its sizes set; what it does not is said.

    Args:
        metadata: Of the input.
        format: A key of `srcli.imaging.formats.FORMATS`.
        channels: Colour channels of what will be written, 1 or 3.
        size: Its width and height.
        name: What the log calls it.
    """
    exif = metadata.exif and size_exif(metadata.exif, *size)
    xmp = metadata.xmp and _size_xmp(metadata.xmp, *size)
    fitted = replace(metadata, exif=exif, xmp=xmp)
    holds = _HELD[format]
    lost = [key for key in _TITLES if key not in holds and getattr(fitted, key)]
    if format == "jpg":
        lost += _find_oversized(fitted)
    if exif and format in ("tiff", "avif") and not survives_pillow(exif):
        lost.append("exif")
    if "icc" in holds and fitted.icc and not profile_fits(fitted.icc, channels):
        lost.append("icc")
    without: dict[str, Any] = dict.fromkeys(lost)
    chunks = fitted.chunks if "chunks" in holds else ()
    rounded = tuple(round(value) for value in fitted.dpi or ())
    said = [_TITLES[key] for key in lost if key != "dpi" or rounded not in _USUAL]
    if fitted.chunks and not chunks:
        kinds = {chunk[0] for chunk in fitted.chunks}
        said += ["colour space"] if kinds & (COLOUR_CHUNKS - {b"sRGB"}) else []
        said += ["texts"] if kinds - COLOUR_CHUNKS else []
    if said:
        title, what = FORMATS[format].title, " and ".join(said)
        log.warning("%s: %s cannot hold its %s: left out", name, title, what)
    return replace(fitted, chunks=chunks, **without)


def pillow_options(metadata: Metadata, format: str) -> dict[str, Any]:
    """What Pillow's `save` takes to write metadata that fits the format (not TIFF)."""
    options: dict[str, Any] = {
        "dpi": metadata.dpi,
        "exif": metadata.exif,
        "icc_profile": metadata.icc,
    }
    if format != "png":  # where it is a chunk like others, see `png_chunks`
        options["xmp"] = metadata.xmp
    if format == "jpg":
        options["comment"] = metadata.comment
        options["extra"] = metadata.iptc and iptc.as_segment(metadata.iptc)
    return {key: value for key, value in options.items() if value}


def png_chunks(metadata: Metadata) -> list[Chunk]:
    """The chunks that Pillow does not write, for before the pixels of a PNG."""
    chunks = list(metadata.chunks)
    if metadata.xmp:
        # Keyword, not compressed, no language, no translated keyword: PNG, 11.3.3.4.
        chunks.append((b"iTXt", _XMP_KEYWORD + b"\x00" * 5 + metadata.xmp))
    return sorted(chunks, key=lambda chunk: chunk[0] not in COLOUR_CHUNKS)


def _size_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """XMP whose size properties, where it has them, say so many pixels."""
    values = {"ImageWidth": width, "ImageLength": height}
    values |= {"PixelXDimension": width, "PixelYDimension": height}
    return _edit_xmp(xmp, values)


def _find_oversized(metadata: Metadata) -> list[str]:
    """The attributes that one segment of a JPEG is too short for."""
    limits = {
        "exif": _SEGMENT,
        "xmp": _SEGMENT - len(_XMP_MARKER),
        "iptc": _SEGMENT - len(iptc.MARKER),
        "comment": _SEGMENT,
    }
    return [
        key
        for key, limit in limits.items()
        if len(getattr(metadata, key) or b"") > limit
    ]


def _read_dpi(info: Mapping[Any, Any], exif: Image.Exif) -> tuple[float, float] | None:
    """Resolution in pixels per inch, unless it is Pillow's stand-in for "unknown"."""
    try:
        x, y = (float(value) for value in info.get("dpi", ()))
    except (TypeError, ValueError, ArithmeticError):
        return None
    # A JPEG that says nothing gets the 72 that EXIF has for unknown.
    is_unsaid = "exif" in info and _X_RESOLUTION not in exif
    if is_unsaid and (x, y) == (72, 72) and info.get("jfif_unit") not in (1, 2):
        return None
    # Also refuses what is no number, which compares with nothing.
    return (x, y) if min(x, y) > 1 and max(x, y) <= _MOST_DPI else None


def _read_exif(info: Mapping[Any, Any], exif: Image.Exif, name: str) -> bytes | None:
    blob = info.get("exif")
    try:
        if not isinstance(blob, bytes):
            blob = rebuild(exif)
        return make_upright(blob) if blob else None
    except MALFORMED:
        log.warning("%s: its EXIF cannot be read: left out", name)
        return None


def _edit_xmp(xmp: bytes, values: Mapping[str, int]) -> bytes:
    """XMP with the tiff: and exif: properties of `values` that it has set anew."""
    for name, value in values.items():
        pattern = rb'((?:tiff|exif):%s(?:\s*=\s*["\']|>))\s*\d+' % name.encode()
        xmp = re.sub(pattern, rb"\g<1>%d" % value, xmp)
    return xmp
