"""Metadata of a picture file: profile, EXIF, XMP, IPTC, resolution."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import IO, Any

from PIL import Image

from srcli.imaging.chunks import (
    COLOUR_CHUNKS,
    RESOURCES_MARKER,
    Chunk,
    find_resources,
    resources_segment,
)
from srcli.imaging.exif import (
    EMPTY,
    HEADER,
    MALFORMED,
    follow_exif,
    read_density,
    rebuild,
    says_adobe_rgb,
    set_density,
    survives_pillow,
)
from srcli.imaging.formats import FORMATS
from srcli.imaging.geometry import Geometry
from srcli.imaging.profiles import make_profile, profile_fits
from srcli.imaging.xmp import follow_xmp

log = logging.getLogger(__name__)

_XMP_KEYWORD = b"XML:com.adobe.xmp"
_INCH = 0.0254  # metres
_UNITS = {2: 1.0, 3: 2.54}  # of EXIF and JFIF: centimetres, inches
_MOST_DPI = 1e9  # more are not meant
_MOST_SHORT = 65_535
# Bytes of each that a segment of a JPEG holds, behind what names it.
_SEGMENTS = {
    "exif": 65_533,
    "xmp": 65_533 - len(b"http://ns.adobe.com/xap/1.0/\x00"),
    "iptc": 65_533 - len(RESOURCES_MARKER),
    "comment": 65_533,
}

# The attributes of `Metadata` that each format holds, and what messages call those.
_HELD = {
    "png": ("icc", "exif", "xmp", "dpi", "aspect", "chunks"),
    "jpg": ("icc", "exif", "xmp", "dpi", "aspect", "iptc", "comment"),
    "webp": ("icc", "exif", "xmp", "dpi"),
    "tiff": ("icc", "exif", "xmp", "dpi", "aspect", "iptc"),
    "bmp": ("dpi",),
    "avif": ("icc", "exif", "xmp", "dpi"),
}
_TITLES = {
    "icc": "colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "comment": "comment",
    "dpi": "resolution",
    "aspect": "pixel aspect ratio",
}
# Resolutions that programs write where they know none, so that none is missed.
_USUAL = ((72, 72), (96, 96))


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata carried from the input file to the output file.

    Attributes:
        icc: ICC profile that gives the pixels their meaning; None means sRGB.
        exif: EXIF as Pillow takes it, its header first; orientation 1, no thumbnail.
        xmp: An XMP packet; orientation 1.
        dpi: Pixels per inch along x and y.
        aspect: Pixels in the same length along x and y, where that is all that is said
            and they differ.
        iptc: IPTC and copyright as Photoshop's image resources.
        comment: The comment of a JPEG.
        chunks: PNG chunks of texts and, where there is no profile, of colours.
        colours: ICC profile of what EXIF or the chunks say of the colours, where there
            is no profile; None means sRGB, or what no profile can say.
        size: Width and height of the picture that this is about, in pixels.
        lost: What the file said besides and is not carried on.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    chunks: tuple[Chunk, ...] = ()
    colours: bytes | None = None
    size: tuple[int, int] | None = field(default=None, compare=False)
    lost: frozenset[str] = field(default=frozenset(), compare=False)

    def stripped(self) -> Metadata:
        """Only what gives the pixels their colours: a profile, if one can say it."""
        if self.icc or self.colours:
            return Metadata(icc=self.icc or self.colours)
        return Metadata(chunks=tuple(c for c in self.chunks if c[0] in COLOUR_CHUNKS))


def read_metadata(
    info: Mapping[Any, Any],
    exif: Image.Exif,
    chunks: tuple[Chunk, ...],
    name: str,
    channels: int,
    size: tuple[int, int],
    orientation: int,
) -> Metadata:
    """The metadata of a decoded file; parts that cannot be read are left out, and said.

    Args:
        info: What Pillow calls so.
        exif: EXIF, or a TIFF's tags.
        chunks: PNG chunks that can be carried over.
        name: What the log calls the picture.
        channels: Of colour, 1 or 3, if in the file's own colours, else 0.
        size: Width and height of the picture, upright.
        orientation: That of EXIF, which has been applied to it.
    """
    geometry = Geometry(size if orientation < 5 else size[::-1], size, orientation)
    faults: list[str] = []
    icc = (info.get("icc_profile") or None) if channels else None
    if icc is not None and not profile_fits(icc, channels):
        faults.append("its colour profile does not fit its pixels")
        icc = None
    blob, lost = info.get("exif"), []
    try:
        blob = blob if isinstance(blob, bytes) else rebuild(exif)
        blob, lost = follow_exif(blob, geometry) if blob else (None, [])
    except MALFORMED:
        faults.append("its EXIF cannot be read")
        blob = None
    xmp, comment = info.get("xmp"), info.get("comment")
    xmp = xmp if isinstance(xmp, bytes) and xmp else None
    if xmp:
        xmp, gone = follow_xmp(xmp, geometry)
        lost += gone
        faults += [] if xmp else ["its XMP cannot be read"]
    if "mp" in info:  # of an MPO, the directory of its pictures
        lost.append("further pictures")
    if faults:
        log.warning("%s: %s: left out", name, " and ".join(faults))
    dpi, aspect = _read_density(info, exif)
    colours = None
    if icc is None and channels:
        colours = make_profile(chunks, channels, is_adobe=says_adobe_rgb(exif))
    return Metadata(
        icc=icc,
        exif=blob,
        xmp=xmp,
        dpi=dpi and geometry.swap(dpi),
        aspect=aspect and geometry.swap(aspect),
        iptc=find_resources(info.get("photoshop"), exif),
        comment=comment if isinstance(comment, bytes) and comment else None,
        chunks=tuple(c for c in chunks if icc is None or c[0] not in COLOUR_CHUNKS),
        colours=colours,
        size=size,
        lost=frozenset(lost),
    )


def scale_metadata(metadata: Metadata, size: tuple[int, int]) -> Metadata:
    """The metadata of a picture that was enlarged to so many pixels.

    Its resolution stays as it is: a print of the result is larger, not finer.
    """
    geometry = Geometry(metadata.size or size, size)
    exif, xmp, lost = metadata.exif, metadata.xmp, set(metadata.lost)
    if exif:
        exif, gone = follow_exif(exif, geometry)
        if metadata.dpi:
            exif = set_density(exif, metadata.dpi)
        lost |= set(gone)
    if xmp:
        xmp, gone = follow_xmp(xmp, geometry)
        lost |= set(gone if xmp else ["XMP"])
    return replace(metadata, exif=exif, xmp=xmp, size=size, lost=frozenset(lost))


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
    fitted, holds = scale_metadata(metadata, size), _HELD[format]
    is_usual = fitted.dpi and tuple(map(round, fitted.dpi)) in _USUAL
    if fitted.dpi and not fitted.exif and not is_usual and _needs_exif(fitted, format):
        fitted = replace(fitted, exif=set_density(EMPTY, fitted.dpi))
    lost = [key for key in _TITLES if key not in holds and getattr(fitted, key)]
    if format == "jpg":
        lost += [
            key
            for key, most in _SEGMENTS.items()
            if len(getattr(fitted, key) or b"") > most
        ]
    if fitted.exif and format in ("tiff", "avif") and not survives_pillow(fitted.exif):
        lost.append("exif")
    if fitted.dpi and "dpi" in holds and not _says_dpi(fitted, format, lost):
        lost.append("dpi")
    fitted = replace(fitted, chunks=fitted.chunks if "chunks" in holds else ())
    kinds = {kind for kind, _ in metadata.chunks}
    by_chunk = kinds & (COLOUR_CHUNKS - {b"sRGB"})
    is_unsaid = not fitted.chunks if by_chunk else "exif" in lost
    if is_unsaid and fitted.colours and "icc" in holds:
        fitted, is_unsaid = replace(fitted, icc=fitted.colours), False
    if "icc" in holds and fitted.icc and not profile_fits(fitted.icc, channels):
        lost.append("icc")
    said = [_TITLES[key] for key in lost if key != "dpi" or not is_usual]
    said += ["colour space"] if is_unsaid and (by_chunk or fitted.colours) else []
    said += ["texts"] if not fitted.chunks and kinds - COLOUR_CHUNKS else []
    parts = [f"{FORMATS[format].title} cannot hold its {' and '.join(said)}"]
    gone = " and ".join(sorted(fitted.lost))
    parts = parts[: len(said)] + [f"srcli cannot carry on its {gone}"] * bool(gone)
    if parts:
        log.warning("%s: %s: left out", name, ", ".join(parts))
    without: dict[str, Any] = dict.fromkeys(lost)
    return replace(fitted, lost=frozenset(), **without)


def pillow_options(metadata: Metadata, format: str) -> dict[str, Any]:
    """What Pillow's `save` takes to write metadata that fits other files than PNG."""
    options: dict[str, Any] = {"exif": metadata.exif, "icc_profile": metadata.icc}
    options["xmp"] = metadata.xmp
    if format == "bmp":  # of JPEG see `set_jfif_density`
        options["dpi"] = metadata.dpi
    if format == "jpg":
        options["comment"] = metadata.comment
        options["extra"] = metadata.iptc and resources_segment(metadata.iptc)
    return {key: value for key, value in options.items() if value}


