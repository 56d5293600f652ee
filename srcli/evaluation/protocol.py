"""The two ways in which the papers measure an enlargement, `y` and `rgb`.

- `y` (DRCN, DRRN, DSRN, every published bicubic row): the HR picture becomes uint8 Y;
  the LR picture is that Y shrunk in floating point, never rounded; the enlarged Y is
  rounded to uint8 and compared with the uint8 Y.
- `rgb` (MRNet, RRRN): the LR picture is the uint8 RGB picture shrunk and rounded, as
  files are; the enlarged RGB is rounded to uint8; the Y of both is compared unrounded.

Other degradations than bicubic always start from, and give, rounded pictures. A grey
picture is its own Y, not converted to studio range. An RGB network then gets its value
in all three channels and is measured by the mean of the three that it returns; a Y
network gets it as Y. A Y network measured by `rgb` enlarges the Y of the LR picture,
and Cb and Cr are enlarged with bicubic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.errors import UsageError, unknown
from srcli.imaging.color import (
    RGB_TO_YCBCR,
    YCBCR_OFFSET,
    YCBCR_TO_RGB,
    rgb_to_y,
    rgb_to_y_uint8,
)
from srcli.imaging.degrade import Degradation, degrade
from srcli.imaging.resize import imresize
from srcli.models.base import Color

Protocol = Literal["y", "rgb"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# Seconds. A device sets itself up anew for every picture size; where that could be much
# of the time, the second of two runs is timed.
_REPEAT_BELOW = 0.25


@dataclass(frozen=True, slots=True)
class Enlarger:
    """What is measured: a network, or bicubic interpolation.

    Attributes:
        color: The network's; None for bicubic, which takes either.
        run: (C, h, w) float32 in [0, 1] to (n*C, s*h, s*w), n pictures one after the
            other; None for bicubic.
    """

    color: Color | None = None
    run: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """How a picture is made small and measured again."""

    protocol: Protocol
    scale: int
    degradation: Degradation = "bi"
    seed: int = 0  # of the noise of "dn"


@dataclass(frozen=True, slots=True)
class Estimate:
    """An enlarged picture and what it is measured by.

    Attributes:
        picture: (H, W) or (H, W, 3) uint8, what a user would get to see.
        luma: Of `picture`, (H, W) in [0, 255].
        reference: Of the HR picture, the same shape and range.
        seconds: Time that the enlargement alone took.
    """

    picture: NDArray[np.uint8]
    luma: NDArray[Any]
    reference: NDArray[Any]
    seconds: float


def choose_protocol(asked: str, color: Color | None, degradation: str) -> Protocol:
    """The protocol for a network of `color`; None stands for bicubic.

    Args:
        asked: "y", "rgb", or "auto": the network's own; for bicubic "y", as in the
            papers, or "rgb" where the pictures are degraded otherwise.
        color: What the network works on.
        degradation: One of `DEGRADATIONS`.

    Raises:
        UsageError: If `asked` is unknown, or "y" for a network that works on RGB.
    """
    if asked == "auto":
        return color or ("y" if degradation == "bi" else "rgb")
    for protocol in PROTOCOLS:
        if asked == protocol:
            if protocol == "y" and color == "rgb":
                raise UsageError(
                    "protocol y gives a network luma only, and this one works on RGB:"
                    " use --protocol auto or rgb"
                )
            return protocol
    raise unknown("protocol", asked, ("auto", *PROTOCOLS))


def estimate(hr: NDArray[np.uint8], task: Task, enlarger: Enlarger) -> Estimate:
    """The enlargement of the small version of `hr`, by the task's protocol.

    Args:
        hr: (H, W) grey or (H, W, 3) RGB, sides multiples of the scale.
        task: Protocol, scale and degradation.
        enlarger: A network that fits the protocol (`choose_protocol`), or bicubic. Of
            several pictures that it returns this is the last one.
    """
    return estimate_all(hr, task, enlarger)[-1]


def estimate_all(
    hr: NDArray[np.uint8], task: Task, enlarger: Enlarger
) -> list[Estimate]:
    """Every picture that the enlarger returns, which runs once; as `estimate`."""
    run = _estimate_y if task.protocol == "y" else _estimate_rgb
    return run(hr, task, enlarger)


def shrink(hr: NDArray[np.uint8], task: Task) -> NDArray[Any]:
    """The LR picture that `estimate` gives to the enlarger, (h, w) or (h, w, 3).

    In [0, 255]: float64 that was never rounded for protocol `y`, else uint8.
    """
    if task.protocol == "rgb":
        return degrade(hr, task.scale, task.degradation, task.seed)
    luma = _luma_uint8(hr)
    if task.degradation == "bi":
        return imresize(luma.astype(np.float64), 1.0 / task.scale)
    return degrade(luma, task.scale, task.degradation, task.seed)


def _estimate_y(
    hr: NDArray[np.uint8], task: Task, enlarger: Enlarger
) -> list[Estimate]:
    lr = shrink(hr, task)
    srs: Iterable[NDArray[Any]]
    if enlarger.run is None:
        srs, seconds = _enlarge_bicubic(lr, task.scale)
    else:
        planes, seconds = _enlarge(enlarger.run, lr[:, :, None])
        srs = (sr[:, :, 0] for sr in planes)
    reference = _luma_uint8(hr)
    lumas = map(_to_uint8, srs)
    return [Estimate(luma, luma, reference, seconds) for luma in lumas]


def _estimate_rgb(
    hr: NDArray[np.uint8], task: Task, enlarger: Enlarger
) -> list[Estimate]:
    lr = shrink(hr, task)
    srs: Iterable[NDArray[Any]]
    if enlarger.run is None:
        srs, seconds = _enlarge_bicubic(lr, task.scale)
    elif lr.ndim == 2:
        channels = 1 if enlarger.color == "y" else 3
        planes, seconds = _enlarge(
            enlarger.run, np.repeat(lr[:, :, None], channels, axis=2)
        )
        srs = (sr.mean(axis=2) for sr in planes)
    elif enlarger.color == "rgb":
        srs, seconds = _enlarge(enlarger.run, lr)
    else:
        srs, seconds = _enlarge_luma_of(lr, task.scale, enlarger.run)
    reference = _luma(hr)
    pictures = map(_to_uint8, srs)
    return [Estimate(sr, _luma(sr), reference, seconds) for sr in pictures]


def _enlarge_luma_of(
    rgb: NDArray[np.uint8], scale: int, run: Callable[[Tensor], Tensor]
) -> tuple[Iterator[NDArray[np.float64]], float]:
    """RGB whose Y a Y network enlarged and whose Cb and Cr bicubic did."""
    ycbcr = rgb @ RGB_TO_YCBCR.T + YCBCR_OFFSET
    lumas, seconds = _enlarge(run, ycbcr[:, :, :1])
    chroma = imresize(ycbcr[:, :, 1:], float(scale))
    joined = (np.concatenate((luma, chroma), axis=2) for luma in lumas)
    return ((sr - YCBCR_OFFSET) @ YCBCR_TO_RGB.T for sr in joined), seconds


def _enlarge(
    run: Callable[[Tensor], Tensor], lr: NDArray[Any]
) -> tuple[Iterator[NDArray[np.float64]], float]:
    """`lr`, (h, w, C) in [0, 255], enlarged by a network, and the seconds it took.

    The pictures, (H, W, C) in [0, 255], are made one by one as they are asked for.
    """
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1)) / 255.0
    tensor = torch.from_numpy(planes.astype(np.float32))
    for _ in range(2):
        started = time.perf_counter()
        # What comes back lies in host memory, so the device has finished by then.
        result = run(tensor)
        seconds = time.perf_counter() - started
        if seconds > _REPEAT_BELOW:
            break
    pictures = torch.split(result, lr.shape[2])
    return (p.double().numpy().transpose(1, 2, 0) * 255.0 for p in pictures), seconds


def _enlarge_bicubic(lr: NDArray[Any], scale: int) -> tuple[list[NDArray[Any]], float]:
    """`lr` enlarged by MATLAB's bicubic, and the seconds it took."""
    started = time.perf_counter()
    sr = imresize(lr, float(scale))
    return [sr], time.perf_counter() - started


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Unrounded luma; a grey picture is its own."""
    return picture.astype(np.float64) if picture.ndim == 2 else rgb_to_y(picture)


def _luma_uint8(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rounded luma; a grey picture is its own."""
    return picture if picture.ndim == 2 else rgb_to_y_uint8(picture)


def _to_uint8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """`values` rounded, halves up as MATLAB does, and clipped to [0, 255]."""
    if values.dtype == np.uint8:
        return values
    return np.clip(np.floor(values + 0.5), 0.0, 255.0).astype(np.uint8)
