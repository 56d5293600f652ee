"""One picture measured: the figures of what a network returns, and of its stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srcli.evaluation import metrics
from srcli.evaluation.protocol import Enlarger, Estimate, Task, estimate_all
from srcli.imaging.degrade import crop_to_multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """The figures after one stage of a network."""

    psnr: float  # dB
    ssim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureResult:
    """One picture's figures."""

    image: str
    psnr: float  # dB
    ssim: float
    ifc: float | None
    seconds: float
    stages: tuple[StageResult, ...] = ()  # the last one's are the picture's own


def measure_picture(
    name: str,
    hr: NDArray[np.uint8],
    task: Task,
    enlarger: Enlarger,
    *,
    ifc: bool = False,
) -> tuple[PictureResult, Estimate]:
    """One picture's figures, and the enlarged picture with its luma.

    Where the enlarger returns several pictures they are stages, of which the last one
    is the result.

    Args:
        name: Of the picture.
        hr: (H, W) grey or (H, W, 3) RGB; cut to a multiple of the scale.
        task: Protocol, scale and degradation.
        enlarger: A network that fits the protocol, or bicubic.
        ifc: Measure the information fidelity too.

    Raises:
        InputError: If the picture is too small to be measured.
    """
    border = task.scale
    made = estimate_all(crop_to_multiple(hr, task.scale), task, enlarger)
    stages = tuple(_measure_stage(each, border) for each in made)
    last = made[-1]
    result = PictureResult(
        image=name,
        psnr=stages[-1].psnr,
        ssim=stages[-1].ssim,
        ifc=metrics.ifc(last.luma, last.reference, border) if ifc else None,
        seconds=last.seconds,
        stages=stages if len(stages) > 1 else (),
    )
    return result, last


def _measure_stage(made: Estimate, border: int) -> StageResult:
    pair = (made.luma, made.reference)
    return StageResult(
        psnr=metrics.psnr(*pair, border=border), ssim=metrics.ssim(*pair, border=border)
    )
