"""What a picture file says beside its pixels: profile, EXIF, XMP, resolution.

EXIF is edited in place rather than taken apart and written anew, so that everything we
do not understand, maker notes with absolute offsets among it, survives byte for byte.
Layout: TIFF 6.0, section 2; tags: Exif 2.32 (CIPA DC-008-2019), sections 4.6.4, 4.6.5.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image, PngImagePlugin

log = logging.getLogger(__name__)

_EXIF_HEADER = b"Exif\x00\x00"
_XMP_MARKER = b"http://ns.adobe.com/xap/1.0/\x00"
_XMP_TAG = 700
_ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_GPS_IFD = 0x8825
_WIDTH_TAGS = (0x0100, 0xA002)  # ImageWidth, PixelXDimension
_HEIGHT_TAGS = (0x0101, 0xA003)  # ImageLength, PixelYDimension
_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SHORT, _LONG = 3, 4
_MALFORMED = (
    struct.error, SyntaxError, ValueError, TypeError, KeyError, IndexError, OSError,
    OverflowError, AttributeError, RuntimeError,
)  # fmt: skip

# A TIFF's first directory mixes description with the layout of its pixels. These are
# description: document, image, maker, model, software, date, artist, host, copyright,
# Windows' title to subject, and the two directories of Exif and GPS.
_DESCRIPTIVE = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298}
    | {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F, _EXIF_IFD, _GPS_IFD}
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is carried from the input file to the output file.

    Attributes:
        icc: ICC profile that gives the pixels their meaning; None means sRGB.
        exif: EXIF as Pillow takes it, its header first; orientation 1, no thumbnail.
        xmp: An XMP packet; orientation 1.
        dpi: Pixels per inch along x and y.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def read_metadata(
    image: Image.Image, name: str, channels: int, *, keep_icc: bool = True
) -> Metadata:
    """The metadata of a decoded file; parts that cannot be read are left out, and said.

    Args:
        image: What Pillow decoded.
        name: What the log calls the picture.
        channels: Colour channels that its pixels were given, 1 or 3.
        keep_icc: Whether the pixels are still in the file's own colour space.
    """
    icc = (image.info.get("icc_profile") or None) if keep_icc else None
    if icc is not None and not _icc_fits(icc, channels):
        log.warning("%s: its colour profile does not fit its pixels: left out", name)
        icc = None
    xmp = image.info.get("xmp")
    return Metadata(
        icc=icc,
        exif=_read_exif(image, name),
        xmp=_edit_xmp(xmp, {"Orientation": 1}) if isinstance(xmp, bytes) else None,
        dpi=_read_dpi(image.info.get("dpi")),
    )


def read_orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded file, 1 to 8; 1 where it says nothing valid."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _MALFORMED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def writing_options(
    metadata: Metadata, format: str, mode: str, size: tuple[int, int], name: str
) -> dict[str, Any]:
    """What Pillow's `save` takes to write the metadata, as far as a format holds it.

    Args:
        metadata: Of the input.
        format: A key of `srcli.imaging.formats.FORMATS`.
        mode: Pillow's mode of what will be written.
        size: Its width and height.
        name: What the log calls it.
    """
    if format == "bmp":
        return {"dpi": metadata.dpi} if metadata.dpi else {}
    exif = metadata.exif and _size_exif(metadata.exif, *size)
    if exif and format in ("tiff", "avif") and not _survives_pillow(exif):
        log.warning("%s: its EXIF cannot be put into %s: left out", name, format)
        exif = None
    xmp = metadata.xmp and _size_xmp(metadata.xmp, *size)
    options: dict[str, Any] = {"dpi": metadata.dpi, "exif": exif, "xmp": xmp}
    # WebP has no grey: it becomes RGB there, and a grey profile would be wrong.
    grey = mode in ("L", "LA", "I;16") and format != "webp"
    if metadata.icc is not None and _icc_fits(metadata.icc, 1 if grey else 3):
        options["icc_profile"] = metadata.icc
    elif metadata.icc is not None:
        log.warning("%s: its colour profile does not fit %s: left out", name, format)
    if format == "jpg":
        _drop_oversized(options, name)
    if format == "tiff":
        options["exif"], nested = _tiff_tags(exif, xmp)
        # Pillow writes directories within a TIFF's directory only uncompressed.
        options["compression"] = "raw" if nested else "tiff_adobe_deflate"
    if format == "png" and xmp:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp)
    return {key: value for key, value in options.items() if value}


def _icc_fits(icc: bytes, channels: int) -> bool:
    """Whether a profile's colour space has this number of channels, 1 or 3.

    Source: ICC.1:2022, section 7.2 (data colour space, bytes 16 to 19).
    """
    return icc[16:20] == (b"GRAY" if channels == 1 else b"RGB ")


def _size_exif(exif: bytes, width: int, height: int) -> bytes:
    """EXIF whose size tags, where it has them, say so many pixels."""
    values = dict.fromkeys(_WIDTH_TAGS, width) | dict.fromkeys(_HEIGHT_TAGS, height)
    return _edit_exif(exif, values)


def _size_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """XMP whose size properties, where it has them, say so many pixels."""
    values = {"ImageWidth": width, "ImageLength": height}
    values |= {"PixelXDimension": width, "PixelYDimension": height}
    return _edit_xmp(xmp, values)


def _drop_oversized(options: dict[str, Any], name: str) -> None:
    """Leave out what does not fit into one JPEG segment of 65,533 bytes."""
    for key, limit in (("exif", 65_533), ("xmp", 65_533 - len(_XMP_MARKER))):
        if options[key] and len(options[key]) > limit:
            log.warning("%s: its %s is too long for JPEG: left out", name, key.upper())
            options[key] = None


def _survives_pillow(exif: bytes) -> bool:
    """Whether Pillow can take EXIF apart and put it together, as some formats need."""
    try:
        loaded = Image.Exif()
        loaded.load(exif)
        loaded.tobytes()
    except _MALFORMED:
        return False
    return True


def _tiff_tags(exif: bytes | None, xmp: bytes | None) -> tuple[bytes | None, bool]:
    """EXIF and XMP as the tags of a TIFF's own directory; whether they hold others."""
    found, tags = Image.Exif(), Image.Exif()
    found.load(exif or b"")
    copied = _copy_descriptive(found, tags)
    if xmp is not None:
        tags[_XMP_TAG] = xmp
    blob = tags.tobytes() if copied or xmp is not None else None
    return blob, not copied.isdisjoint({_EXIF_IFD, _GPS_IFD})


