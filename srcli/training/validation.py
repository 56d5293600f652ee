"""What a network in training measures on a data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch.backends import cudnn

from srcli.errors import InputError
from srcli.evaluation.datasets import Dataset, read_hr
from srcli.evaluation.metrics import psnr
from srcli.evaluation.protocol import Enlarger, Task, estimate
from srcli.imaging.degrade import crop_to_multiple
from srcli.inference.runner import Runner
from srcli.inference.tiling import TileSize
from srcli.models.base import Color, SRModel
from srcli.training.recipe import Recipe

# Mean PSNR in dB by scale, of a network in evaluation mode.
Validator = Callable[[SRModel], dict[int, float]]


def make_validator(
    dataset: Dataset, recipe: Recipe, color: Color, device: torch.device, precision: str
) -> Validator:
    """A function that measures a network's PSNR by its own protocol.

    Args:
        dataset: HR pictures; they stay in memory.
        recipe: Its scales and degradation.
        color: The network's, which decides the protocol.
        device: Where the network runs.
        precision: As `choose_precision`.

    Raises:
        InputError: If there is no picture, or one cannot be read or is too small.
    """
    tasks = [
        Task(protocol=color, scale=scale, degradation=recipe.degradation)
        for scale in recipe.scales
    ]
    pictures = _read(dataset, recipe.scales)

    # A GPU would wait while the processor tries out how large a tile may be; where
    # one is too large, the runner halves it.
    tile: TileSize = 512 if device.type == "cuda" else "auto"
    # Nor does cuDNN try out its ways for pictures that each come once.
    flags = partial(
        cudnn.flags, enabled=True, benchmark=False, allow_tf32=precision != "fp32"
    )

    def validate(model: SRModel) -> dict[int, float]:
        results = {}
        for task in tasks:
            # In tiles where memory asks for it, and on a copy of the network.
            runner = Runner(
                model, task.scale, device=str(device), precision=precision, tile=tile
            )
            enlarger = Enlarger(color, runner.enlarge)
            with flags():
                found = [estimate(hr, task, enlarger) for hr in pictures[task.scale]]
            results[task.scale] = fmean(
                psnr(each.luma, each.reference, task.scale) for each in found
            )
        return results

    return validate


def _read(
    dataset: Dataset, scales: tuple[int, ...]
) -> dict[int, list[NDArray[np.uint8]]]:
    """The HR pictures for each scale, sides multiples of it; each file is read once."""
    read = cache(read_hr)
    pictures: dict[int, list[NDArray[np.uint8]]] = {}
    for scale in scales:
        pictures[scale] = []
        for path in dataset.pictures(scale):
            hr = read(path)
            # `scale` pixels are cut off every border before measuring.
            if min(hr.shape[:2]) < 3 * scale:
                raise InputError(f"{path} is too small to validate on at x{scale}")
            pictures[scale].append(crop_to_multiple(hr, scale))
    return pictures
