"""MATLAB's bicubic `imresize` straight from its documentation, in exact fractions.

Slow on purpose and sharing nothing with `srcli.imaging.resize`: every output value is a
sum over the source pixels under the kernel, one at a time, in rational arithmetic, so
the only rounding is the one that MATLAB itself does on integer pictures.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

HALF = Fraction(1, 2)


def kernel(distance: Fraction) -> Fraction:
    """Keys (1981), equation 15: the cubic convolution with a = -1/2."""
    d = abs(distance)
    if d < 1:
        return Fraction(3, 2) * d**3 - Fraction(5, 2) * d**2 + 1
    if d < 2:
        return -HALF * d**3 + Fraction(5, 2) * d**2 - 4 * d + 2
    return Fraction(0)


def reflect(position: int, length: int) -> int:
    """The pixel that stands at `position` of a line mirrored at both ends."""
    while not 0 <= position < length:
        position = -1 - position if position < 0 else 2 * length - 1 - position
    return position


def resample_line(line, out_length: int, scale: Fraction, antialias: bool):
    """One row or column, exact."""
    squeeze = min(scale, Fraction(1)) if antialias else Fraction(1)
    reach = 2 / squeeze
    result = []
    for number in range(out_length):
        # Pixel n covers [n, n + 1); its centre n + 1/2 lies at (n + 1/2) / scale.
        centre = (number + HALF) / scale - HALF
        total = weight_sum = Fraction(0)
        for position in range(ceil(centre - reach), floor(centre + reach) + 1):
            weight = kernel((position - centre) * squeeze)
            weight_sum += weight
            total += weight * line[reflect(position, len(line))]
        result.append(total / weight_sum)
    return result


class Rounder:
    """Rounds as MATLAB casts to uint8 and remembers the nearest escape from a tie."""

    def __init__(self):
        self.margin = HALF

    def __call__(self, value: Fraction) -> Fraction:
        up = floor(value + HALF)
        self.margin = min(self.margin, abs(value + HALF - up), abs(up + HALF - value))
        return Fraction(min(max(up, 0), 255))


def transpose(plane):
    return [list(column) for column in zip(*plane, strict=True)]


def reference_imresize(plane, size, scales, *, antialias=True, rounder=None):
    """A plane (rows of numbers) resampled to `size` (rows, columns).

    `scales` are the exact factors of both dimensions. The dimension with the smaller
    factor goes first, rows before columns when they are equal. With a `rounder` every
    value is rounded after each pass.
    """
    plane = [[Fraction(value) for value in row] for row in plane]
    for dimension in sorted((0, 1), key=lambda d: scales[d]):
        lines = transpose(plane) if dimension == 0 else plane
        lines = [
            resample_line(line, size[dimension], scales[dimension], antialias)
            for line in lines
        ]
        if rounder is not None:
            lines = [[rounder(value) for value in line] for line in lines]
        plane = transpose(lines) if dimension == 0 else lines
    return plane
