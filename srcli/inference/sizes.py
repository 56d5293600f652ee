"""Sizes of results, and the scales of the passes that lead to them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations_with_replacement

from srcli.errors import UsageError

DEFAULT_SCALE = 4.0
MAX_FACTOR = 8.0
_MAX_STEPS = 3  # three times x2 make the largest factor


@dataclass(frozen=True, slots=True)
class Goal:
    """The size wanted: a factor, or else a width, a height or both in pixels."""

    scale: float | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        if not self.is_sized:
            if self.scale is None:
                raise UsageError("upscaling needs a scale, a width or a height")
            _check_factor(self.scale)
        for length in (self.width, self.height):
            if length is not None and length < 1:
                raise UsageError(f"width and height must be positive, not {length}")

    @property
    def is_sized(self) -> bool:
        """Whether a width or height is given: the factor follows from the picture."""
        return self.width is not None or self.height is not None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that a picture of this size gets.

        Where only one of width and height is given, the other keeps the proportions.

        Raises:
            UsageError: If that enlarges by less than 1 or more than `MAX_FACTOR`.
        """
        factor = self.factor(height, width)
        if not self.is_sized:
            return _round(height * factor), _round(width * factor)
        size = (
            self.height or _round(height * (self.width or 0) / width),
            self.width or _round(width * (self.height or 0) / height),
        )
        _check_factor(
            factor, f" for {width}x{height} to become {size[1]}x{size[0]} pixels"
        )
        return size

    def factor(self, height: int, width: int) -> float:
        """The enlargement that a picture of this size needs."""
        if self.scale is not None and not self.is_sized:
            return self.scale
        return max((self.height or 0) / height, (self.width or 0) / width)


def plan_steps(
    factor: float, available: Iterable[int], first: Iterable[int] | None = None
) -> tuple[int, ...]:
    """The scales to enlarge by in turn, for at least `factor` at the least cost.

    The cost is ruled by the largest picture that is computed, so the smallest product
    wins, then the fewest steps. The larger scale comes first: it is the harder task,
    and gets the picture as it was.

    Args:
        factor: Enlargement wanted, from 1 to `MAX_FACTOR`.
        available: Scales that networks are there for.
        first: Scales that the first step must be one of; None is any of `available`.

    Raises:
        UsageError: If no combination reaches `factor`.
    """
    scales = sorted(set(available), reverse=True)
    starts = scales if first is None else sorted(set(first), reverse=True)
    chains = [
        (start, *chain)
        for start in starts
        for length in range(_MAX_STEPS)
        for chain in combinations_with_replacement(scales, length)
    ]
    enough = [chain for chain in chains if math.prod(chain) >= factor]
    if not enough:
        raise UsageError(f"there is no network that enlarges by {factor:g}")
    return min(enough, key=lambda chain: (math.prod(chain), len(chain)))


def _round(length: float) -> int:
    """The nearest number of pixels, halves up, at least one."""
    return max(1, math.floor(length + 0.5))


def _check_factor(factor: float, detail: str = "") -> None:
    if not 1.0 <= factor <= MAX_FACTOR:  # also refuses NaN
        raise UsageError(
            f"pictures are enlarged by 1 to {MAX_FACTOR:g}, not by {factor:.4g}{detail}"
        )
