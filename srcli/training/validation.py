"""Validation of a network in training: its pictures, and its PSNR on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch.backends import cudnn

from srcli.errors import InputError, UsageError
from srcli.evaluation.metrics import psnr
from srcli.evaluation.protocol import Task, reconstruct
from srcli.imaging.degrade import crop_to_multiple
from srcli.inference.runner import Runner
from srcli.inference.tiling import TileSize
from srcli.models.base import Color, SRModel
from srcli.pretrained.datasets import find_dataset, read_hr
from srcli.storage import show_path
from srcli.training.checkpoint import DEFAULT_VAL, HELD_OUT, NO_VAL, TrainRequest
from srcli.training.recipe import Recipe

log = logging.getLogger(__name__)

# Mean PSNR in dB by scale, of a network in evaluation mode.
Validator = Callable[[SRModel], dict[int, float]]

_MOST = 5  # pictures that are held out
_SHARE = 10  # at most one in so many
_FEWEST = 4  # pictures of which one is held out
_SIDE = 512  # pixels, in the middle of a held-out picture, that are measured
_LEAST = 3  # times the scale: as much as it is cut off every border before measuring


def settle_val(request: TrainRequest) -> str:
    """What a run validates on: what was named, else Set5, else held-out pictures."""
    if request.val is not None:
        return request.val
    try:
        return find_dataset(DEFAULT_VAL, request.data_dir).name
    except InputError:
        if request.data_dir and not request.data_dir.expanduser().is_dir():
            raise  # not Set5 is missing, but the folder that was named
        return HELD_OUT


class Validation:
    """The pictures that a run is validated on: a data set's, some of its own, or none.

    Of its own pictures no more than 512 x 512 pixels in the middle are measured, so
    that it is cheap however large they are.

    The request's `val` is settled; the network's colour decides the protocol.

    Raises:
        UsageError: If the recipe needs a validation, and there is to be none.
        InputError: If the data set is missing, or a picture unreadable or too small.
    """

    def __init__(
        self,
        request: TrainRequest,
        recipe: Recipe,
        color: Color,
        device: torch.device,
        precision: str,
    ) -> None:
        self._recipe, self._color = recipe, color
        # In tiles where memory asks for it, and on a copy of the network. A GPU would
        # wait while the processor tries out how large they may be: there the runner
        # halves what is too large. Nor does cuDNN try out its ways for pictures that
        # each come once.
        tile: TileSize = 512 if device.type == "cuda" else "auto"
        self._run = partial(Runner, device=str(device), precision=precision, tile=tile)
        exact = precision == "fp32"
        self._flags = partial(
            cudnn.flags, enabled=True, benchmark=False, allow_tf32=not exact
        )
        self._before = request.held_out
        self._pictures: dict[int, list[NDArray[np.uint8]]] = {}
        val = request.val or DEFAULT_VAL
        self._holds_out = val == HELD_OUT
        if val not in (NO_VAL, HELD_OUT):
            dataset = find_dataset(val, request.data_dir)
            self._read({scale: dataset.pictures(scale) for scale in recipe.scales})
        elif val == NO_VAL and recipe.schedule == "plateau":
            raise UsageError("schedule 'plateau' needs pictures to validate on: --val")

    def hold_out(self, sizes: Mapping[str, tuple[int, int]]) -> list[str]:
        """The hashes of the pictures that are validated on instead of trained on.

        Those that were held out before; at a run's beginning the smallest hashes, so
        that names do not matter. `sizes` are height and width by the pixels' hash.
        """
        if not self._holds_out:
            return []
        known = sorted(sizes.keys() & self._before.keys())
        if known and len(known) < len(sizes):
            return known
        scales = self._recipe.scales
        least = max(max(self._recipe.lr_crop(s), _LEAST) * s for s in scales)
        large = sorted(name for name, size in sizes.items() if min(size) >= least)
        if len(large) < _FEWEST:
            return []
        return large[: max(1, min(_MOST, len(large) // _SHARE))]

    def make_validator(self, held_out: Sequence[Path]) -> Validator | None:
        """What measures a network on the data set, or on the files held out; or None.

        Raises:
            UsageError: If the recipe needs a validation and there were too few.
        """
        if held_out:
            names = ", ".join(map(show_path, held_out))
            said = "%d held out for validation, not trained on: %s (--val names others)"
            log.info(said, len(held_out), names)
            self._read(dict.fromkeys(self._recipe.scales, held_out), _SIDE)
        elif self._holds_out:
            few = f"under {_FEWEST} pictures are large enough to hold out (see --val)"
            if self._recipe.schedule == "plateau":
                raise UsageError(f"schedule 'plateau' needs a validation: {few}")
            log.warning("no validation: %s", few)
        return self._measure if self._pictures else None

    def _read(self, paths: dict[int, Sequence[Path]], side: int | None = None) -> None:
        """Read the pictures of every scale, each once, to the middle `side` pixels."""
        read = cache(read_hr)
        for scale, found in paths.items():
            self._pictures[scale] = []
            for path in found:
                hr = read(path)
                if min(hr.shape[:2]) < _LEAST * scale:
                    raise InputError(f"{path} is too small to validate on at x{scale}")
                if side is not None:
                    top, left = (max(0, (n - side) // 2) for n in hr.shape[:2])
                    # A copy, so that the rest of a large picture is forgotten.
                    hr = hr[top : top + side, left : left + side].copy()
                self._pictures[scale].append(crop_to_multiple(hr, scale))

    def _measure(self, model: SRModel) -> dict[int, float]:
        results = {}
        for scale, pictures in self._pictures.items():
            kind = self._recipe.degradation
            task = Task(protocol=self._color, scale=scale, degradation=kind)
            runner = self._run(model, scale)
            with self._flags():
                found = [reconstruct(hr, task, runner)[-1] for hr in pictures]
            results[scale] = fmean(psnr(r.luma, r.reference, scale) for r in found)
        return results
