"""Crops of the training pictures, drawn on the device from flat buffers.

All pictures of one size lie one after the other in a single buffer, so that a batch of
crops with their flips and turns is one gather.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import InputError
from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.degrade import NOISE_SIGMA, crop_to_multiple, degrade
from srcli.imaging.resize import imresize
from srcli.models.base import Color
from srcli.progress import SILENT, Progress
from srcli.training.reading import read_pictures
from srcli.training.recipe import Recipe
from srcli.training.teacher import Teachers, choose_detailed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Flat:
    """Pictures end to end: `values` is (pixels, C), the rest one entry a picture."""

    values: Tensor
    offsets: Tensor
    widths: Tensor

    @classmethod
    def pack(cls, pictures: list[NDArray[Any]], device: torch.device) -> _Flat:
        """Pack the pictures; the list's become views, so none is held twice."""
        sizes = [picture.shape[0] * picture.shape[1] for picture in pictures]
        channels = pictures[0].shape[2]
        values = np.empty((sum(sizes), channels), dtype=pictures[0].dtype)
        offsets = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)
        widths = np.array([picture.shape[1] for picture in pictures], dtype=np.int64)
        for number, (start, size) in enumerate(zip(offsets, sizes, strict=True)):
            place = values[start : start + size].reshape(pictures[number].shape)
            place[...] = pictures[number]
            pictures[number] = place
        return cls(
            torch.from_numpy(values).to(device),
            torch.from_numpy(offsets).to(device),
            torch.from_numpy(widths).to(device),
        )

    @property
    def channels(self) -> int:
        """C of the pictures."""
        return self.values.shape[1]

    def crop(self, picture: Tensor, corner: Tensor, grid: Tensor) -> Tensor:
        """Crops as float32 in [0, 1], (N, C, k, k), channels last in memory.

        Args:
            picture: (N,) which picture.
            corner: (N, 2) row and column of the crop's first pixel.
            grid: (N, k, k, 2) row and column inside the crop of every output pixel.
        """
        rows = corner[:, None, None, 0] + grid[..., 0]
        columns = corner[:, None, None, 1] + grid[..., 1]
        width = self.widths[picture][:, None, None]
        index = self.offsets[picture][:, None, None] + rows * width + columns
        return (self.values[index].float() / 255.0).permute(0, 3, 1, 2)


def _add_noise(lr: Tensor, noise: Tensor) -> Tensor:
    """`lr` of whole grey levels with noise, rounded as `degrade` does; in [0, 1]."""
    levels = lr * 255.0 + NOISE_SIGMA * noise
    return (levels + 0.5).floor().clamp(0.0, 255.0) / 255.0


@dataclass(frozen=True, slots=True)
class _Reduced:
    """The LR pictures of one scale, of those HR pictures that are large enough."""

    lr: _Flat
    source: Tensor  # (pictures,) number of the HR picture
    sizes: Tensor  # (pictures, 2) LR height and width
    odds: Tensor  # (pictures,) crop positions, which is how often each is drawn
    taught: _Flat | None  # what a teacher makes of the LR pictures


def _turned_grid(size: int, turns: Tensor) -> Tensor:
    """Where each pixel of a flipped and turned crop comes from.

    Args:
        size: Side of the crop.
        turns: (N, 3) booleans: transpose, flip rows, flip columns.

    Returns:
        (N, size, size, 2) source row and column.
    """
    line = torch.arange(size, device=turns.device)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    rows, columns = rows[None], columns[None]
    transpose, flip_rows, flip_columns = (
        turns[:, axis, None, None] for axis in range(3)
    )
    row = torch.where(transpose, columns, rows)
    column = torch.where(transpose, rows, columns)
    row = torch.where(flip_rows, size - 1 - row, row)
    column = torch.where(flip_columns, size - 1 - column, column)
    return torch.stack((row, column), dim=-1)