def png_chunks(metadata: Metadata) -> list[Chunk]:
    """Metadata that fits a PNG as chunks for before its pixels."""
    chunks = list(metadata.chunks)
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(HEADER)))
    density = metadata.dpi or metadata.aspect
    if density:
        unit = _INCH if metadata.dpi else 1
        x, y = (round(number / unit) for number in density)
        chunks.append((b"pHYs", struct.pack(">IIB", x, y, bool(metadata.dpi))))
    if metadata.xmp:
        # Keyword, not compressed, no language, no translated keyword: PNG, 11.3.3.4.
        chunks.append((b"iTXt", _XMP_KEYWORD + b"\0" * 5 + metadata.xmp))
    return sorted(chunks, key=lambda chunk: chunk[0] not in (*COLOUR_CHUNKS, b"iCCP"))


def set_jfif_density(file: IO[bytes], metadata: Metadata) -> None:
    """Set the density in a JPEG that Pillow wrote: unit, x and y (JFIF 1.02)."""
    density = _jfif_density(metadata)
    if density is not None:
        file.seek(13)
        file.write(struct.pack(">BHH", *density))
        file.seek(0, 2)


def _jfif_density(metadata: Metadata) -> tuple[int, int, int] | None:
    """Unit and pixels along x and y as JFIF says them, to 0.5 %; None if it cannot."""
    if metadata.aspect:
        x, y = metadata.aspect
        ratio = Fraction(x / max(x, y) / (y / max(x, y))).limit_denominator(255)
        return (0, ratio.numerator, ratio.denominator) if 0 < ratio <= 255 else None
    found, least = None, 0.005
    for number, unit in enumerate(_UNITS.values(), 1):
        exact = [value / unit for value in metadata.dpi or (0.0, 0.0)]
        x, y = map(round, exact)
        if min(x, y) > 0 and max(x, y) <= _MOST_SHORT:
            error = max(abs(x / exact[0] - 1), abs(y / exact[1] - 1))
            if error < least:
                found, least = (number, x, y), error
    return found


