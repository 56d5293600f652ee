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
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from srcli.errors import UsageError

KERNEL_WIDTH = 4.0  # support of the cubic, in input pixels
_WORK = 1 << 17  # values that are summed up at a time; they stay in the cache
_TURNED = 1 << 21  # values whose rows and columns are swapped at a time
_BAND_ROWS = 256  # output rows that one matrix of `imresize_torch` makes

_Scalar = TypeVar("_Scalar", bound=np.generic)

Wanted: TypeAlias = slice | NDArray[np.intp]
_Taps: TypeAlias = tuple[NDArray[np.intp], NDArray[Any]]  # positions and weights
_Band: TypeAlias = tuple[slice, Tensor]  # source rows, and output rows as their product


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 at the positions `x` (pixels)."""
    ax = np.abs(x)
    near = (1.5 * ax - 2.5) * ax * ax + 1.0
    far = ((-0.5 * ax + 2.5) * ax - 4.0) * ax + 2.0
    return np.where(ax <= 1.0, near, np.where(ax <= 2.0, far, 0.0))


@lru_cache(maxsize=256)
def contributions(
    length: int, out_length: int, scale: float, antialias: bool = True
) -> _Taps:
    """Source positions and weights of every output pixel along one dimension.

    Both are (out_length, taps), shared between calls and read-only; each row of weights
    sums to 1. Lengths are in pixels, `scale` in output pixels per input pixel.
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


def _output_size(
    height: int, width: int, scale: float | None, size: tuple[int, int] | None
) -> tuple[tuple[int, int], tuple[float, float]]:
    """Output (height, width) in pixels and the scale of each dimension."""
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


def _resample_rows(
    image: NDArray[Any], taps: _Taps, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The first dimension resampled, computed in the type of the weights."""
    indices, weights = taps
    out = np.empty((len(indices), *image.shape[1:]), dtype)
    weights = weights.reshape(*weights.shape, *(1,) * (image.ndim - 1))
    band = max(1, _WORK // math.prod(image.shape[1:]))
    for start in range(0, len(indices), band):
        rows = slice(start, start + band)
        total = image[indices[rows, 0]] * weights[rows, 0]
        part = np.empty_like(total)
        for tap in range(1, indices.shape[1]):
            part[:] = image[indices[rows, tap]]
            part *= weights[rows, tap]
            total += part
        integer = np.issubdtype(dtype, np.integer)
        out[rows] = _rounded(total, dtype) if integer else total
    return out


def _resample_columns(
    image: NDArray[Any], taps: _Taps, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The second dimension; bands of rows are turned, so that no copy is large."""
    out = np.empty((len(image), len(taps[0]), *image.shape[2:]), dtype)
    row = max(image.shape[1], len(taps[0])) * math.prod(image.shape[2:])
    band = max(1, _TURNED // row)
    for start in range(0, len(image), band):
        rows = slice(start, start + band)
        turned = np.ascontiguousarray(image[rows].swapaxes(0, 1))
        out[rows] = _resample_rows(turned, taps, dtype).swapaxes(0, 1)
    return out


def resize_part(
    part: NDArray[Any],
    corner: tuple[int, int],
    whole: tuple[int, int],
    size: tuple[int, int],
    wanted: tuple[Wanted, Wanted],
    *,
    scales: tuple[float, float] | None = None,
    antialias: bool = True,
    dtype: type[np.floating[Any]] | None = None,
) -> NDArray[Any]:
    """`imresize(picture, size=size)[rows][:, columns]`, to the last bit.

    Only what `wanted` depends on is read, and nothing is copied where slices of a
    picture that keeps its size are wanted.

    Args:
        part: (h, w) or (h, w, C) of a picture: what `wanted` depends on, `reach` pixels
            beyond where it lies on each side, as far as there are any.
        corner: The picture's row and column where the part begins.
        whole: Height and width of the picture.
        size: Height and width of the whole result.
        wanted: The rows and columns of the result, in any order; slices have no step.
        scales: Output pixels per input pixel of both dimensions, if not size / whole.
        antialias: As for `imresize`.
        dtype: Computes in this type and returns it, never rounded; faster than None,
            which computes in float64 and returns the part's own type.

    Raises:
        ValueError: If the part is too small.
    """
    scales = scales or (size[0] / whole[0], size[1] / whole[1])
    spans, passes = [slice(None)] * 2, []
    # The order of the passes shows: whole numbers are rounded after each.
    for axis in np.argsort(scales, kind="stable").tolist():
        out = wanted[axis]
        indices, weights = contributions(
            whole[axis], size[axis], scales[axis], antialias
        )
        indices, weights = indices[out] - corner[axis], weights[out]
        first, last = int(indices.min()), int(indices.max())
        if first < 0 or last >= part.shape[axis]:
            raise ValueError("the part is too small")
        spans[axis] = slice(first, last + 1)
        passes.append((axis, indices - first, weights.astype(dtype or np.float64)))
    part = part[tuple(spans)]
    for axis, indices, weights in passes:
        if scales[axis] != 1.0:
            resample = _resample_columns if axis else _resample_rows
            part = resample(part, (indices, weights), np.dtype(dtype or part.dtype))
        elif not isinstance(wanted[axis], slice):
            part = part.take(indices[:, 0], axis)
    return part if dtype is None else part.astype(dtype, copy=False)


def reach(scale: float) -> int:
    """How many pixels around its place `imresize` reads for a pixel of the result."""
    return math.ceil(KERNEL_WIDTH / 2 / min(scale, 1)) + 2


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

    Raises:
        UsageError: If neither or both of `scale` and `size` are given, or the output
            would be empty.
    """
    whole = image.shape[0], image.shape[1]
    out_size, scales = _output_size(*whole, scale, size)
    wanted = slice(None), slice(None)
    result: NDArray[_Scalar] = resize_part(
        image, (0, 0), whole, out_size, wanted, scales=scales, antialias=antialias
    )
    return result.copy() if scales == (1.0, 1.0) else result


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
        bands.append((slice(first, last + 1), tensor))
    return tuple(bands)


def _multiply(images: Tensor, bands: tuple[_Band, ...]) -> Tensor:
    """(..., H, W) resampled along H, same dtype and device."""
    parts = [matrix @ images[..., source, :] for source, matrix in bands]
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
    """`imresize` of floating-point tensors, (..., H, W); differentiable.

    Never rounds. Half-precision tensors are resampled in float32.
    """
    if has_torch_function_unary(images):
        # Written down by torch.fx, for one, as one operation.
        options: dict[str, Any] = {"scale": scale, "size": size, "antialias": antialias}
        return handle_torch_function(imresize_torch, (images,), images, **options)
    height, width = int(images.shape[-2]), int(images.shape[-1])
    out_size, scales = _output_size(height, width, scale, size)
    compute = images.dtype if images.dtype == torch.float64 else torch.float32
    kept = (antialias, compute, images.device)
    rows = _bands(height, out_size[0], scales[0], *kept)
    columns = _bands(width, out_size[1], scales[1], *kept)
    if images.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        _captured.extend((rows, columns))
    with _full_precision(images.device.type):
        result = _multiply(images.to(compute), rows)
        result = _multiply(result.mT, columns).mT.contiguous()
    return result.to(images.dtype)
