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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from srcli.errors import UsageError, unknown
from srcli.imaging.color import (
    RGB_TO_YCBCR,
    YCBCR_OFFSET,
    YCBCR_TO_RGB,
    rgb_to_y,
    rgb_to_y_uint8,
)
from srcli.imaging.degrade import Degradation, degrade, to_uint8
from srcli.imaging.resize import imresize
from srcli.inference.runner import Runner
from srcli.models.base import Color

Protocol = Literal["y", "rgb"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

# Seconds. A device sets itself up anew for every picture size; where that could be much
# of the time, the second of two runs is timed.
_REPEAT_BELOW = 0.25


@dataclass(frozen=True, slots=True)
class Task:
    """The protocol, scale and degradation by which a picture is made small again."""

    protocol: Protocol
    scale: int
    degradation: Degradation = "bi"
    seed: int = 0  # of the noise of "dn"


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """A picture enlarged from its small version, and what it is measured by.

    Attributes:
        picture: (H, W) or (H, W, 3) uint8, what a user would get to see.
        luma: Of `picture`, (H, W) in [0, 255].
        reference: Luma of the HR picture, the same shape and range.
        seconds: Time that the enlargement alone took.
    """

    picture: NDArray[np.uint8]
    luma: NDArray[Any]
    reference: NDArray[Any]
    seconds: float


def choose_protocol(asked: str, color: Color | None, degradation: str) -> Protocol:
    """The protocol for a network of `color`; None stands for bicubic.

    "auto" is the network's own; for bicubic "y", as in the papers, or "rgb" where the
    pictures are degraded otherwise.

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


def reconstruct(
    hr: NDArray[np.uint8], task: Task, runner: Runner | None = None
) -> list[Reconstruction]:
    """Every picture that a network makes of the small version of `hr`; the result last.

    Args:
        hr: (H, W) grey or (H, W, 3) RGB, sides multiples of the scale.
        task: Protocol, scale and degradation.
        runner: Of a network that fits the protocol; None is bicubic. It may return
            several pictures, one after the other.
    """
    if task.protocol == "rgb":
        lr: NDArray[Any] = degrade(hr, task.scale, task.degradation, task.seed)
        reference = _luma(hr)
    else:
        reference = hr if hr.ndim == 2 else rgb_to_y_uint8(hr)
        if task.degradation == "bi":
            lr = imresize(reference.astype(np.float64), 1.0 / task.scale)
        else:
            lr = degrade(reference, task.scale, task.degradation, task.seed)
    srs, seconds = _enlarge(lr, task.scale, runner)
    pictures = map(to_uint8, srs)
    return [Reconstruction(sr, _luma(sr), reference, seconds) for sr in pictures]


def _enlarge(
    lr: NDArray[Any], scale: int, runner: Runner | None
) -> tuple[Iterable[NDArray[Any]], float]:
    """Enlarged pictures in [0, 255], and the seconds that took."""
    if runner is None:
        started = time.perf_counter()
        sr = imresize(lr, float(scale))
        return [sr], time.perf_counter() - started
    if lr.ndim == 2:
        channels = 1 if runner.color == "y" else 3
        srs, seconds = _run(runner, np.repeat(lr[:, :, None], channels, axis=2))
        return (sr.mean(axis=2) for sr in srs), seconds
    if runner.color == "rgb":
        return _run(runner, lr)
    ycbcr = lr @ RGB_TO_YCBCR.T + YCBCR_OFFSET
    lumas, seconds = _run(runner, ycbcr[:, :, :1])
    chroma = imresize(ycbcr[:, :, 1:], float(scale))
    joined = (np.concatenate((luma, chroma), axis=2) for luma in lumas)
    return ((sr - YCBCR_OFFSET) @ YCBCR_TO_RGB.T for sr in joined), seconds


def _run(
    runner: Runner, lr: NDArray[Any]
) -> tuple[Iterator[NDArray[np.float64]], float]:
    """`lr`, (h, w, C), enlarged by a network; the pictures are made as asked for."""
    planes = np.ascontiguousarray(lr.transpose(2, 0, 1)) / 255.0
    tensor = torch.from_numpy(planes.astype(np.float32))
    for _ in range(2):
        started = time.perf_counter()
        # What comes back lies in host memory, so the device has finished by then.
        result = runner.enlarge(tensor)
        seconds = time.perf_counter() - started
        if seconds > _REPEAT_BELOW:
            break
    pictures = torch.split(result, lr.shape[2])
    return (p.double().numpy().transpose(1, 2, 0) * 255.0 for p in pictures), seconds


def _luma(picture: NDArray[np.uint8]) -> NDArray[Any]:
    """Unrounded luma; a grey picture is its own."""
    return picture if picture.ndim == 2 else rgb_to_y(picture)