class CropSampler:
    """Draws batches of LR and HR crops on the device.

    Args:
        paths: HR pictures.
        recipe: Scales, crop, degradation, augmentation.
        color: "rgb": LR is the rounded uint8 picture, as files are; "y": LR is made
            from the uint8 luma and not rounded, as in the two protocols of evaluation.
        device: Where the buffers live.
        seed: Start of the random draws.
        teachers: Whose enlargements stand in for the HR pictures, wholly or in part
            (`Recipe.teacher_share`).
        share: This process's number, and of how many that draw the same crops.
        progress: Told about every picture read.

    Raises:
        InputError: If no picture can be read or is large enough for a crop.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        recipe: Recipe,
        color: Color,
        device: torch.device,
        *,
        seed: int = 0,
        teachers: Teachers | None = None,
        share: tuple[int, int] = (0, 1),
        progress: Progress = SILENT,
    ) -> None:
        self.recipe = recipe
        self.color = color
        self.device = device
        self.share = share
        self.generator = torch.Generator(device).manual_seed(seed)
        # The processor chooses the scale: it would have to wait for a GPU's choice.
        self.scale_generator = torch.Generator().manual_seed(seed)
        # Apple's GPUs have no float64; elsewhere every crop position counts exactly.
        self._real = torch.float32 if device.type == "mps" else torch.float64
        self.taught_by = () if teachers is None else teachers.facts
        reads = color if teachers is None else teachers.reads
        read = read_pictures(paths, reads, recipe.rescale, progress)
        pictures: list[NDArray[np.uint8]] = [*read.pictures]
        self.fingerprint, self.skipped = read.fingerprint, read.skipped
        del read  # or every picture would be held twice once they are packed
        taught: dict[int, list[NDArray[np.uint8]]] = {}
        if teachers is not None:
            says = [self.fingerprint, teachers.fingerprint, recipe.teacher_megapixels]
            digest = hashlib.sha256(json.dumps(says).encode())
            self.fingerprint = digest.hexdigest()[:12]
            if recipe.teacher_megapixels:
                pictures = choose_detailed(pictures, recipe)
        sources = {scale: self._choose(pictures, scale) for scale in recipe.scales}
        if teachers is not None:
            for scale, source in sources.items():
                large = [pictures[number] for number in source]
                taught[scale] = teachers.enlarge(scale, large, progress)
        if reads != color:
            pictures = [rgb_to_y_uint8(picture)[:, :, None] for picture in pictures]
        self.count = len(pictures)
        self.pixels = sum(p.shape[0] * p.shape[1] for p in pictures)
        self._hr = _Flat.pack(pictures, device)
        self._reduced = {
            scale: self._reduce(
                pictures, source, scale, taught.pop(scale, []), progress
            )
            for scale, source in sources.items()
        }

    def _choose(self, pictures: Sequence[NDArray[Any]], scale: int) -> list[int]:
        """The numbers of the pictures that are large enough for crops.

        Raises:
            InputError: If there are none.
        """
        least = self.recipe.lr_crop(scale) * scale
        source = [n for n, p in enumerate(pictures) if min(p.shape[:2]) >= least]
        if not source:
            largest = max(min(picture.shape[:2]) for picture in pictures)
            raise InputError(
                f"no training picture is at least {least} pixels on each side, as "
                f"x{scale} needs, the largest {largest}: larger pictures, or a smaller "
                "crop (--set crop=N)"
            )
        if unused := len(pictures) - len(source):
            log.warning(
                "%d of %d pictures are too small for crops at x%d: under %d pixels",
                unused,
                len(pictures),
                scale,
                least,
            )
        return source

    def _reduce(
        self,
        pictures: Sequence[NDArray[Any]],
        source: Sequence[int],
        scale: int,
        taught: list[NDArray[np.uint8]],
        progress: Progress,
    ) -> _Reduced:
        crop = self.recipe.lr_crop(scale)
        progress.start(f"Making x{scale} pictures", len(source))

        # The noise of "dn" is drawn anew for every crop.
        kind = "bi" if self.recipe.degradation == "dn" else self.recipe.degradation

        def reduced(number: int) -> NDArray[np.generic]:
            hr = crop_to_multiple(pictures[number], scale)
            progress.advance()
            if self.recipe.degradation == "bi" and self.color == "y":
                return imresize(hr.astype(np.float32), 1 / scale)
            return degrade(hr, scale, kind)

        with ThreadPoolExecutor() as pool:
            small = list(pool.map(reduced, source))
        sizes = torch.tensor([picture.shape[:2] for picture in small])
        odds = (sizes - crop + 1).prod(dim=1).to(self._real)
        return _Reduced(
            _Flat.pack(small, self.device),
            torch.tensor(source, device=self.device),
            sizes.to(self.device),
            odds.to(self.device),
            _Flat.pack(taught, self.device) if taught else None,
        )

    def draw(self, scale: int, count: int) -> tuple[Tensor, Tensor]:
        """This process's share of a batch of crops.

        Args:
            scale: One of the recipe's scales.
            count: Number of crops, of all processes.

        Returns:
            LR (N, C, k, k) and what is to be made of it (N, C, s*k, s*k), float32 in
            [0, 1]; N may be 0. The latter is the HR picture, or a teacher's.
        """
        reduced = self._reduced[scale]
        crop = self.recipe.lr_crop(scale)
        picture = torch.multinomial(
            reduced.odds, count, replacement=True, generator=self.generator
        )
        room = reduced.sizes[picture] - crop + 1
        place = torch.rand(
            (count, 2),
            dtype=self._real,
            generator=self.generator,
            device=self.device,
        )
        corner = (place * room).long().minimum(room - 1)
        turns = torch.randint(
            2, (count, 3), generator=self.generator, device=self.device
        ).bool()
        if not self.recipe.augment:
            turns = torch.zeros_like(turns)
        noise = None
        if self.recipe.degradation == "dn":
            noise = torch.randn(
                (count, reduced.lr.channels, crop, crop),
                generator=self.generator,
                device=self.device,
            )
        rank, size = self.share
        picture, corner, turns = (v[rank::size] for v in (picture, corner, turns))
        lr = reduced.lr.crop(picture, corner, _turned_grid(crop, turns))
        if noise is not None:
            lr = _add_noise(lr, noise[rank::size])
        grid = _turned_grid(crop * scale, turns)
        part = 0.0 if reduced.taught is None else self.recipe.teacher_share
        if part < 1:
            hr = self._hr.crop(reduced.source[picture], corner * scale, grid)
        if reduced.taught is None or part == 0:
            return lr, hr
        taught = reduced.taught.crop(picture, corner * scale, grid)
        return lr, taught if part == 1 else torch.lerp(hr, taught, part)

    def draw_scales(self) -> tuple[int, ...]:
        """The scales of the next step: one of them at random, or all."""
        scales = self.recipe.scales
        if self.recipe.scale_mode == "all" or len(scales) == 1:
            return scales
        odds = torch.tensor(self.recipe.scale_odds or [1.0] * len(scales)).float()
        chosen = torch.multinomial(odds, 1, generator=self.scale_generator)
        return (scales[int(chosen)],)