def _read_dpi(dpi: Any) -> tuple[float, float] | None:  # noqa: ANN401 - Pillow's info
    """Resolution in pixels per inch, unless it is Pillow's stand-in for "unknown"."""
    try:
        x, y = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    plausible = all(math.isfinite(value) and 1 < value < 65_536 for value in (x, y))
    return (x, y) if plausible else None


def _read_exif(image: Image.Image, name: str) -> bytes | None:
    blob = image.info.get("exif")
    try:
        if not isinstance(blob, bytes):
            blob = _rebuild_exif(image)
        if not blob:
            return None
        upright = _edit_exif(blob, {_ORIENTATION: 1})
        return _edit_exif(upright, {})  # still whole without its thumbnail
    except _MALFORMED:
        log.warning("%s: its EXIF cannot be read: left out", name)
        return None


def _rebuild_exif(image: Image.Image) -> bytes:
    """EXIF of a file that keeps it elsewhere: in a TIFF's own tags, or as PNG text."""
    kept = Image.Exif()
    copied = _copy_descriptive(image.getexif(), kept)
    return kept.tobytes() if copied else b""


def _copy_descriptive(source: Image.Exif, target: Image.Exif) -> frozenset[int]:
    """Copy the tags that describe a picture, not its layout, and say which."""
    copied = _DESCRIPTIVE & set(source)
    for tag in sorted(copied):
        if tag in (_EXIF_IFD, _GPS_IFD):
            target.get_ifd(tag).update(source.get_ifd(tag))
        else:
            target[tag] = source[tag]
    return copied


