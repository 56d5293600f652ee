"""How a picture was turned and enlarged, for what is said in its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pair = tuple[float, float]  # along x and along y


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

    def swap(self, pair: Pair) -> Pair:
        """A pair along x and y, which may have changed places."""
        return pair[::-1] if self.orientation >= 5 else pair

    def scale(self, pair: Pair) -> Pair:
        """Lengths in pixels, or pixels in a length."""
        (x, y), (width, height) = self.swap(pair), self.swap(self.stored)
        return x * self.size[0] / width, y * self.size[1] / height

    def turn(self, x: float, y: float) -> Pair:
        """A point; the picture is 1 wide and 1 high.

        Source: Exif 2.32, section 4.6.4, tag Orientation.
        """
        x, y = self.swap((x, y))
        return (
            1 - x if self.orientation in (2, 3, 6, 7) else x,
            1 - y if self.orientation in (3, 4, 7, 8) else y,
        )

    def place(self, x: float, y: float) -> Pair:
        """A point in pixels."""
        x, y = self.turn(x / self.stored[0], y / self.stored[1])
        return x * self.size[0], y * self.size[1]


def turn_upright(plane: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels, (H, W) or (H, W, C), as EXIF's `orientation` wants them shown.

    Source: Exif 2.32, section 4.6.4, tag Orientation: which edges the stored first row
    and first column are.
    """
    if orientation >= 5:
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)
