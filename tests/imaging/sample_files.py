"""One small valid file of every kind that can be read, made by code."""

import io
import struct
import zlib
from functools import cache

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageCms

from srcli.imaging.files import probe_picture, read_picture
from srcli.imaging.picture import Picture

HEIGHT, WIDTH = 24, 32

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/'
    b'02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.'
    b'com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" tiff:Orientation="6" '
    b'tiff:ImageWidth="32"><exif:PixelXDimension>32</exif:PixelXDimension>'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def make_planes(channels, dtype=np.uint8):
    """Smooth waves with edges, (24, 32, channels), over the whole range."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    waves = [
        0.5 + 0.35 * np.sin(x / 3 + c) * np.cos(y / (4 + c)) + 0.15 * ((x + y) % 11 < 5)
        for c in range(channels)
    ]
    planes = np.stack(waves, axis=2).clip(0, 1)
    if np.dtype(dtype).kind == "f":
        return planes.astype(dtype)
    return np.rint(planes * np.iinfo(dtype).max).astype(dtype)


def save(image, format, **options):
    """The bytes of a file that Pillow writes; `image` may be an array."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image.squeeze())
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data):
    """What Pillow finds in a file."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def save_tiff(planes, **options):
    """The bytes of a TIFF that tifffile writes; without its own metadata."""
    buffer = io.BytesIO()
    options = {"metadata": None, "software": False, **options}
    kinds = {"bigtiff": False, "byteorder": "<"}
    kinds = {name: options.pop(name, default) for name, default in kinds.items()}
    with tifffile.TiffWriter(buffer, **kinds) as writer:
        writer.write(planes, **options)
    return buffer.getvalue()


@cache  # it says when it was made
def srgb_profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


# PNG: third edition, sections 5 and 11


def chunk(kind, body=b""):
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


def header(width, height, depth, colour, interlace=0):
    fields = (width, height, depth, colour, 0, 0, interlace)
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


def make_png(width, height, depth, colour, rows, *, before=b"", after=b"", interlace=0):
    """A PNG written by hand: `rows` filtered, not compressed; and further chunks."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + header(width, height, depth, colour, interlace)
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + after
        + chunk(b"IEND")
    )


