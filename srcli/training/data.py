"""Training pictures: found, decoded once, and cropped at random on the device.

All pictures of one size lie end to end in one buffer, so that a batch of crops with
their flips and turns is one gather. Nothing that is drawn is read back from a GPU.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import InputError, unknown
from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.degrade import NOISE_SIGMA, crop_to_multiple, degrade
from srcli.imaging.resize import imresize
from srcli.models.base import Color
from srcli.pretrained.datasets import (
    PublicSet,
    find_folder,
    public_sets,
    read_hr,
    search_folders,
)
from srcli.pretrained.originals import find_originals
from srcli.progress import SILENT, Progress
from srcli.storage import quote_path, show_path
from srcli.training.recipe import Recipe
from srcli.training.teacher import Teachers, choose_detailed
from srcli.units import format_bytes, join_words

log = logging.getLogger(__name__)

# Picks the pictures not to train on, given height and width of each by its hash.
HoldOut = Callable[[Mapping[str, tuple[int, int]]], Collection[str]]


def choose_folders(
    named: tuple[Path, ...], recipe: Recipe, data_dir: Path | None
) -> tuple[Path, ...]:
    """The folders to train on: those that the user named, else the recipe's data sets.

    Raises:
        UsageError: If the recipe names a set that is not there for training.
        InputError: If a set is not installed, which says how to get it, or none named.
    """
    if named:
        return named
    made_for = f"no training pictures: the recipe was made for {recipe.data}"
    if not recipe.datasets:
        side = max(recipe.lr_crop(scale) * scale for scale in recipe.scales)
        raise InputError(
            f"{made_for}; name a folder of PNG, JPEG, TIFF, BMP, WebP or AVIF pictures "
            f"of at least {side} pixels on each side with `srcli train --data FOLDER`; "
            "`srcli download --list` shows which can be fetched"
        )
    known = {each.name: each for each in public_sets() if each.training}
    for name in recipe.datasets:
        if name not in known:
            raise unknown("training set", name, known)
    found = {name: find_folder(name, data_dir) for name in recipe.datasets}
    if missing := [known[name] for name, folder in found.items() if folder is None]:
        there = [name for name, folder in found.items() if folder is not None]
        looked = join_words(list(map(str, search_folders(data_dir))), "or")
        command = ["srcli", "download", *(each.name for each in missing)]
        command += ["--data-dir", str(data_dir)] if data_dir else []
        raise InputError(
            f"{made_for}; {_describe_sizes(missing)} cannot be found in {looked}"
            f"{f' ({join_words(there)} can)' if there else ''}: "
            f"run `{' '.join(map(quote_path, command))}`, "
            "or name your own with --data FOLDER"
        )
    for name, folder in found.items():
        log.info("training on %s in %s", name, folder)
    return tuple(folder for folder in found.values() if folder is not None)


def _describe_sizes(sets: Sequence[PublicSet]) -> str:
    """The sets' names with their sizes, and the size of all where there are several."""

    def say(sizes: Sequence[PublicSet]) -> str:
        size = format_bytes(sum(each.size or 0 for each in sizes))
        return size if all(each.bytes for each in sizes) else f"about {size}"

    text = join_words([f"{each.name} ({say([each])})" for each in sets])
    return f"{text}, {say(sets)} in all," if len(sets) > 1 else text