def _needs_exif(metadata: Metadata, format: str) -> bool:
    """Whether a format can say the resolution in EXIF only."""
    return format in ("webp", "avif") or (
        format == "jpg" and _jfif_density(metadata) is None
    )


def _says_dpi(metadata: Metadata, format: str, lost: list[str]) -> bool:
    """Whether a format can say the resolution, with this or that left out."""
    if format in ("png", "bmp"):
        metres = [round(value / _INCH) for value in metadata.dpi or ()]
        return min(metres) > 0 and max(metres) < 2**31
    in_exif = bool(metadata.exif) and "exif" not in lost
    return in_exif or not _needs_exif(metadata, format)


def _read_density(
    info: Mapping[Any, Any], exif: Image.Exif
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Pixels per inch, or else only their aspect, as stored: header, then EXIF."""
    said = read_density(exif)
    x, y, unit = said or (72.0, 72.0, 2)  # which Pillow takes of none
    in_exif = (x * _UNITS.get(unit, 0), y * _UNITS.get(unit, 0))
    header = _pair(info.get("dpi"))
    # Where a JPEG's header has no unit, Pillow's is EXIF's along x.
    is_jpeg = "exif" in info and info.get("jfif_unit") not in (1, 2)
    if is_jpeg and header and all(math.isclose(d, in_exif[0]) for d in header):
        header = None
    for dpi in (header, in_exif if said else None):
        # Also refuses what is no number, which compares with nothing.
        if dpi and min(dpi) > 1 and max(dpi) < _MOST_DPI:
            return dpi, None
    jfif = info.get("jfif_density") if info.get("jfif_unit") == 0 else None
    for aspect in (_pair(info.get("aspect") or jfif), (x, y) if unit == 1 else None):
        if aspect and min(aspect) > 0 and aspect[0] != aspect[1]:
            return None, aspect
    return None, None


def _pair(value: Any) -> tuple[float, float] | None:  # noqa: ANN401 - Pillow's
    try:
        x, y = (float(part) for part in value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return x, y
