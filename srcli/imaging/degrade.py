"""The ways in which the papers' low-resolution pictures are made from sharp ones.

- `bi`: MATLAB's bicubic `imresize`, the standard of all five papers.
- `bd`: a 7x7 Gaussian blur of sigma 1.6, then every third pixel (x3 only).
- `dn`: `bi`, then Gaussian noise of standard deviation 30.
- `bd-bicubic`: the same blur, then `bi`. The bicubic row of RRRN's Table 2 (28.34 dB on
  Set5) was made so, although its networks were very likely tested on `bd`.

Source: RRRN, section 3.3 and Table 2. What the paper leaves open (the blur, the
rounding, the pixel kept, the noise's strength) is taken from the public test pictures
of the work that it compares with.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, UsageError, unknown
from srcli.imaging.resize import imresize

Degradation = Literal["bi", "bd", "dn", "bd-bicubic"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)

BLUR_SIGMA = 1.6  # px
BLUR_RADIUS = 3  # px: a 7x7 kernel
BD_SCALE = 3
NOISE_SIGMA = 30.0  # grey levels


def check_degradation(kind: str, scale: int) -> Degradation:
    """`kind`, if it is a degradation that exists at `scale`.

    Raises:
        UsageError: If there is none. "bd" exists at 3 alone: only blocks of odd side
            have a middle pixel, and the papers define no other.
    """
    if kind not in DEGRADATIONS:
        raise unknown("degradation", kind, DEGRADATIONS)
    if scale < 1:
        raise UsageError(f"the scale of a degradation must be 1 or more, not {scale}")
    if kind == "bd" and scale != BD_SCALE:
        raise UsageError(
            f"degradation bd is defined for x{BD_SCALE} only, not x{scale}:"
            " bd-bicubic blurs alike and serves every scale"
        )
    return kind


def crop_to_multiple(hr: NDArray[Any], scale: int) -> NDArray[Any]:
    """The largest top-left part of `hr` whose sides are multiples of `scale`, a view.

    Raises:
        InputError: If a side is shorter than `scale`.
    """
    height, width = hr.shape[:2]
    if min(height, width) < scale:
        raise InputError(
            f"a picture of {width}x{height} pixels is too small for x{scale}:"
            f" it needs {scale}x{scale}"
        )
    return hr[: height - height % scale, : width - width % scale]


def degrade(
    hr: NDArray[np.uint8], scale: int, kind: Degradation = "bi", seed: int = 0
) -> NDArray[np.uint8]:
    """The low-resolution picture that a degradation makes of `hr`.

    Args:
        hr: (H, W) or (H, W, C), sides multiples of `scale` (see `crop_to_multiple`).
        scale: HR pixels per LR pixel.
        kind: One of `DEGRADATIONS`.
        seed: Of the noise of "dn": equal seeds give equal noise.

    Raises:
        UsageError: As `check_degradation`.
        InputError: If a side of `hr` is no multiple of `scale`.
    """
    check_degradation(kind, scale)
    height, width = hr.shape[:2]
    if min(height, width) < scale or height % scale or width % scale:
        raise InputError(
            f"a picture of {width}x{height} pixels has no whole x{scale} picture:"
            f" crop it to a multiple of {scale}"
        )
    if kind == "bd":
        return _blur(hr, start=BD_SCALE // 2, step=BD_SCALE)
    if kind == "bd-bicubic":
        hr = _blur(hr)
    lr = imresize(hr, size=(height // scale, width // scale))
    if kind == "dn":
        noise = np.random.default_rng(seed).standard_normal(lr.shape)
        return to_uint8(lr + NOISE_SIGMA * noise)
    return lr


def _blur(hr: NDArray[np.uint8], start: int = 0, step: int = 1) -> NDArray[np.uint8]:
    """The Gaussian blur of `hr` at every `step`-th row and column from `start`.

    Edge pixels are repeated outwards; the result is rounded once, at the end.
    """
    offsets = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    kernel = np.exp(-(offsets**2) / (2.0 * BLUR_SIGMA**2))
    kernel /= kernel.sum()
    result: NDArray[Any] = hr
    for axis in (0, 1):
        centres = np.arange(start, hr.shape[axis], step)
        total = 0.0
        for offset, weight in zip(offsets, kernel, strict=True):
            rows = np.clip(centres + offset, 0, hr.shape[axis] - 1)
            total = total + np.take(result, rows, axis=axis) * weight
        result = np.asarray(total)
    return to_uint8(result)


def to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """`values` as MATLAB casts them: halves up, then clipped to [0, 255]."""
    return np.clip(np.floor(values + 0.5), 0.0, 255.0).astype(np.uint8)