def png_of(planes, *, depth=None, interlaced=False, **chunks):
    """A PNG, unfiltered, of (H, W, 1 to 4) levels of 8 or 16 bits, or of `depth`.

    Interlacing: section 8.1, table 8 (Adam7).
    """
    height, width, channels = planes.shape
    depth = depth or 8 * planes.itemsize
    bits = np.arange(depth)[::-1]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)]
        passes += [(2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = b""
    for top, left, down, right in passes:
        part = planes[top::down, left::right]
        if part.size:
            single = (part[..., None] >> bits & 1).reshape(len(part), -1)
            packed = np.packbits(single.astype(np.uint8), axis=1)
            rows += np.pad(packed, ((0, 0), (1, 0))).tobytes()
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return make_png(
        width, height, depth, colour, rows, interlace=int(interlaced), **chunks
    )


# TIFF 6.0, section 2


def make_tiff(order, data, **said):
    """A TIFF of one strip, for kinds that no library writes."""
    tags = {"width": 256, "height": 257, "bits": 258, "photometric": 262}
    tags |= {"samples": 277, "subfile": 254, "sub_directories": 330}
    numbers = {278: said["height"]} | {tags[name]: said[name] for name in said}
    return make_page(order, [data], {tag: (4, [numbers[tag]]) for tag in numbers})


def make_page(order, pieces, tags, behind=b""):
    """A TIFF of strips, or of tiles where TileWidth is among the tags.

    Tags have a type and values; those of where the pieces are may be left out.
    """
    is_tiled = 322 in tags
    starts = [8 + sum(map(len, pieces[:index])) for index in range(len(pieces))]
    tables = {324: (4, starts), 325: (4, [len(piece) for piece in pieces])}
    if not is_tiled:
        tables = {273: tables[324], 279: tables[325]}
    tags = tables | tags
    body = b"".join(pieces) + behind
    body += bytes(len(body) % 2)
    start, entries, values = 8 + len(body), b"", b""
    for tag, (kind, numbers) in sorted(tags.items()):
        code = {1: "B", 3: "H", 4: "I", 5: "I"}[kind]
        data = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        count = len(numbers) // (2 if kind == 5 else 1)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            after = start + 6 + 12 * len(tags) + len(values)
            place = struct.pack(f"{order}I", after)
            values += data + bytes(len(data) % 2)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + place
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return head + body + directory + values


# Every kind, by name


def _frames(format, **options):
    first = Image.fromarray(make_planes(3))
    second = Image.fromarray(255 - make_planes(3))
    return save(first, format, save_all=True, append_images=[second], **options)


def _full_png(dtype=np.uint8):
    """A PNG with everything that one can say beside its pixels."""
    said = chunk(b"gAMA", struct.pack(">I", 45455))
    said += chunk(b"tEXt", b"Title\x00Waves")
    said += chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + XMP)
    said += chunk(b"iCCP", b"sRGB\x00\x00" + zlib.compress(srgb_profile()))
    return png_of(
        make_planes(3, dtype), before=said, after=chunk(b"eXIf", make_exif()[6:])
    )


def make_exif(orientation=1, *, order="<", thumbnail=b"\xff\xd8thumbnail\xff\xd9"):
    """EXIF written by hand: a directory in another, and a thumbnail at the end."""
    strings = {271: b"Caf\xc3\xa9 Works\0"}
    note = b"maker note, opaque"
    main_at, main_entries = 8, 5
    sub_at = main_at + 2 + 12 * main_entries + 4
    second_at = sub_at + 2 + 12 * 3 + 4
    data_at = second_at + 2 + 12 * 2 + 4
    note_at = data_at + len(strings[271])
    thumbnail_at = note_at + len(note)

    def entry(tag, kind, count, value):
        if kind == 3:
            return struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)
        return struct.pack(f"{order}HHII", tag, kind, count, value)

    mark = b"II*\0" if order == "<" else b"MM\0*"
    out = mark + struct.pack(f"{order}I", main_at)
    out += struct.pack(f"{order}H", main_entries) + entry(256, 3, 1, 32)
    out += entry(257, 3, 1, 24) + entry(271, 2, len(strings[271]), data_at)
    out += entry(274, 3, 1, orientation) + entry(0x8769, 4, 1, sub_at)
    out += struct.pack(f"{order}I", second_at if thumbnail else 0)
    out += struct.pack(f"{order}H", 3) + entry(0x927C, 7, len(note), note_at)
    out += entry(0xA002, 3, 1, 32) + entry(0xA003, 4, 1, 24) + bytes(4)
    out += struct.pack(f"{order}H", 2) + entry(0x0201, 4, 1, thumbnail_at)
    out += entry(0x0202, 4, 1, len(thumbnail)) + bytes(4)
    return b"Exif\0\0" + out + strings[271] + note + thumbnail


def make_rich_exif(orientation=1):
    """EXIF as Pillow writes it: also places, odd lengths and a directory in the third.

    TIFF writers may not know where its tags belong, so none is left out here.
    """
    exif = Image.Exif()
    exif[0x010F] = "Works"
    exif[0x0112] = orientation
    exif[0x013B] = "Ren\u00e9"
    exif[0x9C9B] = "title".encode("utf-16-le") + bytes(2)
    camera = exif.get_ifd(0x8769)
    camera[0x829A] = 1 / 125
    camera[0x9000] = b"0230"
    camera[0x9003] = "2020:01:02 03:04:05"
    camera[0x8827] = 400
    camera[0x9204] = -0.5
    camera[0x9286] = b"ASCII\x00\x00\x00hello"
    camera[0x927C] = b"maker note, odd"
    camera[0xA432] = (24.0, 70.0, 2.8, 4.0)
    camera[0xA005] = {1: "R98", 2: b"0100"}
    place = exif.get_ifd(0x8825)
    place[0] = b"\x02\x03\x00\x00"
    place[1] = "N"
    place[2] = (52.0, 31.0, 12.5)
    place[5] = b"\x00"
    place[6] = 34.5
    return exif.tobytes()


