"""A rectangle of pixels: tiles, regions, windows and crops are cut by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of pixels; row `bottom` and column `right` are no longer in it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return self.height * self.width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def side(self) -> int:
        """The longer of height and width."""
        return max(self.height, self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices that pick the box out of a picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def scaled(self, scale: int) -> Box:
        """The same rectangle in a picture `scale` times as large."""
        return Box(
            self.top * scale, self.left * scale, self.bottom * scale, self.right * scale
        )

    def within(self, outer: Box) -> Box:
        """The same rectangle, counted from the top-left corner of `outer`."""
        return Box(
            self.top - outer.top,
            self.left - outer.left,
            self.bottom - outer.top,
            self.right - outer.left,
        )

    def grown(self, margin: int, height: int, width: int) -> Box:
        """The box with `margin` more pixels on each side that the picture has."""
        return Box(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(height, self.bottom + margin),
            min(width, self.right + margin),
        )

    def aligned(self, multiple: int, height: int, width: int) -> Box:
        """The least box around it whose edges are multiples, or the picture's ends."""
        return Box(
            self.top // multiple * multiple,
            self.left // multiple * multiple,
            min(height, -(-self.bottom // multiple) * multiple),
            min(width, -(-self.right // multiple) * multiple),
        )
