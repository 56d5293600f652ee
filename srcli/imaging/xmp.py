"""XMP that follows its picture, and no longer speaks of what the picture has lost.

Layout: XMP Specification (ISO 16684-1:2019), section 7: a property is an attribute or
an element. Sources of what is counted in pixels or fractions of the stored picture:
GPano (Photo Sphere XMP Metadata), MWG Guidelines 2.0 (regions), Microsoft's People
Tagging Overview, IPTC Photo Metadata Standard (Image Region), Exif 2.32 for XMP.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, TypeAlias
from xml.parsers.expat import ExpatError, ParserCreate

from srcli.imaging.geometry import Geometry

_Node: TypeAlias = Any  # of minidom

_ADOBE, _GOOGLE = "http://ns.adobe.com/", "http://ns.google.com/photos/"
_TIFF, _EXIF = f"{_ADOBE}tiff/1.0/", f"{_ADOBE}exif/1.0/"
_CRS = f"{_ADOBE}camera-raw-settings/1.0/"
_GPANO = f"{_GOOGLE}1.0/panorama/"
_AREAS = (f"{_ADOBE}xmp/sType/Area#", "http://ns.acdsee.com/sType/Area#")
_DIMENSIONS = (f"{_ADOBE}xap/1.0/sType/Dimensions#",
               "http://ns.acdsee.com/sType/Dimensions#")  # fmt: skip
_MICROSOFT = "http://ns.microsoft.com/photo/1.2/t/Region#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DECLARATION = "http://www.w3.org/2000/xmlns/"

_SIZES = (
    (_TIFF, "ImageWidth", "ImageLength"),
    (_EXIF, "PixelXDimension", "PixelYDimension"),
)
_LENGTHS = (
    (_GPANO, "CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels"),
    (_GPANO, "FullPanoWidthPixels", "FullPanoHeightPixels"),
    (_GPANO, "CroppedAreaLeftPixels", "CroppedAreaTopPixels"),
    (_GPANO, "LargestValidInteriorRectLeft", "LargestValidInteriorRectTop"),
    (_GPANO, "LargestValidInteriorRectWidth", "LargestValidInteriorRectHeight"),
    (_EXIF, "FocalPlaneXResolution", "FocalPlaneYResolution"),
)
# What goes, by namespace and name, and what messages call what it pointed at; "" is
# not worth a word. Of the container the words in it tell more.
_GONE = (
    (re.compile(r".*(MotionPhoto|MicroVideo)"), "film"),
    (re.compile(rf"{_GOOGLE}1.0/container/"), ""),
    (re.compile(rf"{_ADOBE}hdr-gain-map/|http://ns.apple.com/HDRGainMap/"), "gain map"),
    (re.compile(rf"{_GOOGLE}(1.0/(depthmap|focus)|dd/1.0)/"), "depth map"),
    (re.compile(r"http://ns.apple.com/(pixeldatainfo|depth)"), "further pictures"),
    (re.compile(rf"{_GOOGLE}1.0/image/|.*/XMPMeta"), "further pictures"),
    (re.compile(rf"{_GOOGLE}1.0/audio/"), "sound"),
    (re.compile(rf"{_ADOBE}xmp/note/HasExtendedXMP"), "extended XMP"),
    (re.compile(rf"{_ADOBE}xap/1.0/Thumbnails"), ""),
)
_CONTAINED = (("MotionPhoto", "film"), ("GainMap", "gain map"), ("Depth", "depth map"))
# Once a picture is turned, a part of a sphere is none, and a crop is another.
_UPRIGHT_ONLY = (
    (re.compile(_GPANO), "panorama"),
    (re.compile(rf"{_CRS}(Has)?Crop"), "crop"),
)
# Packets with none of these need no change, even if they cannot be parsed.
_CONCERNED = re.compile(
    rb"Orientation|ImageWidth|ImageLength|Pixel[XY]Dim|FocalPlane|Subject(Area|Loc)"
    rb"|MotionPhoto|MicroVideo|ns\.google\.com/photos|ns\.apple\.com|hdr-gain-map"
    rb"|HasExtendedXMP|Thumbnails|/sType/Area#|AppliedToDim|photo/1\.2/t/Region#"
    rb"|rbUnit|HasCrop|CropWidth|XMPMeta"
)
_PADDING = b"\0 \r\n\t"
_NEWLINE = "\x01"  # in an attribute; no XML holds this character


def follow_xmp(xmp: bytes, geometry: Geometry) -> tuple[bytes | None, list[str]]:
    """XMP of a picture that was turned and enlarged, and what was left out of it.

    It stays byte for byte where nothing changes, else with all else that is in it; it
    is None where it had to change and cannot be read.
    """
    if not _CONCERNED.search(xmp.replace(b"\0", b"")):
        return xmp, []
    try:
        tail = xmp[len(xmp.rstrip(_PADDING)) :]
        document = _parse(xmp.strip(_PADDING))
        before = _write(document)
        lost = sorted(set(_drop(document.documentElement, geometry)) - {""})
        for element in document.getElementsByTagName("*"):
            _follow(element, geometry)
        after = _write(document)
    except (ExpatError, ValueError, ArithmeticError, RecursionError):
        return None, []
    return (xmp if after == before else after + tail), lost


def _parse(xmp: bytes) -> _Node:
    """A packet, unless it defines entities, which may be a bomb."""
    from xml.dom import minidom  # noqa: PLC0415 - few pictures need it

    def refuse(*_: object) -> None:
        raise ValueError("XMP with a document type")

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(xmp, True)
    return minidom.parseString(xmp)


def _write(document: _Node) -> bytes:
    for element in document.getElementsByTagName("*"):
        for attribute in element.attributes.values():
            attribute.value = attribute.value.replace("\n", _NEWLINE)
    text = "\n".join(node.toxml() for node in document.childNodes)
    return text.replace(_NEWLINE, "&#10;").encode()


def _fields(element: _Node) -> dict[str, _Node]:
    """The properties of an element: its nodes by namespace and name in one."""
    nodes = (*element.attributes.values(), *element.childNodes)
    named = (node for node in nodes if node.namespaceURI not in (None, _DECLARATION))
    return {node.namespaceURI + node.localName: node for node in named}


def _drop(element: _Node, geometry: Geometry) -> Iterator[str]:
    """Remove what speaks of what is gone, and say of what."""
    gone = _GONE + (_UPRIGHT_ONLY if geometry.orientation != 1 else ())
    for node in (*element.attributes.values(), *element.childNodes):
        name = f"{node.namespaceURI or ''}{node.localName or ''}"
        title = next((title for known, title in gone if known.match(name)), None)
        if title is not None and node.namespaceURI != _DECLARATION:
            yield title
            if "/container/" in name:
                text = node.toxml()
                yield from (said for word, said in _CONTAINED if word in text)
            if node.nodeType == node.ATTRIBUTE_NODE:
                element.removeAttributeNode(node)
            else:
                element.removeChild(node)
        elif node.nodeType == node.ELEMENT_NODE:
            yield from _drop(node, geometry)


def _follow(element: _Node, geometry: Geometry) -> None:
    """Turn and scale the properties of an element."""
    fields = _fields(element)
    if f"{_TIFF}Orientation" in fields:
        _set(fields[f"{_TIFF}Orientation"], 1)
    for space, *names in _SIZES:
        for name, length in zip(names, geometry.size, strict=True):
            if space + name in fields:
                _set(fields[space + name], length)
    if geometry.is_same:
        return
    _follow_lengths(fields, geometry)
    for space in _AREAS:
        is_relative = _get(fields, f"{space}unit") != "pixel"
        _move(fields, f"{space}%s", "xywh", geometry, is_relative, 0)
    if f"{_MICROSOFT}Rectangle" in fields and geometry.orientation != 1:
        _follow_rectangle(fields[f"{_MICROSOFT}Rectangle"], geometry)
    if f"{_IPTC}rbUnit" in fields:
        _follow_boundary(element, fields, geometry)
    for name in {f"{_EXIF}SubjectArea", f"{_EXIF}SubjectLocation"} & set(fields):
        _follow_subject(fields[name], geometry)


def _follow_rectangle(node: _Node, geometry: Geometry) -> None:
    """Turn a rectangle that is given in one text by corner and sides, in parts."""
    said = [_number(part) for part in _read(node).split(",")]
    if len(said) == 4 and all(map(math.isfinite, said)):
        moved = _moved(said, geometry, True, 0.5)
        _set_text(node, ", ".join(_text(number, 6) for number in moved))


def _follow_subject(node: _Node, geometry: Geometry) -> None:
    """Place the centre of a subject, and scale the sides or diameter of its area."""
    items = node.getElementsByTagNameNS(_RDF, "li")
    if len(items) in (2, 3, 4):
        x, y, *sides = (_number(_read(item)) for item in items)
        extent = geometry.scale((sides[0], sides[-1])) if sides else ()
        for item, number in zip(items, (*geometry.place(x, y), *extent), strict=False):
            _set(item, number)


def _follow_lengths(fields: dict[str, _Node], geometry: Geometry) -> None:
    """Scale lengths in pixels, and pixels in a length."""
    pairs = [*_LENGTHS]
    pairs += [(s, "w", "h") for s in _DIMENSIONS if _get(fields, f"{s}unit") == "pixel"]
    if _get(fields, f"{_CRS}CropUnits") == "0":
        pairs.append((_CRS, "CropWidth", "CropHeight"))
    for space, *names in pairs:
        said = [_get(fields, space + name) for name in names]
        scaled = geometry.scale((_number(said[0]), _number(said[1])))
        for name, text, number in zip(names, said, scaled, strict=True):
            if space + name in fields:
                _set(fields[space + name], number, below=1000 if "/" in text else 1)


def _follow_boundary(
    element: _Node, fields: dict[str, _Node], geometry: Geometry
) -> None:
    """Turn and scale a region of IPTC: rectangle, circle or polygon."""
    is_relative = _get(fields, f"{_IPTC}rbUnit") != "pixel"
    radius = fields.get(f"{_IPTC}rbRx")
    if radius is not None:
        wide = geometry.stored[0] if is_relative else 1
        length = geometry.scale((_number(_read(radius)) * wide,) * 2)[0]
        _set(radius, length / geometry.size[0] if is_relative else length, 6)
    corner = 0 if radius is not None else 0.5
    for part in (element, *element.getElementsByTagName("*")):
        _move(_fields(part), f"{_IPTC}rb%s", "XYWH", geometry, is_relative, corner)


def _move(
    fields: dict[str, _Node],
    pattern: str,
    names: str,
    geometry: Geometry,
    is_relative: bool,
    corner: float,
) -> None:
    """Turn and scale a rectangle, or a point, whose fields have these names."""
    keys = [pattern % name for name in names]
    is_there = keys[0] in fields and keys[1] in fields
    if not is_there or (is_relative and geometry.orientation == 1):
        return
    said = [_number(_get(fields, key, "0")) for key in keys]
    moved = _moved(said, geometry, is_relative, corner)
    for key, number in zip(keys, moved, strict=True):
        if key in fields:
            _set(fields[key], number, 6 if is_relative else 0)


def _moved(
    said: list[float], geometry: Geometry, is_relative: bool, corner: float
) -> tuple[float, ...]:
    """A rectangle turned and scaled: point and sides.

    Its point is its centre, or `corner` is 0.5 and it is the left upper corner.
    """
    x, y, wide, high = said
    move = geometry.turn if is_relative else geometry.place
    sides = (geometry.swap if is_relative else geometry.scale)((wide, high))
    x, y = move(x + corner * wide, y + corner * high)
    return (x - corner * sides[0], y - corner * sides[1], *sides)


def _read(node: _Node) -> str:
    if node.nodeType == node.ATTRIBUTE_NODE:
        return str(node.value).strip()
    return "".join(part.data for part in node.childNodes if part.nodeType == 3).strip()


def _get(fields: dict[str, _Node], name: str, absent: str = "") -> str:
    return _read(fields[name]) if name in fields else absent


def _number(text: str) -> float:
    """A number or fraction; `nan`, which stays one whatever is done to it, if none."""
    above, _, below = text.partition("/")
    try:
        return float(above) / (float(below or "1") or math.nan)
    except ValueError:
        return math.nan


def _set(node: _Node, number: float, digits: int = 0, below: int = 1) -> None:
    """Set a property, as a fraction if `below` is not 1; what was no number stays."""
    if math.isfinite(number):
        text = _text(number * below, digits)
        _set_text(node, text if below == 1 else f"{text}/{below}")


def _set_text(node: _Node, text: str) -> None:
    if node.nodeType == node.ATTRIBUTE_NODE:
        node.value = text
    else:
        for part in list(node.childNodes):
            node.removeChild(part)
        node.appendChild(node.ownerDocument.createTextNode(text))


def _text(number: float, digits: int) -> str:
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
