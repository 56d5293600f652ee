"""A picture's turn and enlargement, applied to pixels and to what counts in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.box import Box

Pair = tuple[float, float]  # along x and along y

# EXIF's orientation (Exif 2.32, section 4.6.4) says which edges the stored first row
# and first column are; from 5 on, rows are columns.
_LEFTWARDS, _UPWARDS, _SWAPPED = (2, 3, 6, 7), (3, 4, 7, 8), (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A picture turned upright, then enlarged.

    Attributes:
        stored: Width and height before, in pixels.
        size: Width and height after.
        orientation: The EXIF orientation that was applied, 1 to 8.
    """

    stored: tuple[int, int]
    size: tuple[int, int]
    orientation: int = 1

    @property
    def is_same(self) -> bool:
        """Whether nothing was done to it."""
        return self.stored == self.size and self.orientation == 1

    def swap(self, pair: Pair) -> Pair:
        """A pair along x and y, which may have changed places."""
        return pair[::-1] if self.orientation in _SWAPPED else pair

    def scale(self, pair: Pair) -> Pair:
        """Lengths in pixels, or pixels in a length."""
        (x, y), (width, height) = self.swap(pair), self.swap(self.stored)
        return x * self.size[0] / width, y * self.size[1] / height

    def turn(self, x: float, y: float) -> Pair:
        """A point; the picture is 1 wide and 1 high."""
        x, y = self.swap((x, y))
        return (
            1 - x if self.orientation in _LEFTWARDS else x,
            1 - y if self.orientation in _UPWARDS else y,
        )

    def place(self, x: float, y: float) -> Pair:
        """A point in pixels."""
        x, y = self.turn(x / self.stored[0], y / self.stored[1])
        return x * self.size[0], y * self.size[1]


def turn_upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels, (H, W) or (H, W, C), as an EXIF orientation wants them shown."""
    if orientation in _SWAPPED:
        plane = plane.swapaxes(0, 1)
    if orientation in _UPWARDS:
        plane = plane[::-1]
    if orientation in _LEFTWARDS:
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


def find_stored(box: Box, height: int, width: int, orientation: int) -> Box:
    """Where a box of an upright picture of this height and width is stored."""
    y, x = (box.top, box.bottom), (box.left, box.right)
    if orientation in _UPWARDS:
        y = height - box.bottom, height - box.top
    if orientation in _LEFTWARDS:
        x = width - box.right, width - box.left
    if orientation in _SWAPPED:
        y, x = x, y
    return Box(y[0], x[0], y[1], x[1])