def _entries(exif: bytes | bytearray, order: str, start: int) -> range:
    """Offsets of the 12-byte entries of the directory at `start`."""
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    if start + 2 + 12 * count + 4 > len(exif):
        raise ValueError("a directory runs past the end")
    return range(start + 2, start + 2 + 12 * count, 12)


def _number_at(exif: bytes | bytearray, order: str, entry: int) -> int:
    """The single SHORT or LONG that an entry holds."""
    kind, count = struct.unpack_from(f"{order}HI", exif, entry + 2)
    if kind not in (_SHORT, _LONG) or count != 1:
        raise ValueError("not a single whole number")
    code = "H" if kind == _SHORT else "I"
    number: int = struct.unpack_from(order + code, exif, entry + 8)[0]
    return number


def _edit_exif(exif: bytes, values: Mapping[int, int]) -> bytes:
    """EXIF with its header, the tags of `values` that it has set anew, no thumbnail.

    Raises:
        ValueError: If it is no TIFF structure (struct.error: if it is cut off).
    """
    exif = exif.removeprefix(_EXIF_HEADER)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    edited = bytearray(exif)
    (main,) = struct.unpack_from(f"{order}I", exif, 4)
    directories = [main]
    for directory in directories:
        for entry in _entries(exif, order, directory):
            (tag,) = struct.unpack_from(f"{order}H", exif, entry)
            if tag == _EXIF_IFD and directory == main:
                directories.append(_number_at(exif, order, entry))
            elif tag in values:
                # A size may outgrow a SHORT; a LONG takes the same four bytes.
                number = (_LONG, 1, values[tag])
                struct.pack_into(f"{order}HII", edited, entry + 2, *number)
                if tag == _ORIENTATION:
                    short = (_SHORT, 1, values[tag], 0)
                    struct.pack_into(f"{order}HIHH", edited, entry + 2, *short)
    return _EXIF_HEADER + _without_thumbnail(edited, order, main)


def _without_thumbnail(exif: bytearray, order: str, main: int) -> bytes:
    """EXIF whose first directory is its last, with the thumbnail's data wiped."""
    (count,) = struct.unpack_from(f"{order}H", exif, main)
    link = main + 2 + 12 * count
    (second,) = struct.unpack_from(f"{order}I", exif, link)
    if second == 0:
        return bytes(exif)
    struct.pack_into(f"{order}I", exif, link, 0)
    found: dict[int, int] = {}
    with contextlib.suppress(ValueError, struct.error):
        for entry in _entries(exif, order, second):
            (tag,) = struct.unpack_from(f"{order}H", exif, entry)
            if tag in (_THUMBNAIL_OFFSET, _THUMBNAIL_LENGTH):
                found[tag] = _number_at(exif, order, entry)
    start, length = found.get(_THUMBNAIL_OFFSET, 0), found.get(_THUMBNAIL_LENGTH, 0)
    end = start + length
    # Only what is a JPEG for certain is wiped: offsets in the wild can be wrong.
    if exif[start : start + 2] == b"\xff\xd8" and end <= len(exif):
        exif[start:end] = b"" if end == len(exif) else bytes(length)
    return bytes(exif)


def _edit_xmp(xmp: bytes, values: Mapping[str, int]) -> bytes:
    """XMP with the tiff: and exif: properties of `values` that it has set anew."""
    for name, value in values.items():
        pattern = rb'((?:tiff|exif):%s(?:\s*=\s*["\']|>))\s*\d+' % name.encode()
        xmp = re.sub(pattern, rb"\g<1>%d" % value, xmp)
    return xmp
