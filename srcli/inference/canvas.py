"""Tiles of a picture as a network takes them, and its answers as a larger picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import DeviceError
from srcli.imaging.box import Box
from srcli.imaging.color import rgb_to_ycbcr_torch, ycbcr_to_rgb_torch
from srcli.imaging.resize import imresize_torch
from srcli.inference.device import free_memory
from srcli.models.base import Color

_SMALL = 1 << 24  # bytes for which the system is not asked, which takes a millisecond
_CHROMA_MARGIN = 2  # LR pixels that bicubic interpolation reads on each side


class Canvas:
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
        """Allocate the result.

        Args:
            pixels: (H, W, 1) grey or (H, W, 3) RGB, uint8, uint16 or float32.
            scale: Enlargement.
            color: What the network works on.
            levels: The values of black and white, to which the result is held.

        Raises:
            DeviceError: If there is no memory for the result.
        """
        self._pixels = pixels
        self._scale = scale
        self._color = color
        self._black, white = levels
        self._range = white - self._black
        height, width, channels = pixels.shape
        self._is_grey = channels == 1
        shape = (height * scale, width * scale, channels)
        check_memory(shape, pixels.dtype)
        self.result: NDArray[Any] = np.empty(shape, pixels.dtype)

    def read(self, box: Box) -> Tensor:
        """What the network gets for a box: (1 or 3, h, w) float32 in [0, 1]."""
        planes = self._read_planes(box)
        if self._color == "rgb":
            return planes.expand(3, -1, -1)
        return planes if self._is_grey else rgb_to_ycbcr_torch(planes[None])[0, :1]

    def write(self, box: Box, sr: Tensor) -> None:
        """Store the network's answer for a box.

        Args:
            box: In LR pixels.
            sr: (1 or 3, s*h, s*w) float32, on any device; not clamped.
        """
        if self._is_grey:
            sr = sr.mean(0, keepdim=True)
        elif self._color == "y":
            sr = self._add_chroma(box, sr)
        levels = self._levels_of(sr.clamp(0, 1)).cpu()
        # PyTorch turns channels into the last dimension in all threads, NumPy in one.
        target = torch.from_numpy(self.result[box.scaled(self._scale).slices])
        target.copy_(levels.permute(1, 2, 0))

    def _levels_of(self, planes: Tensor) -> Tensor:
        """What is stored for planes in [0, 1]."""
        if self._pixels.dtype == np.float32:
            return planes.mul_(self._range).add_(self._black)
        # Conversion cuts decimals off, so this rounds to the nearest, halves up.
        levels = planes.mul_(self._range).add_(0.5)
        return levels.to(torch.uint8 if self._range == 255 else torch.int32)

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


def check_memory(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    """Refuse a picture that the memory does not suffice for.

    The operating system would grant it, and end the program while it is filled.

    Args:
        shape: (H, W, C).
        dtype: Of its values.

    Raises:
        DeviceError: If there is not so much memory free.
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
