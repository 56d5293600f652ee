"""TIFF files of any depth, compressed strip by strip, with their metadata.

tifffile writes the pixels and the plain tags. The directories of EXIF and GPS, which it
does not write, are made by Pillow and put behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any

from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from srcli.imaging import iptc
from srcli.imaging.exif import EXIF_IFD, GPS_IFD, copy_descriptive
from srcli.imaging.metadata import Metadata

_XMP = 700
_CLASSIC_END = 0xF000_0000  # offsets of 32 bits end at 4 GiB
_STRIP = 1 << 22  # bytes of pixels that are compressed at a time
_BYTE, _ASCII, _LONG, _LONG8 = 1, 2, 4, 16  # TIFF 6.0, section 2


def write_tiff(planes: NDArray[Any], file: IO[bytes], metadata: Metadata) -> None:
    """Write a TIFF, deflated, of one page.

    Args:
        planes: (H, W, C), C being grey, grey and alpha, RGB, or RGB and alpha; uint8,
            uint16 or float32.
        file: To write to; must be seekable and readable.
        metadata: What is beside the pixels.
    """
    _, width, channels = planes.shape
    write_page(
        planes if channels > 1 else planes[:, :, 0],
        file,
        metadata,
        channels=channels,
        is_big=planes.nbytes > _CLASSIC_END,
        rowsperstrip=max(1, _STRIP // (width * channels * planes.itemsize)),
    )


def write_page(
    content: NDArray[Any] | Iterator[bytes],
    file: IO[bytes],
    metadata: Metadata,
    *,
    channels: int,
    is_big: bool,
    **layout: Any,  # noqa: ANN401 - what tifffile takes
) -> None:
    """Write a TIFF of one page, deflated, its samples side by side.

    Args:
        content: The pixels, or the coded tiles.
        file: To write to; must be seekable and readable.
        metadata: What is beside the pixels.
        channels: Grey, grey and alpha, RGB, or RGB and alpha.
        is_big: Whether offsets have 64 bits: a BigTIFF.
        **layout: How it is cut, and its shape where `content` does not tell.
    """
    import tifffile  # noqa: PLC0415 - few pictures need it

    found = _gather(metadata)
    nested = [tag for tag in (EXIF_IFD, GPS_IFD) if found.get_ifd(tag)]
    with tifffile.TiffWriter(file, bigtiff=is_big, byteorder="<") as writer:
        writer.write(
            content,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            compression="adobe_deflate",
            predictor=True,
            iccprofile=metadata.icc,
            resolution=metadata.dpi or metadata.aspect,
            resolutionunit="INCH" if metadata.dpi else "NONE",
            software=False,
            metadata=None,
            extratags=_describe(found),
            **layout,
        )
    places = {
        tag: _append_directory(file, tag, found.get_ifd(tag), is_big) for tag in nested
    }
    if places:
        _point_to(file, places, is_big)


def _gather(metadata: Metadata) -> Image.Exif:
    """The tags of a TIFF that describe it, and the directories below them."""
    found, tags = Image.Exif(), Image.Exif()
    found.load(metadata.exif or b"")
    copy_descriptive(found, tags)
    if metadata.xmp is not None:
        tags[_XMP] = metadata.xmp
    for tag, data in (iptc.as_tags(metadata.iptc) if metadata.iptc else {}).items():
        tags[tag] = data
    return tags


def _describe(tags: Image.Exif) -> list[tuple[int, int, int, bytes, bool]]:
    """Tags as tifffile takes them: number, type, count, value, whether only once.

    All that describe a picture are text or bytes; what is neither makes no sense.
    """
    described: list[tuple[int, int, int, bytes, bool]] = []
    for tag, value in tags.items():
        if isinstance(value, bytes):
            described.append((tag, _BYTE, len(value), value, True))
        elif isinstance(value, str):
            # Pillow reads all text as Latin-1, so this gives its bytes back.
            text = value.encode("latin-1", "replace")
            described.append((tag, _ASCII, len(text) + 1, text, True))
    return described


def _append_directory(
    file: IO[bytes], tag: int, values: dict[int, Any], is_big: bool
) -> int:
    """Put a directory at the end of a TIFF and say where that is."""
    start = _even_end(file)
    head = b"II+\x00\x08\x00\x00\x00" + bytes(8) if is_big else b"II*\x00" + bytes(4)
    directory = ImageFileDirectory_v2(head, group=tag)
    for number, value in values.items():
        directory[number] = value
    file.write(directory.tobytes(start))
    return start


def _point_to(file: IO[bytes], places: dict[int, int], is_big: bool) -> None:
    """Give a TIFF's first directory tags that say where others are.

    It is written anew behind them, as there is no room where it stands.
    """
    word, count_kind = ("Q", "Q") if is_big else ("I", "H")
    entry_kind = f"<HH{word}{word}"
    size, link = struct.calcsize(entry_kind), 8 if is_big else 4
    file.seek(link)
    (offset,) = struct.unpack(f"<{word}", file.read(link))
    file.seek(offset)
    (count,) = struct.unpack(f"<{count_kind}", file.read(struct.calcsize(count_kind)))
    entries = [file.read(size) for _ in range(count)]
    kind = _LONG8 if is_big else _LONG
    entries += [struct.pack(entry_kind, tag, kind, 1, at) for tag, at in places.items()]
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry))
    start = _even_end(file)
    file.write(struct.pack(f"<{count_kind}", len(entries)) + b"".join(entries))
    file.write(struct.pack(f"<{word}", 0))
    file.seek(link)
    file.write(struct.pack(f"<{word}", start))


def _even_end(file: IO[bytes]) -> int:
    """The end of a file, where a directory may begin: at an even byte."""
    end = file.seek(0, 2)
    return end + file.write(b"\x00") if end % 2 else end
