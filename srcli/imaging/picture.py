"""Decoded pictures: their pixels, transparency and metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.alpha import peak_level
from srcli.imaging.formats import find_misfit
from srcli.imaging.metadata import Metadata
from srcli.imaging.planes import in_bands
from srcli.imaging.profiles import check_profile, convert_to_srgb

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, turned upright.

    Attributes:
        pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8, uint16 or float32 (finite), not
            premultiplied.
        alpha: Opacity, (H, W), same dtype, floating point in [0, 1]; None where the
            file has none.
        metadata: What goes from the input file to the output file.
        format: The file format it came in, a key of `FORMATS`.
        whole_levels: `levels` of the picture that it is a part of; None where it is
            itself the whole.
    """

    pixels: Pixels
    alpha: Pixels | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "png"
    whole_levels: tuple[float, float] | None = None

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def depth(self) -> int:
        """Bits a channel: 8, 16, or 32 for floating point."""
        return 8 * self.pixels.itemsize

    @property
    def levels(self) -> tuple[float, float]:
        """The values of black and white.

        For whole numbers the ends of their range. Floating point has none: black is 0
        and white 1, or the picture's own extremes where they lie further out.
        """
        if self.whole_levels is not None:
            return self.whole_levels
        if self.pixels.dtype != np.float32:
            return 0, peak_level(self.pixels.dtype)
        low, high = float(self.pixels.min()), float(self.pixels.max())
        return min(0.0, low), max(1.0, high)

    def find_misfit(self, name: str) -> str | None:
        """What keeps the picture out of the file format `name`, or None."""
        alpha, depth = self.is_transparent, self.depth
        return find_misfit(name, self.width, self.height, alpha=alpha, depth=depth)

    @property
    def is_transparent(self) -> bool:
        """Whether any pixel lets the background through."""
        if self.alpha is None:
            return False
        return bool(self.alpha.min() < peak_level(self.alpha.dtype))


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """The header of a picture file; sizes in pixels, turned upright."""

    format: str
    width: int
    height: int
    alpha: bool
    depth: int  # bits a channel: 8, 16, or 32 for floating point
    channels: int  # of colour, 1 or 3, as far as the header tells
    frames: int = 1  # that the file has
    is_windowed: bool = False  # its pixels can be read by box

    @property
    def pixel_bytes(self) -> int:
        """Bytes that a pixel takes in memory."""
        return (self.channels + self.alpha) * self.depth // 8


def join_planes(picture: Picture) -> NDArray[Any]:
    """Colours and opacity of a picture as one array, (H, W, C)."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate((picture.pixels, picture.alpha[:, :, None]), axis=2)


def strip_metadata(picture: Picture, name: str = "the picture") -> Picture:
    """The picture with nothing beside its pixels, which are converted to sRGB."""
    metadata, icc = find_stripped(picture.metadata, picture.pixels.shape[2], name)
    pixels = convert_to_srgb(picture.pixels, icc) if icc else picture.pixels
    return replace(picture, pixels=pixels, metadata=metadata)


def find_stripped(
    metadata: Metadata, channels: int, name: str
) -> tuple[Metadata, bytes | None]:
    """What stays of metadata, and the profile from which pixels are converted."""
    kept = metadata.stripped()
    fault = f"{name}: its colour profile cannot be used: left out"
    icc = check_profile(kept.icc, channels, fault)
    return (Metadata() if kept.icc else kept), icc


def reduce_depth(picture: Picture, depth: int) -> Picture:
    """A picture of greater depth with 8 or 16 bits a channel, to the nearest level.

    Floating point is cut off at 0 and 1.
    """
    dtype = np.uint8 if depth == 8 else np.uint16
    peak = np.float32(peak_level(np.dtype(dtype)))

    def lower(levels: NDArray[Any]) -> NDArray[Any]:
        if levels.dtype == np.uint16:  # 65535 = 257 * 255
            return (levels.astype(np.uint32) + 128) // 257
        return np.floor(levels.clip(0, 1) * peak + np.float32(0.5))

    def reduce(levels: NDArray[Any]) -> NDArray[Any]:
        return in_bands(lower, levels, channels=levels.shape[2], dtype=dtype)

    if picture.alpha is None:
        return replace(picture, pixels=reduce(picture.pixels))
    alpha = reduce(picture.alpha[:, :, None])[:, :, 0]
    return replace(picture, pixels=reduce(picture.pixels), alpha=alpha)
