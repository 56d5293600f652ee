"""A picture in, a larger picture out: any factor from 1 to 8, in its own colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from srcli.errors import DeviceError
from srcli.imaging.alpha import fill_transparent
from srcli.imaging.box import Box
from srcli.imaging.color import rgb_to_ycbcr_torch, ycbcr_to_rgb_torch
from srcli.imaging.picture import Picture, PictureInfo
from srcli.imaging.resize import imresize_torch, resize_part
from srcli.inference.choice import Choice, choose
from srcli.inference.cost import RunStats
from srcli.inference.device import choose_device, choose_precision, free_memory
from srcli.inference.python import Enlarged, Given, map_pictures
from srcli.inference.runner import Runner
from srcli.inference.sizes import Goal
from srcli.inference.tiling import (
    Overlap,
    Region,
    TileSize,
    check_tiling,
    plan_regions,
)
from srcli.models.base import Color, SRModel
from srcli.pretrained.catalog import BICUBIC
from srcli.progress import SILENT, Progress

_FEW = 8  # px; a shorter side is mirrored until it is about as long
_UNUSED = RunStats("cpu", "fp32")  # of pictures that no network has seen
_SMALL = 1 << 24  # bytes for which the system is not asked, which takes a millisecond
_CHROMA_MARGIN = 2  # LR pixels that bicubic interpolation reads on each side

_Kind = TypeVar("_Kind", Picture, Image.Image, Tensor)
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(eq=False, repr=False)
class Upscaler:
    """Enlarges pictures; networks are loaded once, and stay on their device.

    The factor is `scale`, unless a width or height is given. What the networks' own
    scales do not meet is done by the next larger combination of them and a bicubic
    step down. The first pass is by weights for the pictures' `degradation`, all others
    by the model's ordinary ones. Transparency is always enlarged by bicubic
    interpolation.

    Not thread-safe: no two pictures may be enlarged at once.
    """

    model: str | Path | SRModel = "mrnet"  # a name of `srcli models`, file, or network
    # 1 to 8; None without a size is 4, or else the most that one pass of the model does
    # for the degradation: 3 for "bd" and "dn". Afterwards this is the factor.
    scale: float | None = None
    _: KW_ONLY
    width: int | None = None  # px of the result; the height follows if not given
    height: int | None = None
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    precision: str = "auto"  # auto, fp32, bf16 or fp16
    tile: TileSize = "auto"  # LR px; 0 is the whole picture
    overlap: Overlap = "auto"  # LR px of context around a tile, or "exact"
    ensemble: bool = False  # mean over 8 flips and turns: better, 8 times slower
    weights: Path | None = None  # a weight file instead of the model's own
    # What the pictures suffered: bi, bd or dn; None is what a weight file is for, else
    # bi. Afterwards this is one of them.
    degradation: str | None = None
    # What the networks took for the last picture.
    stats: RunStats = field(init=False, default=_UNUSED)
    _choice: Choice = field(init=False)
    _goal: Goal = field(init=False)
    _runners: dict[tuple[int, str], Runner] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check the options and load what will be needed, as far as it is known.

        Raises:
            UsageError: If an option is not valid.
            WeightsError: If the weights are missing or damaged.
            DeviceError: If the device is not there, or cannot do the precision.
        """
        check_tiling(self.tile, self.overlap)
        choose_precision(self.precision, choose_device(self.device))
        self._choice = choose(self.model, self.weights, self.degradation)
        self.model, self.degradation = self._choice.model, self._choice.degradation
        if self.scale is None and self.width is None and self.height is None:
            self.scale = self._choice.default_scale
        self._goal = Goal(self.scale, self.width, self.height)
        if self.scale is not None and not self._goal.is_sized:
            self._get_runners(self._choice.plan(self.scale, asked=True))
        elif self.name != BICUBIC:
            self._get_runners([max(self._choice.first_scales(None))])

    @property
    def name(self) -> str:
        """The model's name as given, in lower case, or that of its file or network."""
        return self._choice.name

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """The (height, width) in pixels that a picture of this size will have.

        Raises:
            UsageError: If the factor is not between 1 and 8.
        """
        return self._goal.size(height, width)

    def plan(self, height: int, width: int) -> tuple[int, ...]:
        """The networks' scales that a picture of this size goes through, in turn."""
        self.target_size(height, width)  # refuses factors that are out of reach
        factor = self._goal.factor(height, width)
        return self._choice.plan(factor, asked=not self._goal.is_sized)

    def runners(self, height: int, width: int) -> list[Runner]:
        """The networks that a picture of this size goes through, loaded, in turn."""
        return self._get_runners(self.plan(height, width))

    def describe(self, height: int, width: int) -> str:
        """How a picture of this size is enlarged: "mrnet x3, then bicubic to 90x60".

        The pass for a degradation names it: "rrrn dn x3, then rrrn x2".
        """
        steps = self.plan(height, width)
        size = self.target_size(height, width)
        parts = [f"{self._choice.label(i)} x{step}" for i, step in enumerate(steps)]
        if size != (height * math.prod(steps), width * math.prod(steps)) or not steps:
            parts.append(f"bicubic to {size[1]}x{size[0]}")
        return ", then ".join(parts)

    @overload
    def __call__(self, image: Path | str, progress: Progress = ...) -> Image.Image: ...
    @overload
    def __call__(self, image: _Kind, progress: Progress = ...) -> _Kind: ...
    @overload
    def __call__(
        self, image: NDArray[_Scalar], progress: Progress = ...
    ) -> NDArray[_Scalar]: ...
    def __call__(self, image: Given, progress: Progress = SILENT) -> Enlarged:
        """The enlarged picture, of the kind that was given; of a path, a Pillow image.

        Depth, channels, metadata, dtype, number of dimensions and device stay. What is
        given is never modified. Of a tensor, the result has no gradients.

        Args:
            image: A picture file; a Pillow image; a NumPy array, (H, W) grey, (H, W, C)
                or a batch (N, H, W, C); a PyTorch tensor, (H, W), (C, H, W) or a batch
                (N, C, H, W); or what `srcli.imaging.files.read_picture` returns. C is 1
                grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (not premultiplied).
                Black and white are 0 and 255 in uint8, 0 and 65535 in uint16, 0 and 1
                in floating point, or the picture's own extremes where they lie further
                out; all values must be finite, and alpha in [0, 1].
            progress: Told of tiles.

        Raises:
            UsageError: If the kind of image is not valid, or the factor not between 1
                and 8.
            InputError: If a file cannot be read.
            DeviceError: If memory does not suffice.
            WeightsError: If weights that only this size needs are missing.
        """
        return map_pictures(
            image, lambda picture: self.enlarge(picture, progress=progress)
        )

    def plan_regions(self, info: PictureInfo) -> list[Region]:
        """The regions of a picture that is too large for memory."""
        whole = info.height, info.width
        return plan_regions(info, self.target_size(*whole), self.runners(*whole))

    def enlarge(
        self, part: Picture, region: Region | None = None, progress: Progress = SILENT
    ) -> Picture:
        """What a picture, or the part of one that a region is, becomes.

        Metadata, bit depth and channels stay. Afterwards `stats` are about it.

        Args:
            part: The picture in the region's `padded` box, its `levels` those of the
                whole.
            region: As `plan_regions` gives it; None is that `part` is the picture.
            progress: Told of tiles.

        Raises:
            UsageError: If the factor is not between 1 and 8.
            WeightsError: If weights are missing or damaged.
            DeviceError: If memory does not suffice.
        """
        if region is None:
            whole = Box(0, 0, part.height, part.width)
            size = self.target_size(*whole.size)
            region = Region(whole, Box(0, 0, *size), whole.size, size)
        pixels: NDArray[Any] = part.pixels
        alpha: NDArray[Any] | None = part.alpha
        levels = part.levels
        _check_memory((*region.target.size, pixels.shape[2]), pixels.dtype)
        if alpha is not None:
            pixels = fill_transparent(pixels, alpha)
            alpha = _resize(alpha[:, :, None], region, 1)[:, :, 0]
        self.stats, scale = _UNUSED, 1
        for runner in self.runners(*region.whole):
            pixels = self._run(runner, pixels, levels, progress)
            scale *= runner.scale
        pixels = _resize(pixels, region, scale)
        if pixels.dtype == np.float32:
            pixels = pixels.clip(*levels)  # the cubic swings over at edges
            alpha = None if alpha is None else alpha.clip(0, 1)
        return replace(part, pixels=pixels, alpha=alpha)

    def _get_runners(self, steps: Sequence[int]) -> list[Runner]:
        """The networks for passes of these scales, on their device."""
        keys = [(step, self._choice.serves(i)) for i, step in enumerate(steps)]
        for key in keys:
            if key not in self._runners:
                self._runners[key] = Runner(
                    self._choice.load(*key),
                    key[0],
                    device=self.device,
                    precision=self.precision,
                    tile=self.tile,
                    overlap=self.overlap,
                    ensemble=self.ensemble,
                )
        return [self._runners[key] for key in keys]

    def _run(
        self,
        runner: Runner,
        pixels: NDArray[Any],
        levels: tuple[float, float],
        progress: Progress,
    ) -> NDArray[Any]:
        """One network over one picture; adds to `stats`."""
        # Beyond the border a network sees zeros. In a picture of a few pixels it would
        # see little else, and has not been trained for that: it gets a mirror image.
        margins = [(max(0, _FEW - length) // 2,) * 2 for length in pixels.shape[:2]]
        if any(before for before, _ in margins):
            pixels = np.pad(pixels, (*margins, (0, 0)), "symmetric")
        canvas = _Canvas(pixels, runner.scale, runner.color, levels)
        height, width, _ = pixels.shape
        runner.run_tiles(height, width, canvas.read, canvas.write, progress)
        self.stats = self.stats.followed_by(runner.stats)
        top, left = (before * runner.scale for before, _ in margins)
        rows, columns = canvas.result.shape[:2]
        return canvas.result[top : rows - top, left : columns - left]


def _resize(pixels: NDArray[Any], region: Region, scale: int) -> NDArray[Any]:
    """A region's target, of pixels `scale` times as large as those of `padded`."""
    whole = region.whole[0] * scale, region.whole[1] * scale
    if region.target.size == whole == region.size:
        return pixels
    corner = region.padded.top * scale, region.padded.left * scale
    return resize_part(pixels, corner, whole, region.size, region.target.slices)


class _Canvas:
    """A picture in host memory that is enlarged tile by tile.

    A network on RGB gets a grey picture in three equal channels, and the mean of its
    answer is kept. A network on Y gets the luma of a colour picture, whose chroma is
    enlarged by bicubic interpolation; a grey picture is its own luma.

    Attributes:
        result: The enlarged picture, (s*H, s*W, C); whole when all tiles are written.
    """

    def __init__(
        self,
        pixels: NDArray[Any],
        scale: int,
        color: Color,
        levels: tuple[float, float],
    ) -> None:
        """Allocate the result of (H, W, 1) grey or (H, W, 3) RGB."""
        self._pixels, self._scale, self._color = pixels, scale, color
        self._black, self._range = levels[0], levels[1] - levels[0]
        height, width, channels = pixels.shape
        self._is_grey = channels == 1
        shape = (height * scale, width * scale, channels)
        _check_memory(shape, pixels.dtype)
        self.result: NDArray[Any] = np.empty(shape, pixels.dtype)

    def read(self, box: Box) -> Tensor:
        """What the network gets for a box: (1 or 3, h, w) float32 in [0, 1]."""
        planes = self._read_planes(box)
        if self._color == "rgb":
            return planes.expand(3, -1, -1)
        return planes if self._is_grey else rgb_to_ycbcr_torch(planes[None])[0, :1]

    def write(self, box: Box, sr: Tensor) -> None:
        """Store the network's answer, (1 or 3, s*h, s*w), for a box of LR pixels."""
        if self._is_grey:
            sr = sr.mean(0, keepdim=True)
        elif self._color == "y":
            sr = self._add_chroma(box, sr)
        planes = sr.clamp(0, 1).mul_(self._range)
        if self._pixels.dtype == np.float32:
            planes.add_(self._black)
        else:
            # Conversion cuts decimals off, so this rounds to the nearest, halves up.
            dtype = torch.uint8 if self._range == 255 else torch.int32
            planes = planes.add_(0.5).to(dtype)
        # PyTorch turns channels into the last dimension in all threads, NumPy in one.
        target = torch.from_numpy(self.result[box.scaled(self._scale).slices])
        target.copy_(planes.cpu().permute(1, 2, 0))

    def _read_planes(self, box: Box) -> Tensor:
        """The picture's own channels, (C, h, w) float32 in [0, 1]."""
        levels = self._pixels[box.slices].astype(np.float32)
        if self._black:
            levels -= np.float32(self._black)
        return torch.from_numpy(levels / np.float32(self._range)).permute(2, 0, 1)

    def _add_chroma(self, box: Box, luma: Tensor) -> Tensor:
        """RGB of the network's luma and the picture's own chroma."""
        height, width, _ = self._pixels.shape
        outer = box.grown(_CHROMA_MARGIN, height, width)
        planes = self._read_planes(outer).to(luma.device)
        chroma = imresize_torch(rgb_to_ycbcr_torch(planes[None])[:, 1:], self._scale)
        inner = box.within(outer).scaled(self._scale).slices
        return ycbcr_to_rgb_torch(torch.cat((luma[None], chroma[:, :, *inner]), 1))[0]


def _check_memory(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    """Refuse a picture (H, W, C) that the memory does not suffice for.

    The operating system would grant it, and end the program while it is filled.
    """
    need = math.prod(shape) * dtype.itemsize
    if need < _SMALL:
        return
    free = free_memory(torch.device("cpu"))
    if need > free:
        raise DeviceError(
            f"a picture of {shape[1]}x{shape[0]} pixels takes {need / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free: choose a smaller size"
        )


@overload
def upscale(
    image: Path | str,
    model: str | Path | SRModel = ...,
    scale: float | None = ...,
    **options: Any,  # noqa: ANN401 - the fields of `Upscaler`
) -> Image.Image: ...
@overload
def upscale(
    image: _Kind,
    model: str | Path | SRModel = ...,
    scale: float | None = ...,
    **options: Any,  # noqa: ANN401
) -> _Kind: ...
@overload
def upscale(
    image: NDArray[_Scalar],
    model: str | Path | SRModel = ...,
    scale: float | None = ...,
    **options: Any,  # noqa: ANN401
) -> NDArray[_Scalar]: ...
def upscale(
    image: Given,
    model: str | Path | SRModel = "mrnet",
    scale: float | None = None,
    **options: Any,
) -> Enlarged:
    """The enlarged picture, of the kind that was given (for a path, a Pillow image).

    For many pictures, use an `Upscaler`, which is loaded once.

    Args:
        image: As `Upscaler` takes it: a picture file, Pillow image, NumPy array or
            PyTorch tensor.
        model: A name of `srcli models`, "bicubic", a weight file, or a network.
        scale: Factor from 1 to 8; not looked at where a width or height is given. None
            is 4, or 3 for blurred and noisy pictures (`degradation` "bd" and "dn").
        **options: The other fields of `Upscaler`.

    Raises:
        SrcliError: As `Upscaler` and its call.
    """
    return Upscaler(model, scale, **options)(image)
