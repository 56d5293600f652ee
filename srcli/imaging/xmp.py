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
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

from srcli.imaging.geometry import Geometry, Pair

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
    """XMP of a picture that was turned and enlarged.

    Args:
        xmp: A packet.
        geometry: What was done to the picture.

    Returns:
        It, byte for byte where nothing changes, else with all else that is in it; None
        where it had to change and cannot be read; and what was left out of it.
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


def _parse(xmp: bytes) -> Any:  # noqa: ANN401 - a minidom document
    """A packet, unless it defines entities, which may be a bomb.

    Raises:
        ExpatError: If it is no XML.
        ValueError: If it has a document type.
    """
    from xml.dom import minidom  # noqa: PLC0415 - few pictures need it

    def refuse(*_: object) -> None:
        raise ValueError("XMP with a document type")

    parser = ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(xmp, True)
    return minidom.parseString(xmp)


def _write(document: Any) -> bytes:  # noqa: ANN401
    for element in document.getElementsByTagName("*"):
        for attribute in element.attributes.values():
            attribute.value = attribute.value.replace("\n", _NEWLINE)
    text = "\n".join(node.toxml() for node in document.childNodes)
    return text.replace(_NEWLINE, "&#10;").encode()


def _fields(element: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """The properties of an element: namespace and name in one, and the node."""
    for node in (*element.attributes.values(), *element.childNodes):
        if node.namespaceURI not in (None, _DECLARATION):
            yield node.namespaceURI + node.localName, node


def _drop(element: Any, geometry: Geometry) -> Iterator[str]:  # noqa: ANN401
    """Remove what speaks of what is gone, and say of what."""
    gone = _GONE + (_UPRIGHT_ONLY if geometry.orientation != 1 else ())
    for name, node in list(_fields(element)):
        title = next((title for known, title in gone if known.match(name)), None)
        if title is None:
            continue
        yield title
        if "/container/" in name:
            text = node.toxml()
            yield from (said for word, said in _CONTAINED if word in text)
        if node.nodeType == node.ATTRIBUTE_NODE:
            element.removeAttributeNode(node)
        else:
            element.removeChild(node)
    for node in element.childNodes:
        if node.nodeType == node.ELEMENT_NODE:
            yield from _drop(node, geometry)


def _follow(element: Any, geometry: Geometry) -> None:  # noqa: ANN401
    """Turn and scale the properties of an element."""
    fields = dict(_fields(element))
    if f"{_TIFF}Orientation" in fields:
        _set(fields[f"{_TIFF}Orientation"], 1, 0)
    for space, *names in _SIZES:
        for name, length in zip(names, geometry.size, strict=True):
            if space + name in fields:
                _set(fields[space + name], length, 0)
    if geometry.stored == geometry.size and geometry.orientation == 1:
        return
    _follow_lengths(fields, geometry)
    for space in _AREAS:
        is_relative = not _is(fields, f"{space}unit", "pixel")
        _move(fields, [space + name for name in "xywh"], geometry, is_relative, 0)
    if f"{_MICROSOFT}Rectangle" in fields:
        _follow_rectangle(fields[f"{_MICROSOFT}Rectangle"], geometry)
    if f"{_IPTC}rbUnit" in fields:
        _follow_boundary(element, fields, geometry)
    for name in {f"{_EXIF}SubjectArea", f"{_EXIF}SubjectLocation"} & set(fields):
        _follow_subject(fields[name], geometry)


def _follow_lengths(fields: dict[str, Any], geometry: Geometry) -> None:
    """Scale lengths in pixels, and pixels in a length."""
    pairs = [*_LENGTHS]
    pairs += [(s, "w", "h") for s in _DIMENSIONS if _is(fields, f"{s}unit", "pixel")]
    if _is(fields, f"{_CRS}CropUnits", "0"):
        pairs.append((_CRS, "CropWidth", "CropHeight"))
    for space, *names in pairs:
        x, y = (fields.get(space + name) for name in names)
        scaled = geometry.scale((_number(x, math.nan), _number(y, math.nan)))
        for node, number in zip((x, y), scaled, strict=True):
            if node is not None:
                _set(node, number, 0, 1000 if "/" in _get(node) else 1)


def _follow_rectangle(node: Any, geometry: Geometry) -> None:  # noqa: ANN401
    """Turn a rectangle that is given in one text by corner and sides."""
    said = [_parse_number(part) for part in _get(node).split(",")]
    is_rectangle = len(said) == 4 and all(map(math.isfinite, said))
    if is_rectangle and geometry.orientation != 1:
        moved = _moved((said[0], said[1]), (said[2], said[3]), geometry, True, 0.5)
        _set_text(node, ", ".join(_text(number, 6) for number in moved))


def _follow_boundary(
    element: Any,  # noqa: ANN401
    fields: dict[str, Any],
    geometry: Geometry,
) -> None:
    """Turn and scale a region of IPTC: rectangle, circle or polygon."""
    is_relative = not _is(fields, f"{_IPTC}rbUnit", "pixel")
    is_circle = f"{_IPTC}rbRx" in fields
    if is_circle:
        node = fields[f"{_IPTC}rbRx"]
        wide = geometry.stored[0] if is_relative else 1
        radius = geometry.scale((_number(node) * wide,) * 2)[0]
        _set(node, radius / geometry.size[0] if is_relative else radius, 6)
    names = [f"{_IPTC}rb{name}" for name in "XYWH"]
    for part in (element, *element.getElementsByTagName("*")):
        corner = 0 if is_circle else 0.5
        _move(dict(_fields(part)), names, geometry, is_relative, corner)


def _follow_subject(node: Any, geometry: Geometry) -> None:  # noqa: ANN401
    """Place the centre of a subject, and scale the sides or diameter of its area."""
    items = node.getElementsByTagNameNS(_RDF, "li")
    if len(items) in (2, 3, 4):
        x, y, *sides = (_number(item) for item in items)
        extent = geometry.scale((sides[0], sides[-1])) if sides else ()
        for item, number in zip(items, (*geometry.place(x, y), *extent), strict=False):
            _set(item, number, 0)


def _move(
    fields: dict[str, Any],
    names: list[str],
    geometry: Geometry,
    is_relative: bool,
    corner: float,
) -> None:
    """Turn and scale a rectangle, or a point, whose fields have these names."""
    nodes = [fields.get(name) for name in names]
    if None in nodes[:2] or (is_relative and geometry.orientation == 1):
        return
    x, y, wide, high = (_number(node) for node in nodes)
    moved = _moved((x, y), (wide, high), geometry, is_relative, corner)
    for node, number in zip(nodes, moved, strict=True):
        if node is not None:
            _set(node, number, 6 if is_relative else 0)


def _moved(
    point: Pair, sides: Pair, geometry: Geometry, is_relative: bool, corner: float
) -> tuple[float, ...]:
    """A rectangle turned and scaled: point and sides.

    Its point is its centre, or `corner` is 0.5 and it is the left upper corner.
    """
    move = geometry.turn if is_relative else geometry.place
    after = geometry.swap(sides) if is_relative else geometry.scale(sides)
    x, y = move(point[0] + corner * sides[0], point[1] + corner * sides[1])
    return (x - corner * after[0], y - corner * after[1], *after)


def _is(fields: dict[str, Any], name: str, value: str) -> bool:
    return name in fields and _get(fields[name]) == value


def _get(node: Any) -> str:  # noqa: ANN401
    if node.nodeType == node.ATTRIBUTE_NODE:
        return str(node.value).strip()
    return "".join(part.data for part in node.childNodes if part.nodeType == 3).strip()


def _number(node: Any, absent: float = 0) -> float:  # noqa: ANN401
    """The number, or fraction, that a property holds."""
    if node is None:
        return absent
    above, _, below = _get(node).partition("/")
    return _parse_number(above) / (_parse_number(below or "1") or math.nan)


def _parse_number(text: str) -> float:
    """A number; `nan`, which stays one whatever is done to it, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _set(node: Any, number: float, digits: int, below: int = 1) -> None:  # noqa: ANN401
    """Set a property, as a fraction if `below` is not 1; what was no number stays."""
    if math.isfinite(number):
        text = _text(number * below, digits)
        _set_text(node, text if below == 1 else f"{text}/{below}")


def _set_text(node: Any, text: str) -> None:  # noqa: ANN401
    if node.nodeType == node.ATTRIBUTE_NODE:
        node.value = text
    else:
        for part in list(node.childNodes):
            node.removeChild(part)
        node.appendChild(node.ownerDocument.createTextNode(text))


def _text(number: float, digits: int) -> str:
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text
