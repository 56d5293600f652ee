"""MATLAB's `imresize` with the bicubic kernel, for NumPy and torch.

The super-resolution literature makes its low-resolution pictures with MATLAB, so its
tables can only be met by the same arithmetic: the Keys cubic with a = -0.5, widened by
the scale when shrinking (antialiasing), half-pixel centres, mirrored edges, normalised
weights, one dimension after the other beginning with the one that shrinks most (rows
first when equal), and for integer pictures a rounding after *each* of the passes.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import UsageError

KERNEL_WIDTH = 4.0  # support of the cubic, in input pixels
_BAND_ROWS = 256  # output rows that one matrix of `imresize_torch` makes

_Scalar = TypeVar("_Scalar", bound=np.generic)


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 at the positions `x` (pixels)."""
    ax = np.abs(x)
    near = (1.5 * ax - 2.5) * ax * ax + 1.0
    far = ((-0.5 * ax + 2.5) * ax - 4.0) * ax + 2.0
    return np.where(ax <= 1.0, near, np.where(ax <= 2.0, far, 0.0))


@lru_cache(maxsize=256)
def contributions(
    length: int, out_length: int, scale: float, antialias: bool = True
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Source positions and weights of every output pixel along one dimension.

    Args:
        length: Input length in pixels.
        out_length: Output length in pixels.
        scale: Output pixels per input pixel.
        antialias: Widen the kernel by 1/scale when shrinking.

    Returns:
        `indices` and `weights`, both (out_length, taps); each row of weights sums to 1.
        The arrays are shared between calls and read-only.
    """
    stretch = scale if antialias and scale < 1.0 else 1.0
    width = KERNEL_WIDTH / stretch
    # Centre of each output pixel in input coordinates, counted from pixel 0's centre.
    centres = (np.arange(out_length, dtype=np.float64) + 0.5) / scale - 0.5
    # MATLAB counts from 1; floor is taken on its coordinates to break ties its way.
    left = np.floor(centres + 1.0 - width / 2.0).astype(np.int64) - 1
    taps = math.ceil(width) + 2
    positions = left[:, None] + np.arange(taps)
    weights = stretch * cubic(stretch * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    # Mirror at the edges, the edge pixel repeated: 0 1 2 | 2 1 0 | 0 1 2 ...
    mirrored = np.mod(positions, 2 * length)
    mirrored = np.where(mirrored >= length, 2 * length - 1 - mirrored, mirrored)
    used = np.any(weights != 0.0, axis=0)
    indices = np.ascontiguousarray(mirrored[:, used]).astype(np.intp)
    weights = np.ascontiguousarray(weights[:, used])
    indices.flags.writeable = weights.flags.writeable = False
    return indices, weights


def output_size(
    height: int,
    width: int,
    scale: float | None,
    size: tuple[int, int] | None,
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Output (height, width) in pixels and the scale of each dimension.

    Raises:
        UsageError: If not exactly one of `scale` and `size` is given, or an output
            dimension would be below one pixel.
    """
    if (scale is None) == (size is None):
        raise UsageError("imresize takes either a scale or a size")
    scales = None
    if size is None:
        assert scale is not None
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(f"scale must be positive, not {scale}")
        # Rounded up as MATLAB does; the guard keeps 1.1 * 110 from becoming 122.
        size = (math.ceil(height * scale - 1e-9), math.ceil(width * scale - 1e-9))
        scales = (float(scale), float(scale))
    if min(size) < 1:
        raise UsageError(f"an output of {size[1]}x{size[0]} pixels is empty")
    return size, scales or (size[0] / height, size[1] / width)


def _rounded(
    values: NDArray[np.float64], dtype: np.dtype[np.integer[Any]]
) -> NDArray[Any]:
    """`values` as MATLAB casts them: halves away from zero, then clipped."""
    info = np.iinfo(dtype)
    np.add(values, 0.5, out=values)
    np.floor(values, out=values)
    return np.clip(values, info.min, info.max, out=values).astype(dtype)


def resample_rows(
    image: NDArray[Any], indices: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[Any]:
    """The first dimension resampled as `contributions` says, same dtype.

    Works through bands of output rows, so that the float64 work space stays near 32 MiB
    whatever the size of the picture.
    """
    out_length, taps = indices.shape
    out = np.empty((out_length, *image.shape[1:]), dtype=image.dtype)
    row = max(1, int(np.prod(image.shape[1:])))
    band = max(1, (1 << 21) // row)
    for start in range(0, out_length, band):
        rows = slice(start, min(start + band, out_length))
        shape = (-1,) + (1,) * (image.ndim - 1)
        total = image[indices[rows, 0]] * weights[rows, 0].reshape(shape)
        for tap in range(1, taps):
            total += image[indices[rows, tap]] * weights[rows, tap].reshape(shape)
        if np.issubdtype(image.dtype, np.integer):
            out[rows] = _rounded(total, image.dtype)
        else:
            out[rows] = total
    return out


def resample_columns(
    image: NDArray[Any], indices: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[Any]:
    """The second dimension resampled as `contributions` says, same dtype.

    Transposes bands of rows, so that no second copy of a large picture is made.
    """
    out = np.empty((len(image), len(indices), *image.shape[2:]), dtype=image.dtype)
    row = max(1, len(indices) * int(np.prod(image.shape[2:])))
    band = max(1, (1 << 21) // row)
    for start in range(0, len(image), band):
        rows = slice(start, start + band)
        flipped = np.ascontiguousarray(np.swapaxes(image[rows], 0, 1))
        out[rows] = np.swapaxes(resample_rows(flipped, indices, weights), 0, 1)
    return out


def imresize(
    image: NDArray[_Scalar],
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    *,
    antialias: bool = True,
) -> NDArray[_Scalar]:
    """The picture resampled exactly as MATLAB's `imresize(image, ..., 'bicubic')`.

    Args:
        image: (H, W) or (H, W, C). Integer pictures are rounded after each of the two
            passes, as MATLAB does; floating-point pictures are never rounded.
        scale: Output pixels per input pixel; the output is ceil(scale * length).
        size: Output (height, width) in pixels, instead of `scale`.
        antialias: Widen the kernel when shrinking (MATLAB's default).

    Returns:
        The resampled picture, same dtype and number of dimensions.

    Raises:
        UsageError: If neither or both of `scale` and `size` are given, or the output
            would be empty.
    """
    out_size, scales = output_size(image.shape[0], image.shape[1], scale, size)
    result: NDArray[Any] = image
    for axis in np.argsort(scales, kind="stable").tolist():
        if result.shape[axis] == out_size[axis] and scales[axis] == 1.0:
            continue
        taps = contributions(
            result.shape[axis], out_size[axis], scales[axis], antialias
        )
        resize = resample_rows if axis == 0 else resample_columns
        result = resize(result, *taps)
    return result.copy() if result is image else result


@dataclass(frozen=True, slots=True)
class _Band:
    """Consecutive output rows as a product with the source rows that they use."""

    source: slice
    matrix: Tensor  # (output rows, source rows)


# A CUDA graph reads what it was recorded with, but does not keep it alive.
_captured: list[tuple[_Band, ...]] = []


@lru_cache(maxsize=64)
def _bands(
    length: int,
    out_length: int,
    scale: float,
    antialias: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[_Band, ...]:
    """The resampling of one dimension as matrices, kept on the device.

    One dense matrix would be the simplest, but its size and cost grow with the square
    of the picture's side; bands keep them proportional to the side.
    """
    indices, weights = contributions(length, out_length, scale, antialias)
    bands = []
    for start in range(0, out_length, _BAND_ROWS):
        used = indices[start : start + _BAND_ROWS]
        first, last = int(used.min()), int(used.max())
        matrix = np.zeros((len(used), last - first + 1))
        rows = np.broadcast_to(np.arange(len(used))[:, None], used.shape)
        np.add.at(matrix, (rows, used - first), weights[start : start + _BAND_ROWS])
        # Made in inference mode, it could not serve a later training step.
        with torch.inference_mode(False):
            tensor = torch.tensor(matrix, dtype=dtype, device=device)
        bands.append(_Band(slice(first, last + 1), tensor))
    return tuple(bands)


def _resample_rows(images: Tensor, bands: tuple[_Band, ...]) -> Tensor:
    """(..., H, W) resampled along H, same dtype and device."""
    parts = [band.matrix @ images[..., band.source, :] for band in bands]
    return torch.cat(parts, dim=-2) if len(parts) > 1 else parts[0]


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    """Suspends autocast, whose half-precision products would lose the exactness."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # the meta device, on which networks are counted


def imresize_torch(
    images: Tensor,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    *,
    antialias: bool = True,
) -> Tensor:
    """MATLAB's bicubic `imresize` for floating-point tensors; differentiable.

    Never rounds. Half-precision tensors are resampled in float32.

    Args:
        images: (..., H, W), any floating dtype and device.
        scale: Output pixels per input pixel.
        size: Output (height, width) in pixels, instead of `scale`.
        antialias: Widen the kernel when shrinking.

    Returns:
        (..., H', W'), same dtype and device.

    Raises:
        UsageError: As `imresize`.
    """
    height, width = int(images.shape[-2]), int(images.shape[-1])
    out_size, scales = output_size(height, width, scale, size)
    compute = images.dtype if images.dtype == torch.float64 else torch.float32
    kept = (antialias, compute, images.device)
    rows = _bands(height, out_size[0], scales[0], *kept)
    columns = _bands(width, out_size[1], scales[1], *kept)
    if images.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured.extend((rows, columns))
    with _full_precision(images.device.type):
        result = _resample_rows(images.to(compute), rows)
        result = _resample_rows(result.mT, columns).mT.contiguous()
    return result.to(images.dtype)
