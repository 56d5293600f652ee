"""Chunks of a PNG, segments of a JPEG, and Photoshop's image resources in either."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

Chunk = tuple[bytes, bytes]  # kind and data

# How colours are meant; in force where there is no profile (PNG, third edition,
# section 4.3).
COLOUR_CHUNKS = frozenset((b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"))
# Shown as sRGB: BT.709 and unspecified; for the curve sRGB itself and BT.601, too.
_SRGB_PRIMARIES, _SRGB_TRANSFERS = (1, 2), (1, 2, 6, 13)
_SCAN = 0xDA  # marker of a JPEG
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
# What pixels are made of, and the frames of an animation.
_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT"))


def read_chunks(
    file: IO[bytes], wanted: Callable[[bytes], bool] = bool
) -> Iterator[Chunk]:
    """The chunks of a PNG up to its IEND, from behind the signature on.

    Those of a kind that is not wanted are passed over unread.

    Raises:
        ValueError: If the file ends before, or a chunk's check sum is wrong.
    """
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends within its picture")
        length, kind = struct.unpack(">I4s", head)
        if not wanted(kind):
            file.seek(length + 4, 1)
            continue
        # Read, not allocated: a length that lies costs no more than the file has.
        data = file.read(length)
        check = file.read(4)
        if len(data) < length or len(check) < 4:
            raise ValueError("it ends within its picture")
        if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(check, "big"):
            raise ValueError(f"its chunk {ascii(kind)[2:-1]} is damaged")
        yield kind, data


def write_chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    """Write one chunk."""
    check = zlib.crc32(data, zlib.crc32(kind))
    file.write(struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", check))


def read_ancillary(file: IO[bytes]) -> tuple[list[Chunk], bool]:
    """The chunks of a PNG beside its pixels, wherever they stand; whether it is whole.

    It may be damaged behind its pixels.
    """
    found: list[Chunk] = []
    file.seek(len(SIGNATURE))
    with suppress(ValueError):
        for chunk in read_chunks(file, lambda kind: kind not in _PIXELS):
            found.append(chunk)
    kept = [chunk for chunk in found if chunk[0] != b"IEND"]
    return kept, len(kept) < len(found)


def read_critical(file: IO[bytes]) -> bytes:
    """A PNG with nothing but its pixels.

    Raises:
        ValueError: If the file is damaged.
    """
    kept = io.BytesIO()
    file.seek(0)
    kept.write(file.read(len(SIGNATURE)))
    kinds = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
    for kind, data in read_chunks(file, lambda kind: kind in kinds):
        write_chunk(kept, kind, data)
    return kept.getvalue()


def one_pixel(chunks: list[Chunk]) -> bytes:
    """A PNG of one pixel with these chunks.

    Pillow reads the chunks behind the pixels only once it has decoded these. Of such a
    file it tells at once what is said anywhere in the other.
    """
    made = io.BytesIO()
    made.write(SIGNATURE)
    grey = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = ((b"IDAT", zlib.compress(b"\x00\x00")), (b"IEND", b""))
    for kind, data in ((b"IHDR", grey), *chunks, *pixels):
        write_chunk(made, kind, data)
    return made.getvalue()


def carried(chunks: list[Chunk]) -> tuple[Chunk, ...]:
    """Of a PNG's chunks those that say its colours and what it is about.

    Left out is what Pillow reads and writes: profile, EXIF, XMP, resolution, also where
    an old program has put one of them into a text.
    """
    others = (b"XML:com.adobe.xmp", b"Raw profile type")
    return tuple(
        (kind, data)
        for kind, data in chunks
        if kind in COLOUR_CHUNKS or (kind in _TEXTS and not data.startswith(others))
    )


def find_nclx(head: bytes) -> tuple[Chunk, ...]:
    """What an AVIF says of its colours, as the PNG chunk cICP, unless it is sRGB.

    Source: ISO/IEC 14496-12, section 12.1.5 (colr), ITU-T H.273, tables 2 and 3.
    """
    box = head.find(b"colrnclx")
    if box < 0 or box + 12 > len(head):
        return ()
    primaries, transfer = struct.unpack_from(">HH", head, box + 8)
    if primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS:
        return ()
    # Decoded, the pixels are RGB in the full range: matrix 0, range 1.
    return ((b"cICP", bytes((primaries & 0xFF, transfer & 0xFF, 0, 1))),)


def list_segments(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """The segments of a JPEG up to its first scan: marker, and where it stands.

    Of anything else than a JPEG, or the beginning of one, there are none. Source: ITU-T
    T.81, section B.1.1.
    """
    position = 2
    while data[:2] == b"\xff\xd8" and data[position : position + 1] == b"\xff":
        if position + 10 > len(data):
            return
        marker = data[position + 1]
        yield marker, position
        if marker == _SCAN:
            return
        fill = marker == 0xFF  # any number of these may stand before a marker
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        position += 1 if fill else 2 + length


RESOURCES_MARKER = b"Photoshop 3.0\x00"  # what a JPEG's segment begins with
_RESOURCE = b"8BIM"
_IPTC = 0x0404
# Of some eighty resources those that say whose and of what the picture is: IPTC, its
# digest, the copyright flag and address. The others describe its layout or layers.
_KEPT = (_IPTC, 0x0425, 0x040A, 0x040B)
_RESOURCES_TAG, _IPTC_TAG = 34377, 33723  # of a TIFF
_APP13 = b"\xff\xed"


def find_resources(photoshop: Any, tags: Image.Exif) -> bytes | None:  # noqa: ANN401 - Pillow's
    """The image resources that are kept, in one block, or None where there are none.

    Args:
        photoshop: What Pillow's `info` has of them: resources by number, or a block.
        tags: Those of a TIFF, which may have them instead.
    """
    found: dict[int, bytes] = {}
    block = photoshop if photoshop else tags.get(_RESOURCES_TAG)
    if isinstance(block, Mapping):
        found = {key: data for key, data in block.items() if isinstance(data, bytes)}
    elif isinstance(block, bytes):
        found = dict(_split_resources(block.removeprefix(RESOURCES_MARKER)))
    alone = tags.get(_IPTC_TAG)
    if isinstance(alone, bytes):
        found.setdefault(_IPTC, alone)
    return (
        b"".join(_pack_resource(key, found[key]) for key in _KEPT if key in found)
        or None
    )


def resources_segment(block: bytes) -> bytes:
    """A block as the segment of a JPEG; it must fit into one."""
    content = RESOURCES_MARKER + block
    return _APP13 + struct.pack(">H", len(content) + 2) + content


def resources_tags(block: bytes) -> dict[int, bytes]:
    """A block as the tags of a TIFF."""
    data = dict(_split_resources(block)).get(_IPTC)
    return {_RESOURCES_TAG: block} | ({} if data is None else {_IPTC_TAG: data})


def _split_resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The resources of a block as far as it is whole: number and data."""
    position = 0
    while block[position : position + 4] == _RESOURCE and position + 12 <= len(block):
        (key,) = struct.unpack_from(">H", block, position + 4)
        named = position + 6
        start = named + (block[named] // 2 + 1) * 2  # a name with its length, padded
        if start + 4 > len(block):
            return
        (length,) = struct.unpack_from(">I", block, start)
        data = block[start + 4 : start + 4 + length]
        if len(data) < length:
            return
        yield key, data
        position = start + 4 + length + length % 2


def _pack_resource(key: int, data: bytes) -> bytes:
    head = struct.pack(">4sHHI", _RESOURCE, key, 0, len(data))
    return head + data + b"\x00" * (len(data) % 2)