def find_pictures(folders: Sequence[Path]) -> list[Path]:
    """Every picture below the folders but copies, sorted; a file is taken as it is.

    Raises:
        InputError: If a folder is missing or there is no picture at all.
    """
    found: set[Path] = set()
    for folder in folders:
        try:
            if folder.is_file():
                found.add(folder)
            elif folder.is_dir():
                found.update(find_originals(folder))
            else:
                shown = show_path(folder)
                raise InputError(f"no training pictures at {shown}: no such folder")
        except OSError as error:
            raise InputError(
                f"cannot read {show_path(folder)}: {error.strerror}"
            ) from error
    if not found:
        names = ", ".join(map(show_path, folders))
        raise InputError(
            f"no training pictures below {names}: PNG, JPEG, TIFF, BMP, WebP and AVIF "
            "are looked for"
        )
    # As a resumed run will name them, from wherever it is started.
    return sorted(path.absolute() for path in found)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded file, and what it is cropped from."""

    path: Path
    digest: str  # SHA-256 of its RGB values
    size: tuple[int, int]  # height and width
    copies: list[NDArray[np.uint8]]  # (H, W, C), one of each size that is asked for


def _read_pictures(
    paths: Sequence[Path], color: Color, factors: Sequence[float], progress: Progress
) -> tuple[dict[str, _Picture], list[Path]]:
    """The pictures by their hashes, and the files of no use, which are named."""
    progress.start("Reading pictures", len(paths))
    read: dict[str, _Picture] = {}
    skipped: list[Path] = []
    load = partial(_load, color=color, factors=factors)
    with ThreadPoolExecutor() as pool:
        for path, outcome in zip(paths, pool.map(load, paths), strict=True):
            progress.advance()
            if isinstance(outcome, InputError):
                log.warning("skipped: %s", outcome)
                skipped.append(path)
            elif first := read.get(outcome.digest):
                names = show_path(path), show_path(first.path)
                log.warning("skipped: %s is the same picture as %s", *names)
                skipped.append(path)
            else:
                read[outcome.digest] = outcome
    if not read:
        raise InputError(
            f"none of {len(paths)} training pictures can be read: --data FOLDER names "
            "others"
        )
    if 2 * len(skipped) > len(paths):
        log.warning("only %d of %d files are used", len(read), len(paths))
    return read, skipped


def _load(path: Path, color: Color, factors: Sequence[float]) -> _Picture | InputError:
    """The picture, or the error that reading it gave."""
    try:
        pixels = read_hr(path)
    except InputError as error:
        return error
    height, width = pixels.shape[:2]
    planes = pixels[:, :, None] if pixels.ndim == 2 else pixels
    rgb = np.ascontiguousarray(np.broadcast_to(planes, (height, width, 3)))
    whole = rgb_to_y_uint8(rgb)[:, :, None] if color == "y" else rgb
    copies = [whole if factor == 1.0 else imresize(whole, factor) for factor in factors]
    return _Picture(path, hashlib.sha256(rgb.data).hexdigest(), (height, width), copies)


@dataclass(frozen=True, slots=True)
class _Flat:
    """Pictures end to end: `values` is (pixels, C), the rest one entry a picture."""

    values: Tensor
    offsets: Tensor
    widths: Tensor

    @classmethod
    def pack(cls, pictures: list[NDArray[Any]], device: torch.device) -> _Flat:
        """Pack the pictures; the list's become views, so none is held twice."""
        # Counted in 64 bits: the buffer may have more values than 32 can number.
        sizes = np.array([p.shape[0] * p.shape[1] for p in pictures], dtype=np.int64)
        ends = np.cumsum(sizes)
        values = np.empty((ends[-1], pictures[0].shape[2]), dtype=pictures[0].dtype)
        for number, end in enumerate(ends):
            place = values[end - sizes[number] : end].reshape(pictures[number].shape)
            place[...] = pictures[number]
            pictures[number] = place
        widths = np.array([picture.shape[1] for picture in pictures], dtype=np.int64)
        arrays = (values, ends - sizes, widths)
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def crop(self, picture: Tensor, corner: Tensor, grid: Tensor) -> Tensor:
        """Crops as float32 in [0, 1], (N, C, k, k), channels last in memory.

        Of `picture` (N,), from row and column `corner` (N, 2), with the pixels that
        `grid` (N, k, k, 2) says.
        """
        rows = corner[:, None, None, 0] + grid[..., 0]
        columns = corner[:, None, None, 1] + grid[..., 1]
        width = self.widths[picture][:, None, None]
        index = self.offsets[picture][:, None, None] + rows * width + columns
        return (self.values[index].float() / 255.0).permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class _Reduced:
    """The LR pictures of one scale, of those HR pictures that are large enough."""

    lr: _Flat
    source: Tensor  # (pictures,) number of the HR picture
    sizes: Tensor  # (pictures, 2) LR height and width
    odds: Tensor  # (pictures,) crop positions, which is how often each is drawn
    taught: _Flat | None  # what a teacher makes of the LR pictures


