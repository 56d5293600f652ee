"""Pictures in NumPy arrays and PyTorch tensors, enlarged into more of the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import UsageError
from srcli.imaging.files import Picture

Enlarge = Callable[[Picture], Picture]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What pictures look like in one library."""

    kind: str
    types: tuple[str, ...]
    forms: str
    channels: int  # where the channels are
    elsewhere: int  # where the other library has them
    advice: str  # for those who come from there

    def check(self, dtype: str, shape: tuple[int, ...]) -> None:
        """Refuse what is no grey picture, no picture with channels and no batch."""
        if dtype not in self.types:
            known = f"{', '.join(self.types[:-1])} or {self.types[-1]}"
            raise UsageError(
                f"{self.kind} must be {known}, not {dtype}: convert it so that white "
                "is 255, 65535 or 1.0"
            )
        if 0 in shape:
            raise UsageError(f"{self.kind} must hold pixels: {shape} is empty")
        has_channels = len(shape) in (3, 4)
        if len(shape) == 2 or (has_channels and shape[self.channels] <= 4):
            return
        is_turned = has_channels and shape[self.elsewhere] <= 4
        raise UsageError(
            f"{self.kind} must be {self.forms} with 1 to 4 channels C, not {shape}"
            + (f": {self.advice}" if is_turned else "")
        )


_ARRAYS = _Layout(
    kind="arrays",
    types=("uint8", "uint16", "float16", "float32", "float64"),
    forms="(H, W), (H, W, C) or (N, H, W, C)",
    channels=-1,
    elsewhere=-3,
    advice="channels come last, as in np.moveaxis(array, -3, -1)",
)
_TENSORS = _Layout(
    kind="tensors",
    types=("uint8", "uint16", "bfloat16", "float16", "float32", "float64"),
    forms="(H, W), (C, H, W) or (N, C, H, W)",
    channels=-3,
    elsewhere=-1,
    advice="channels come first, as in tensor.movedim(-1, -3)",
)


def map_array(array: NDArray[_Scalar], enlarge: Enlarge) -> NDArray[_Scalar]:
    """The enlarged pictures of an array, which is not modified.

    Args:
        array: (H, W) grey, (H, W, C) or (N, H, W, C), C being 1 grey, 2 grey and alpha,
            3 RGB, or 4 RGB and alpha, not premultiplied; uint8, uint16, float16,
            float32 or float64 (as `Picture.levels`, alpha in [0, 1]), of any byte order
            and memory layout.
        enlarge: Given the pictures in turn, floating point as float32.

    Returns:
        (H', W'), (H', W', C) or (N, H', W', C), the same dtype; a plain array where a
        subclass was given.

    Raises:
        UsageError: If it is no picture, or not finite.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(
            "a masked array has no values under its mask: fill it first, as in "
            "array.filled(0)"
        )
    _ARRAYS.check(array.dtype.name, array.shape)
    pictures = np.asarray(array)
    if array.ndim == 2:
        pictures = pictures[:, :, None]

    def enlarge_planes(planes: NDArray[Any]) -> NDArray[Any]:
        larger = join_planes(enlarge(split_planes(planes)))
        return larger.astype(array.dtype, copy=False)

    if array.ndim == 4:
        return np.stack([enlarge_planes(each) for each in pictures])
    larger = enlarge_planes(pictures)
    return larger[:, :, 0] if array.ndim == 2 else larger


def map_tensor(tensor: Tensor, enlarge: Enlarge) -> Tensor:
    """The enlarged pictures of a tensor, which is not modified.

    Args:
        tensor: (H, W), (C, H, W) or (N, C, H, W), otherwise as `map_array`, bfloat16
            besides, on any device.
        enlarge: Given the pictures in turn, floating point as float32.

    Returns:
        (H', W'), (C, H', W') or (N, C, H', W'), the same dtype and device, without
        gradients.

    Raises:
        UsageError: If it is no picture, or not finite.
    """
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise UsageError("sparse and meta tensors hold no picture: pass a dense one")
    _TENSORS.check(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
    values = tensor.detach()
    if values.is_floating_point():
        values = values.float()  # NumPy has no bfloat16
    pictures: NDArray[Any] = values.numpy(force=True)
    if tensor.ndim == 2:
        larger = map_array(pictures, enlarge)
    else:
        larger = map_array(np.moveaxis(pictures, -3, -1), enlarge)
        larger = np.moveaxis(larger, -1, -3)
    result = torch.from_numpy(np.ascontiguousarray(larger))
    return result.to(tensor.device, tensor.dtype)


def split_planes(planes: NDArray[Any]) -> Picture:
    """The picture whose colour and alpha are the channels of an array.

    Args:
        planes: (H, W, C), C being 1 grey, 2 grey and alpha, 3 RGB, or 4 RGB and alpha;
            uint8, uint16, or floating point, which becomes float32.

    Raises:
        UsageError: If it is not finite in float32, or its alpha not in [0, 1].
    """
    if planes.dtype.kind == "f":
        with np.errstate(over="ignore"):  # to infinity, which is refused
            planes = planes.astype(np.float32, copy=False)
        _check_values(planes)
    else:
        planes = planes.astype(planes.dtype.newbyteorder("="), copy=False)
    if planes.shape[2] in (1, 3):
        return Picture(np.ascontiguousarray(planes))
    alpha = np.ascontiguousarray(planes[:, :, -1])
    if planes.dtype == np.float32 and not 0 <= alpha.min() <= alpha.max() <= 1:
        raise UsageError(
            f"floating-point alpha must be in [0, 1], not {alpha.min():g} to "
            f"{alpha.max():g}: divide or clip it"
        )
    return Picture(np.ascontiguousarray(planes[:, :, :-1]), alpha)


def join_planes(picture: Picture) -> NDArray[Any]:
    """The channels (H, W, C) of a picture's colour and alpha; see `split_planes`."""
    if picture.alpha is None:
        return picture.pixels
    return np.concatenate((picture.pixels, picture.alpha[:, :, None]), axis=2)


def _check_values(pixels: NDArray[np.float32]) -> None:
    """Refuse floating-point pixels that a range from black to white cannot be put to.

    Raises:
        UsageError: If they, or the difference of any two of them, are not finite.
    """
    # NaN is its own minimum and maximum, and infinity less infinity is NaN.
    with np.errstate(invalid="ignore", over="ignore"):
        is_finite = np.isfinite(pixels.max() - pixels.min())
    if not is_finite:
        raise UsageError(
            "the picture has values that are NaN, infinite or too large for float32: "
            "replace them, for example by nan_to_num(picture, posinf=1, neginf=0)"
        )