def make_iptc(caption=b"Waves"):
    """Photoshop's image resources with an IPTC caption."""
    data = struct.pack(">BBBH", 0x1C, 2, 120, len(caption)) + caption
    block = struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(data)) + data
    return block + bytes(len(data) % 2)


def jpeg_segment(block):
    content = b"Photoshop 3.0\x00" + block
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def _full_jpeg(**options):
    return save(
        make_planes(3),
        "jpeg",
        exif=make_rich_exif(6),
        xmp=XMP,
        icc_profile=srgb_profile(),
        comment=b"Waves",
        dpi=(300, 300),
        extra=jpeg_segment(make_iptc()),
        **options,
    )


def _pages(*dtypes, bigtiff=False):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff) as writer:
        for dtype in dtypes:
            writer.write(make_planes(3, dtype), photometric="rgb", metadata=None)
    return buffer.getvalue()


def _palette(**options):
    image = Image.fromarray(make_planes(3)).quantize(16)
    return save(image, **options)


def deep_avif(channels, bits):
    """A lossless AVIF of `make_planes(channels, np.uint16) >> 16 - bits`."""
    levels = make_planes(channels, np.uint16) >> (16 - bits)
    return imagecodecs.avif_encode(
        levels.squeeze(), level=100, bitspersample=bits, codec="aom", speed=10
    )


