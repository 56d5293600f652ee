"""IPTC captions and copyright, which files keep among Photoshop's image resources.

Layout: Adobe Photoshop File Formats Specification, "Image Resource Blocks".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

MARKER = b"Photoshop 3.0\x00"  # what a JPEG's segment begins with
_SIGNATURE = b"8BIM"
_IPTC = 0x0404
# Of some eighty resources those that say whose and of what the picture is: IPTC, its
# digest, the copyright flag and address. The others describe its layout or layers.
_KEPT = (_IPTC, 0x0425, 0x040A, 0x040B)
_RESOURCES_TAG, _IPTC_TAG = 34377, 33723  # of a TIFF
_APP13 = b"\xff\xed"


def find(photoshop: Any, tags: Image.Exif) -> bytes | None:  # noqa: ANN401 - Pillow's
    """The resources that are kept, in one block, or None where there are none.

    Args:
        photoshop: What Pillow's `info` has of them: resources by number, or a block.
        tags: Those of a TIFF, which may have them instead.
    """
    found: dict[int, bytes] = {}
    block = photoshop if photoshop else tags.get(_RESOURCES_TAG)
    if isinstance(block, Mapping):
        found = {key: data for key, data in block.items() if isinstance(data, bytes)}
    elif isinstance(block, bytes):
        found = dict(_split(block.removeprefix(MARKER)))
    alone = tags.get(_IPTC_TAG)
    if isinstance(alone, bytes):
        found.setdefault(_IPTC, alone)
    return b"".join(_pack(key, found[key]) for key in _KEPT if key in found) or None


def as_segment(block: bytes) -> bytes:
    """A block as the segment of a JPEG; it must fit into one."""
    content = MARKER + block
    return _APP13 + struct.pack(">H", len(content) + 2) + content


def as_tags(block: bytes) -> dict[int, bytes]:
    """A block as the tags of a TIFF."""
    data = dict(_split(block)).get(_IPTC)
    return {_RESOURCES_TAG: block} | ({} if data is None else {_IPTC_TAG: data})


def _split(block: bytes) -> Iterator[tuple[int, bytes]]:
    """The resources of a block as far as it is whole: number and data."""
    position = 0
    while block[position : position + 4] == _SIGNATURE and position + 12 <= len(block):
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


def _pack(key: int, data: bytes) -> bytes:
    head = struct.pack(">4sHHI", _SIGNATURE, key, 0, len(data))
    return head + data + b"\x00" * (len(data) % 2)
