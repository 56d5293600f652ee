"""What is said in pixels follows the picture; what points at what is gone goes."""

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational
from sample_files import make_planes, opened, save  # fmt: skip

from srcli.imaging.files import (
    Picture,
    encode_picture,
    read_picture,  # fmt: skip
)

WIDTH, HEIGHT = 40, 20  # as stored
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMES = {
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GAudio": "http://ns.google.com/photos/1.0/audio/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "apple": "http://ns.apple.com/HDRGainMap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "regions": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
}


def packet(attributes="", elements=""):
    """An XMP packet."""
    spaces = " ".join(f'xmlns:{name}="{space}"' for name, space in NAMES.items())
    return (
        f'<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x='
        f'"adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f"{spaces} {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()


def enlarged(data, factor=2):
    """The picture of a file, each of its pixels repeated."""
    source = read_picture(data)
    pixels = source.pixels.repeat(factor, 0).repeat(factor, 1)
    return Picture(pixels, None, source.metadata, source.format)


def jpeg(xmp=b"", orientation=1, tags=()):
    """A JPEG of 40x20 pixels, turned by `orientation`."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    options = {"xmp": xmp} if xmp else {}
    return save(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "jpeg", exif=exif, **options)


def followed(attributes="", elements="", orientation=1, factor=2):
    """All properties of a packet, by prefix and name, once its picture is enlarged."""
    data = jpeg(packet(attributes, elements), orientation)
    xmp = opened(encode_picture(enlarged(data, factor), "png")).info["xmp"]
    prefixes = {space: name for name, space in NAMES.items()}
    found = {}
    for element in ElementTree.fromstring(xmp).iter():
        pairs = [(element.tag, (element.text or "").strip()), *element.attrib.items()]
        for key, value in pairs:
            space, _, name = key[1:].partition("}")
            if space in prefixes and value:
                found.setdefault(f"{prefixes[space]}:{name}", []).append(value)
    return {key: value[0] if len(value) == 1 else value for key, value in found.items()}


# Pixels and regions

PANORAMA = (
    'GPano:CroppedAreaImageWidthPixels="40" GPano:CroppedAreaImageHeightPixels="20" '
    'GPano:FullPanoWidthPixels="96" GPano:FullPanoHeightPixels="48" '
    'GPano:CroppedAreaLeftPixels="24" GPano:ProjectionType="equirectangular"'
)


def test_a_panorama_grows_with_its_picture():
    top = "<GPano:CroppedAreaTopPixels>12</GPano:CroppedAreaTopPixels>"
    found = followed(PANORAMA, top, factor=3)
    assert found == {
        "GPano:CroppedAreaImageWidthPixels": "120",
        "GPano:CroppedAreaImageHeightPixels": "60",
        "GPano:FullPanoWidthPixels": "288",
        "GPano:FullPanoHeightPixels": "144",
        "GPano:CroppedAreaLeftPixels": "72",
        "GPano:CroppedAreaTopPixels": "36",
        "GPano:ProjectionType": "equirectangular",
    }


def test_a_panorama_that_is_turned_is_none(caplog):
    cut = 'crs:CropTop="0.25" crs:HasCrop="True" crs:Version="15.0"'
    assert followed(f"{PANORAMA} {cut}", "", 6) == {"crs:Version": "15.0"}
    assert caplog.messages == [
        "the picture: srcli cannot carry on its crop and panorama: left out"
    ]


# A box from (10, 2) to (18, 8) in the stored 40x20, whose centre is (14, 5), by the
# orientation: its centre and corner in the upright picture, in parts of it. By hand.
TURNED = {
    1: ((0.35, 0.25), (0.25, 0.1)),
    2: ((0.65, 0.25), (0.55, 0.1)),
    3: ((0.65, 0.75), (0.55, 0.6)),
    4: ((0.35, 0.75), (0.25, 0.6)),
    5: ((0.25, 0.35), (0.1, 0.25)),
    6: ((0.75, 0.35), (0.6, 0.25)),
    7: ((0.75, 0.65), (0.6, 0.55)),
    8: ((0.25, 0.65), (0.1, 0.55)),
}


def numbers(values):
    return [float(value) for value in values]


@pytest.mark.parametrize("orientation", [1, 4, 6, 7])
def test_regions_turn_with_the_picture(orientation):
    found = followed(
        "",
        '<regions:AppliedToDimensions stDim:w="40" stDim:h="20" stDim:unit="pixel"/>'
        '<regions:Area stArea:x="0.35" stArea:y="0.25" stArea:w="0.2" stArea:h="0.3" '
        'stArea:unit="normalized"/><dc:r MPReg:Rectangle="0.25, 0.1, 0.2, 0.3"/>'
        '<Iptc4xmpExt:RegionBoundary rdf:parseType="Resource">'
        "<Iptc4xmpExt:rbUnit>pixel</Iptc4xmpExt:rbUnit>"
        "<Iptc4xmpExt:rbX>10</Iptc4xmpExt:rbX><Iptc4xmpExt:rbY>2</Iptc4xmpExt:rbY>"
        "<Iptc4xmpExt:rbW>8</Iptc4xmpExt:rbW><Iptc4xmpExt:rbH>6</Iptc4xmpExt:rbH>"
        "</Iptc4xmpExt:RegionBoundary>",
        orientation,
    )
    centre, corner = TURNED[orientation]
    sides, size = ((0.2, 0.3), (80, 40))
    if orientation >= 5:
        sides, size = sides[::-1], size[::-1]
    area = numbers(found[f"stArea:{name}"] for name in "xywh")
    assert area == pytest.approx((*centre, *sides))
    rectangle = numbers(found["MPReg:Rectangle"].split(","))
    assert rectangle == pytest.approx((*corner, *sides))
    boundary = numbers(found[f"Iptc4xmpExt:rb{name}"] for name in "XYWH")
    expected = np.multiply((*corner, *sides), (*size, *size))
    assert boundary == pytest.approx(expected)
    assert (found["stDim:w"], found["stDim:h"]) == tuple(map(str, size))


@pytest.mark.parametrize("orientation", [3, 8])
def test_the_subject_and_the_sensor_follow(orientation):
    tags = {0x9214: (14, 5, 8, 6), 0xA214: (14, 5)}
    tags |= {0xA20E: IFDRational(9000, 3), 0xA20F: IFDRational(2000)}
    data = jpeg(b"", orientation, tags)
    found = opened(encode_picture(enlarged(data), "jpg")).getexif().get_ifd(0x8769)
    size = (80, 40) if orientation < 5 else (40, 80)
    sides = (16, 12) if orientation < 5 else (12, 16)
    centre = tuple(np.multiply(TURNED[orientation][0], size).round())
    assert found[0x9214] == (*centre, *sides)
    assert found[0xA214] == centre
    planes = (6000, 4000) if orientation < 5 else (4000, 6000)
    assert (found[0xA20E], found[0xA20F]) == planes


def test_a_circle_a_polygon_and_a_subject_in_xmp():
    def boundary(shape):
        start = "<Iptc4xmpExt:RegionBoundary rdf:parseType='Resource'>"
        unit = "<Iptc4xmpExt:rbUnit>relative</Iptc4xmpExt:rbUnit>"
        return f"{start}{unit}{shape}</Iptc4xmpExt:RegionBoundary>"

    circle = (
        "<Iptc4xmpExt:rbX>0.35</Iptc4xmpExt:rbX><Iptc4xmpExt:rbY>0.25</Iptc4xmpExt:rbY>"
        "<Iptc4xmpExt:rbRx>0.1</Iptc4xmpExt:rbRx>"  # of the width: 4 of 40, of 20
    )
    found = followed("", boundary(circle), 6)
    names = ("X", "Y", "Rx")
    circle = numbers(found[f"Iptc4xmpExt:rb{name}"] for name in names)
    assert circle == pytest.approx((0.75, 0.35, 0.2))
    corners = [(0.25, 0.1), (0.5, 0.5)]
    points = "".join(
        f'<rdf:li Iptc4xmpExt:rbX="{x}" Iptc4xmpExt:rbY="{y}"/>' for x, y in corners
    )
    vertices = (
        f"<Iptc4xmpExt:rbVertices><rdf:Seq>{points}</rdf:Seq></Iptc4xmpExt:rbVertices>"
    )
    found = followed("", boundary(vertices), 3)
    assert numbers(found["Iptc4xmpExt:rbX"]) == pytest.approx((0.75, 0.5))
    assert numbers(found["Iptc4xmpExt:rbY"]) == pytest.approx((0.9, 0.5))
    items = "".join(f"<rdf:li>{number}</rdf:li>" for number in (14, 5, 8, 6))
    data = jpeg(
        packet("", f"<exif:SubjectArea><rdf:Seq>{items}</rdf:Seq></exif:SubjectArea>")
    )
    xmp = opened(encode_picture(enlarged(data), "jpg")).info["xmp"]
    found = [item.text for item in ElementTree.fromstring(xmp).iter(f"{{{RDF}}}li")]
    assert found == ["28", "10", "16", "12"]


def test_all_else_in_a_packet_stays():
    words = 'dc:title="a&#10;b &lt;c&gt;" crs:CropTop="0.25" tiff:ImageWidth="40"'
    source = jpeg(packet(words, "<!-- said --><dc:odd/>"))
    found = opened(encode_picture(enlarged(source), "jpg")).info["xmp"]
    expected = (b'"a&#10;b &lt;c&gt;"', b'tiff:ImageWidth="80"', b"<!-- said -->")
    for part in (*expected, b'crs:CropTop="0.25"', b"<?xpacket end", b"<dc:odd/>"):
        assert part in found
    untouched = jpeg(packet('dc:title="plain"'))
    assert opened(encode_picture(enlarged(untouched), "jpg")).info["xmp"] == packet(
        'dc:title="plain"'
    )


def test_properties_that_are_no_numbers_do_no_harm():
    odd = 'GPano:FullPanoWidthPixels="wide" exif:FocalPlaneXResolution="1/0"'
    more = '<dc:r MPReg:Rectangle=""/><exif:SubjectArea>here</exif:SubjectArea>'
    more += '<regions:Area stArea:x="" stArea:y="inf"/>'
    found = followed(f'{odd} tiff:ImageLength="20"', more)
    assert found["GPano:FullPanoWidthPixels"] == "wide"
    assert found["tiff:ImageLength"] == "40"


# What is gone

POINTERS = {
    "film": 'GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"',
    "film, listed": "MotionPhoto",
    "gain map": 'hdrgm:Version="1.0"',
    "depth map": 'GDepth:Format="RangeInverse" GDepth:Mime="image/png"',
    "sound": 'GAudio:Mime="audio/mp4"',
    "extended XMP": 'xmpNote:HasExtendedXMP="0123456789ABCDEF0123456789ABCDEF"',
}


@pytest.mark.parametrize("kind", POINTERS)
def test_pointers_at_what_is_gone_go(kind, caplog):
    said, elements = POINTERS[kind], ""
    if "=" not in said:
        item = '<rdf:li><Container:Item Item:Mime="x/y" Item:Semantic="{}"/></rdf:li>'
        items = item.format("Primary") + item.format(said)
        elements = f"<Container:Directory><rdf:Seq>{items}</rdf:Seq>"
        said, elements = "", f"{elements}</Container:Directory>"
    kept = 'dc:title="kept" GCamera:BurstID="7"'
    found = followed(f"{kept} {said}", elements)
    assert found == {"dc:title": "kept", "GCamera:BurstID": "7"}
    title = ["film", "gain", "depth", "sound", "extended"]
    (word,) = [word for word in title if kind.startswith(word)]
    (line,) = caplog.messages
    assert line.startswith(f"the picture: srcli cannot carry on its {word}")


BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'


WHOLE = packet('tiff:Orientation="6"')
BROKEN = {"cut off": WHOLE[:-99], "entities": BOMB + WHOLE[WHOLE.index(b"<x:xmp") :]}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_xmp_that_cannot_be_read_is_said_and_left_out(broken, caplog):
    source = read_picture(save(make_planes(3), "jpeg", xmp=broken), name="a.jpg")
    assert source.metadata.xmp is None
    assert caplog.messages == ["a.jpg: its XMP cannot be read: left out"]


def test_xmp_that_cannot_be_read_but_need_not_is_kept():
    source = read_picture(save(make_planes(3), "jpeg", xmp=b"<plain words"))
    assert source.metadata.xmp == b"<plain words"