def _subsampled(compression):
    """YCbCr of which four pixels share their chroma."""
    units = make_planes(3)[: HEIGHT // 2, : WIDTH // 2].repeat(2, 2)
    codes = {"lzw": (5, imagecodecs.lzw_encode)}
    number, encode = codes[compression]
    strips = [bytes(encode(units[top : top + 4].tobytes())) for top in (0, 4, 8)]
    tags = {256: (3, [WIDTH]), 257: (3, [HEIGHT]), 258: (3, [8] * 3), 278: (3, [8])}
    tags |= {259: (3, [number]), 262: (3, [6]), 277: (3, [3]), 530: (3, [2, 2])}
    return make_page("<", strips, tags)


_LZW = {"compression": "lzw", "predictor": 2}
_RGB = {"photometric": "rgb", "planarconfig": "contig"}

SAMPLES = {
    "png": lambda: png_of(make_planes(3)),
    "png-full": _full_png,
    "png-alpha": lambda: save(make_planes(4), "png"),
    "png-palette": lambda: _palette(format="png", transparency=3),
    "png-interlaced": lambda: png_of(make_planes(4), interlaced=True),
    "png-1bit": lambda: save(make_planes(1)[:, :, 0] > 99, "png"),
    "png-16": lambda: png_of(make_planes(3, np.uint16)),
    "png-16-full": lambda: _full_png(np.uint16),
    "png-16-alpha": lambda: png_of(make_planes(4, np.uint16)),
    "png-16-grey": lambda: save(make_planes(1, np.uint16), "png"),
    "png-16-interlaced": lambda: png_of(make_planes(3, np.uint16), interlaced=True),
    "apng": lambda: _frames("png"),
    "jpeg": lambda: save(make_planes(3), "jpeg"),
    "jpeg-full": _full_jpeg,
    "jpeg-progressive": lambda: save(make_planes(3), "jpeg", progressive=True),
    "jpeg-grey": lambda: save(make_planes(1), "jpeg"),
    "jpeg-cmyk": lambda: save(Image.fromarray(make_planes(4), "CMYK"), "jpeg"),
    "mpo": lambda: _frames("mpo"),
    "webp": lambda: save(make_planes(3), "webp", exif=make_exif(6), xmp=XMP),
    "webp-lossless": lambda: save(make_planes(4), "webp", lossless=True),
    "webp-animated": lambda: _frames("webp", lossless=True),
    "tiff": lambda: save_tiff(make_planes(3), **_RGB, rowsperstrip=7),
    "tiff-lzw": lambda: save_tiff(make_planes(3), **_RGB, **_LZW),
    "tiff-jpeg": lambda: save(make_planes(3), "tiff", compression="jpeg"),
    "tiff-palette": lambda: _palette(format="tiff", compression="packbits"),
    "tiff-1bit": lambda: save(
        make_planes(1)[:, :, 0] > 99, "tiff", compression="group4"
    ),
    "tiff-full": lambda: save(
        make_planes(3), "tiff", exif=make_rich_exif(6), icc_profile=srgb_profile()
    ),
    "tiff-16": lambda: save_tiff(make_planes(3, np.uint16), **_RGB, byteorder=">"),
    "tiff-16-lzw": lambda: save_tiff(
        make_planes(4, np.uint16), **_RGB, **_LZW, extrasamples=["unassalpha"]
    ),
    "tiff-16-tiled": lambda: save_tiff(
        make_planes(3, np.uint16), **_RGB, tile=(16, 16), compression="zstd"
    ),
    "tiff-16-planar": lambda: save_tiff(
        np.moveaxis(make_planes(3, np.uint16), 2, 0),
        photometric="rgb",
        planarconfig="separate",
        compression="deflate",
        predictor=True,
    ),
    "tiff-16-cmyk": lambda: save_tiff(
        make_planes(4, np.uint16), photometric="separated", planarconfig="contig"
    ),
    "tiff-12bit": lambda: make_tiff(
        "<", bytes(range(36)) * 24, width=24, height=24, bits=12, photometric=0
    ),
    "tiff-float": lambda: save_tiff(
        make_planes(3, np.float32), **_RGB, compression="deflate", predictor=3
    ),
    "tiff-half": lambda: save_tiff(make_planes(1, np.float16)[:, :, 0]),
    "tiff-ycbcr": lambda: _subsampled("lzw"),
    "tiff-lab": lambda: save_tiff(
        make_planes(3, np.uint16), photometric="cielab", compression="deflate"
    ),
    "tiff-pages": lambda: _pages(np.uint8, np.uint8),
    "tiff-pages-deep": lambda: _pages(np.uint16, np.float32),
    "tiff-big": lambda: _pages(np.uint16, bigtiff=True),
    "bmp": lambda: save(make_planes(3), "bmp"),
    "bmp-palette": lambda: _palette(format="bmp"),
    "gif": lambda: _palette(format="gif", transparency=3),
    "gif-animated": lambda: _frames("gif"),
    "avif": lambda: save(make_planes(3), "avif", exif=make_exif(6), xmp=XMP, speed=10),
    "avif-alpha": lambda: save(make_planes(4), "avif", speed=10),
    "avif-10bit": lambda: deep_avif(3, 10),
    "avif-12bit-alpha": lambda: deep_avif(4, 12),
    "avif-animated": lambda: _frames("avif", speed=10),
}  # fmt: skip


@cache
def sample(name):
    """The bytes of the file of that kind."""
    return SAMPLES[name]()


# Pictures compared with what they have to be, level by level


def planes_of(picture):
    """Colours and opacity as one array."""
    if picture.alpha is None:
        return picture.pixels
    return np.dstack((picture.pixels, picture.alpha))


def picture_of(planes):
    if planes.shape[2] in (2, 4):
        return Picture(planes[:, :, :-1], planes[:, :, -1])
    return Picture(planes)


def check(data, expected, *, frame=None):
    """A file is read exactly so, and its header says no more and no less."""
    result = read_picture(data, frame=frame)
    planes = planes_of(result)
    assert planes.dtype == expected.dtype
    assert planes.shape == expected.shape
    assert (planes == expected).all()
    info = probe_picture(data, frame=frame)
    assert (info.width, info.height) == (result.width, result.height)
    assert (info.depth, info.format) == (result.depth, result.format)
    assert info.alpha == (result.alpha is not None)
    assert info.channels == result.pixels.shape[2]
    return result