def _turned_grid(size: int, turns: Tensor) -> Tensor:
    """Row and column that each pixel of turned crops comes from, (N, size, size, 2).

    The booleans `turns` (N, 3) are: transpose, flip rows, flip columns.
    """
    line = torch.arange(size, device=turns.device)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    transpose, flip_rows, flip_columns = turns.T[:, :, None, None]
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
        hold_out: Picks the pictures that are left to the validation.
        progress: Told about every picture read.

    Attributes:
        count, pixels: Of the pictures, reduced copies included.
        skipped: Files that cannot be read, or hold the pixels of one before them.
        held_out: Files that are not trained on, by the hashes of their pixels.
        fingerprint: Twelve hexadecimal digits of all pixels that are.

    Raises:
        InputError: If no picture can be read or is large enough for a crop.
    """

    def __init__(  # noqa: PLR0913 - what is drawn depends on all of these
        self,
        paths: Sequence[Path],
        recipe: Recipe,
        color: Color,
        device: torch.device,
        *,
        seed: int = 0,
        teachers: Teachers | None = None,
        share: tuple[int, int] = (0, 1),
        hold_out: HoldOut | None = None,
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
        read, self.skipped = _read_pictures(paths, reads, recipe.rescale, progress)
        held = hold_out({name: p.size for name, p in read.items()}) if hold_out else ()
        self.held_out = {digest: read.pop(digest).path for digest in held}
        digests = b"".join(map(bytes.fromhex, read))
        self.fingerprint = hashlib.sha256(digests).hexdigest()[:12]
        pictures = [copy for picture in read.values() for copy in picture.copies]
        del read  # or every picture would be held twice once they are packed
        if teachers is not None:
            says = [self.fingerprint, teachers.fingerprint, recipe.teacher_megapixels]
            said = json.dumps(says).encode()
            self.fingerprint = hashlib.sha256(said).hexdigest()[:12]
            if recipe.teacher_megapixels:
                pictures = choose_detailed(pictures, recipe)
        sources = {scale: self._choose(pictures, scale) for scale in recipe.scales}
        taught: dict[int, list[NDArray[np.uint8]]] = {}
        if teachers is not None:
            for scale, source in sources.items():
                large = [pictures[number] for number in source]
                taught[scale] = teachers.enlarge(scale, large, progress)
        if reads != color:
            pictures = [rgb_to_y_uint8(picture)[:, :, None] for picture in pictures]
        self.count = len(pictures)
        self.pixels = sum(p.shape[0] * p.shape[1] for p in pictures)
        self._hr = _Flat.pack(pictures, device)
        self._reduced: dict[int, _Reduced] = {}
        for scale, source in sources.items():
            progress.start(f"Making x{scale} pictures", len(source))
            small = []
            with ThreadPoolExecutor() as pool:
                large = [pictures[number] for number in source]
                for lr in pool.map(partial(self._reduce, scale=scale), large):
                    small.append(lr)
                    progress.advance()
            sizes = torch.tensor([picture.shape[:2] for picture in small])
            odds = (sizes - recipe.lr_crop(scale) + 1).prod(dim=1).to(self._real)
            self._reduced[scale] = _Reduced(
                _Flat.pack(small, device),
                torch.tensor(source, device=device),
                sizes.to(device),
                odds.to(device),
                _Flat.pack(taught.pop(scale), device) if taught else None,
            )

    def _choose(self, pictures: Sequence[NDArray[Any]], scale: int) -> list[int]:
        """The numbers of the pictures that are large enough; an error if none is."""
        least = self.recipe.lr_crop(scale) * scale
        sides = [min(picture.shape[:2]) for picture in pictures]
        source = [number for number, side in enumerate(sides) if side >= least]
        if not source:
            raise InputError(
                f"no training picture is at least {least} pixels on each side, as "
                f"x{scale} needs, the largest {max(sides)}: larger pictures, or a "
                "smaller crop (--set crop=N)"
            )
        if unused := len(pictures) - len(source):
            said = "%d of %d pictures are too small for crops at x%d: under %d pixels"
            log.warning(said, unused, len(pictures), scale, least)
        return source

    def _reduce(self, hr: NDArray[Any], scale: int) -> NDArray[np.generic]:
        """The LR version of a picture."""
        hr, kind = crop_to_multiple(hr, scale), self.recipe.degradation
        if kind == "bi" and self.color == "y":
            return imresize(hr.astype(np.float32), 1 / scale)
        # The noise of "dn" is drawn anew for every crop.
        return degrade(hr, scale, "bi" if kind == "dn" else kind)

    def draw(self, scale: int, count: int) -> tuple[Tensor, Tensor]:
        """This process's share of a batch of crops.

        Args:
            scale: One of the recipe's scales.
            count: Number of crops, of all processes.

        Returns:
            LR (N, C, k, k) and what is to be made of it (N, C, s*k, s*k), float32 in
            [0, 1]; N may be 0. The latter is the HR picture, or a teacher's.
        """
        reduced, crop = self._reduced[scale], self.recipe.lr_crop(scale)
        generator, device = self.generator, self.device
        picture = self._draw_pictures(reduced.odds, count)
        room = reduced.sizes[picture] - crop + 1
        place = torch.rand(
            (count, 2), dtype=self._real, generator=generator, device=device
        )
        corner = (place * room).long().minimum(room - 1)
        turns = torch.randint(2, (count, 3), generator=generator, device=device).bool()
        if not self.recipe.augment:
            turns = torch.zeros_like(turns)
        rank, size = self.share
        picture, corner, turns = (v[rank::size] for v in (picture, corner, turns))
        lr = reduced.lr.crop(picture, corner, _turned_grid(crop, turns))
        if self.recipe.degradation == "dn":
            shape = (count, *lr.shape[1:])
            noise = torch.randn(shape, generator=generator, device=device)[rank::size]
            # Of grey levels, rounded as `degrade` does.
            levels = lr * 255.0 + NOISE_SIGMA * noise
            lr = (levels + 0.5).floor().clamp(0.0, 255.0) / 255.0
        grid = _turned_grid(crop * scale, turns)
        part = 0.0 if reduced.taught is None else self.recipe.teacher_share
        if part < 1:
            hr = self._hr.crop(reduced.source[picture], corner * scale, grid)
        if reduced.taught is None or part == 0:
            return lr, hr
        taught = reduced.taught.crop(picture, corner * scale, grid)
        return lr, taught if part == 1 else torch.lerp(hr, taught, part)

    def _draw_pictures(self, odds: Tensor, count: int) -> Tensor:
        """As `torch.multinomial` draws, which would read a GPU's memory for one."""
        if count == 1:
            waits = torch.empty_like(odds).exponential_(generator=self.generator)
            return (odds / waits).argmax(dim=0, keepdim=True)
        return torch.multinomial(odds, count, True, generator=self.generator)

    def draw_scales(self) -> tuple[int, ...]:
        """The scales of the next step: one of them at random, or all."""
        scales = self.recipe.scales
        if self.recipe.scale_mode == "all" or len(scales) == 1:
            return scales
        odds = torch.tensor(self.recipe.scale_odds or [1.0] * len(scales)).float()
        chosen = torch.multinomial(odds, 1, generator=self.scale_generator)
        return (scales[int(chosen)],)
