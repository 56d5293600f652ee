"""How a TIFF page is cut into strips or tiles, and whether it can be read by window.

Source: TIFF 6.0, sections 3 and 15; TIFF Technical Note 2 for JPEG.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

from srcli.errors import InputError
from srcli.imaging.tiff import TiffPage
from srcli.imaging.tiff_pages import Compression, Directory, Tag

# A window needs all of the strips or tiles that it touches in memory.
_MOST_BYTES = 1 << 30
_MOST_PIXEL = 64  # bytes of a pixel, with all channels
_MOST_SIDE = (1 << 31) - 1  # px
_CODECS = frozenset(Compression) - {Compression.OLD_JPEG}
_BY_COLUMN = 2  # of Predictor; 1 is none


@dataclass(frozen=True, slots=True)
class Layout:
    """The strips or tiles of a page, not turned upright; lengths in pixels."""

    width: int  # of the picture
    height: int
    tile_width: int  # of one strip or tile, those at the edge too
    tile_height: int
    planes: int  # that have strips or tiles of their own
    samples: int  # of a pixel in each of them
    is_tiled: bool
    is_plain: bool  # strips of which any rows can be read by themselves

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return math.ceil(self.width / self.tile_width)

    @property
    def rows(self) -> int:
        """Strips or tiles one below the other."""
        return math.ceil(self.height / self.tile_height)


def read_layout(page: Directory) -> Layout:
    """How a page is cut.

    Raises:
        ValueError: If the tags make no sense.
    """
    width, height = page.number(Tag.WIDTH, 0), page.number(Tag.LENGTH, 0)
    if width < 1 or height < 1:
        raise ValueError("it has no pixels")
    is_tiled = Tag.TILE_OFFSETS in page.tags
    if is_tiled:
        tile = page.number(Tag.TILE_WIDTH, 0), page.number(Tag.TILE_LENGTH, 0)
    else:
        tile = width, min(height, page.number(Tag.STRIP_ROWS, height))
    if min(tile) < 1:
        raise ValueError("its tiles have no pixels")
    is_plain = (
        not is_tiled
        and page.number(Tag.COMPRESSION, 1) == Compression.NONE
        and page.number(Tag.PREDICTOR, 1) == 1
        and page.number(Tag.FILL_ORDER, 1) == 1
        and page.number(Tag.BITS, 1) in (8, 16, 32, 64)
    )
    planes = page.samples if page.is_planar else 1
    return Layout(
        width, height, *tile, planes, page.samples // planes, is_tiled, is_plain
    )


def find_obstacle(page: Directory, name: str) -> str | None:
    """Why a page cannot be read by window, or None where it can.

    Args:
        page: The page.
        name: What messages call the file.

    Returns:
        A phrase to follow the file's name, such as "is compressed in an unusual way".

    Raises:
        ValueError: If the tags make no sense.
    """
    layout = read_layout(page)
    bits = page.numbers(Tag.BITS) or (1,)
    try:
        TiffPage(io.BytesIO(), page, name)
    except InputError as error:
        return str(error).removeprefix(name).strip().partition(",")[0]
    if page.number(Tag.COMPRESSION, 1) not in _CODECS:
        return "is compressed in an unusual way"
    if len(set(bits)) > 1:
        return "has channels of different depths"
    if page.samples * max(bits) > 8 * _MOST_PIXEL:
        return "has too many channels"
    size = layout.tile_width * layout.tile_height * layout.samples * max(bits) / 8
    if size > _MOST_BYTES and not layout.is_plain:
        return "is not cut into tiles, or into too large ones"
    if max(layout.width, layout.height) > _MOST_SIDE:
        return "is too wide or too high"
    return None


def check_extent(page: Directory, end: int) -> None:
    """Refuse pixels that the file does not hold: decoders would make up black ones.

    Args:
        page: The page.
        end: The size of the file in bytes.

    Raises:
        ValueError: If there are fewer strips or tiles than the picture needs.
    """
    if page.number(Tag.COMPRESSION, 1) == Compression.OLD_JPEG:
        return
    layout = read_layout(page)
    kinds = (Tag.STRIP_OFFSETS, Tag.STRIP_COUNTS)
    if layout.is_tiled:
        kinds = (Tag.TILE_OFFSETS, Tag.TILE_COUNTS)
    offsets, counts = (page.numbers(tag) for tag in kinds)
    # Some programs leave out the sizes where nothing is compressed.
    counts = counts or (1,) * len(offsets)
    needed = layout.rows * layout.columns * layout.planes
    whole = [
        0 < start <= end - max(size, 1)
        for start, size in zip(offsets, counts, strict=False)
    ]
    if sum(whole) < needed:
        raise ValueError("it ends within its picture")
