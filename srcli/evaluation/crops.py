"""The parts of a data set's pictures in which a network gains most and least."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.evaluation.metrics import psnr
from srcli.evaluation.protocol import Reconstruction, Task, reconstruct
from srcli.imaging.box import Box
from srcli.imaging.degrade import crop_to_multiple
from srcli.pages.windows import Grid

SIDE = 128  # pixels of a crop, where the picture has as many
COUNT = 3  # crops of each kind
PER_PICTURE = 2  # of each kind from one picture
# Crops with less than this share of the larger mean error of their picture's show
# nothing: where there is hardly an error, a gain is one of hardly anything.
HARDNESS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crop:
    """A part of a picture, enlarged in two ways.

    Pixels are (h, w) luma or (h, w, 3) RGB, uint8, as the protocol compares them.
    """

    image: str  # the picture's name
    window: Box  # in the HR picture
    bicubic: NDArray[np.uint8]
    ours: NDArray[np.uint8]
    original: NDArray[np.uint8]
    bicubic_psnr: float  # of the luma of the crop, in dB
    psnr: float  # the network's

    @property
    def gain(self) -> float:
        """The network's PSNR less bicubic's, in dB."""
        # Two infinite ones have no difference.
        return 0.0 if self.psnr == self.bicubic_psnr else self.psnr - self.bicubic_psnr


@dataclass(slots=True)
class CropRanking:
    """The crops that can still win; no more are kept, however many pictures come."""

    _most: list[Crop] = field(default_factory=list)
    _least: list[Crop] = field(default_factory=list)

    def draw(self) -> tuple[tuple[Crop, ...], tuple[Crop, ...]]:
        """The largest gains, the largest first, and the least, the worst first.

        No crop is in both: where there are few, they are shared out.
        """
        most: list[Crop] = []
        least: list[Crop] = []
        for high, low in zip_longest(self._most, self._least):
            if high and high not in least and all(high.gain >= c.gain for c in least):
                most.append(high)
            if low and low not in most and all(low.gain <= c.gain for c in most):
                least.append(low)
        return tuple(most), tuple(least)

    def offer(
        self, name: str, hr: NDArray[np.uint8], task: Task, made: Reconstruction
    ) -> None:
        """Look for crops in one more picture, `hr`, of which `made` was made by `task`.

        Only those whose error matters within the picture are considered.
        """
        hr = crop_to_multiple(hr, task.scale)
        (bicubic,) = reconstruct(hr, task)
        original = made.reference if task.protocol == "y" else hr
        grid = Grid(original.shape[:2], SIDE, border=task.scale)
        ours, theirs = (
            grid.average(np.square(each.luma.astype(np.float64) - each.reference))
            for each in (made, bicubic)
        )
        crops = []
        for window in _choose(grid, ours, theirs):
            part = window.slices
            # Copies, so that the picture itself can go.
            crops.append(
                Crop(
                    image=name,
                    window=window,
                    bicubic=bicubic.picture[part].copy(),
                    ours=made.picture[part].copy(),
                    original=original[part].copy(),
                    bicubic_psnr=psnr(bicubic.luma[part], bicubic.reference[part]),
                    psnr=psnr(made.luma[part], made.reference[part]),
                )
            )
        crops.sort(key=lambda crop: crop.gain)
        self._least += crops[:PER_PICTURE]
        self._least = sorted(self._least, key=lambda crop: crop.gain)[:COUNT]
        self._most += crops[: -PER_PICTURE - 1 : -1]
        self._most = sorted(self._most, key=lambda crop: -crop.gain)[:COUNT]


def _choose(grid: Grid, ours: NDArray[Any], theirs: NDArray[Any]) -> list[Box]:
    """The windows of the largest and of the least gains in turn; no two overlap.

    `ours` and `theirs` are the network's and bicubic's mean square errors in each.
    """
    larger = np.maximum(ours, theirs)
    dull = larger < HARDNESS * larger.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = np.where(ours == theirs, 0.0, np.log10(theirs) - np.log10(ours))
    chosen: list[Box] = []
    for sign in (1.0, -1.0) * PER_PICTURE:
        best = grid.find_best(np.where(dull, -math.inf, sign * gains), chosen)
        chosen += [best] if best else []
    return chosen
