"""One network run over pictures of any size: in tiles, on any device."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from srcli.errors import DeviceError, UsageError
from srcli.imaging.box import Box
from srcli.inference.cost import RunStats
from srcli.inference.device import (
    DTYPES,
    SMALLEST_TILE,
    activation_bytes_per_pixel,
    choose_device,
    choose_precision,
    choose_tile,
    empty_cache,
    give_back_memory,
    is_out_of_memory,
    keep_freed_memory,
)
from srcli.inference.tiling import (
    Overlap,
    Tile,
    TileSize,
    check_tiling,
    plan_tiles,
)
from srcli.models.base import Color, SRModel
from srcli.models.fast import make_fast
from srcli.progress import SILENT, Progress

log = logging.getLogger(__name__)

ReadTile = Callable[[Box], Tensor]
WriteTile = Callable[[Box, Tensor], None]

_WHOLE = 1 << 30  # px; longer than any picture
_PACE_SECONDS = 0.2  # from which on the time of a tile says what others will take


class Runner:
    """A network at one scale, ready to enlarge pictures.

    Works on a copy of the model, which stays as it is. When memory runs out, the tiles
    shrink, and as a last resort the work goes on on the CPU; what is done stays done,
    and the next pictures begin with what worked. `stats` is what the last run took.
    """

    def __init__(
        self,
        model: SRModel,
        scale: int,
        *,
        device: str = "auto",
        precision: str = "auto",
        tile: TileSize = "auto",
        overlap: Overlap = "auto",
        ensemble: bool = False,
    ) -> None:
        """Put the network on its device.

        Args:
            model: The network.
            scale: One that the network serves.
            device: As `choose_device`.
            precision: As `choose_precision`.
            tile: Longest side of a tile in LR pixels, context apart; 0 is the whole
                picture, "auto" what is fast and fits.
            overlap: Context of a tile in LR pixels; "auto" is the network's
                `tile_overlap`, "exact" its receptive radius.
            ensemble: Average the results for the 8 flips and turns of the picture.

        Raises:
            UsageError: If an option is not valid, or the network has no such scale.
            DeviceError: If the device is absent or cannot do it.
        """
        check_tiling(tile, overlap)
        self.scale = model.resolve_scale(scale)
        self._model = make_fast(copy.deepcopy(model).eval(), self.scale)
        self._model.to(memory_format=model.memory_format)  # type: ignore[call-overload]
        self._precision_wanted = precision
        self._tile_wanted = tile
        if overlap == "auto":
            overlap = model.tile_overlap(self.scale)
        elif overlap == "exact":
            overlap = model.receptive_radius(self.scale)
        self.overlap = overlap  # LR px of a tile's context
        self.multiple = model.size_multiple  # tiles begin and end at multiples of it
        self._ensemble = ensemble
        self._pace: float | None = None
        self._place(choose_device(device))
        self.stats = RunStats(str(self._device), self._precision)

    @property
    def color(self) -> Color:
        """What the pictures are in: "y" (one channel) or "rgb" (three)."""
        return self._model.color

    def enlarge(self, lr: Tensor) -> Tensor:
        """The enlarged picture, not clamped.

        Args:
            lr: (C, h, w) float32 in [0, 1] on the CPU; C is the network's 1 or 3.

        Returns:
            (C', s*h, s*w) float32 on the CPU; C' is what the network returns, its C.

        Raises:
            DeviceError: If memory does not even suffice for the smallest tiles.
        """
        _, height, width = lr.shape
        sr = torch.empty(0)

        def write(box: Box, tile: Tensor) -> None:
            if not len(sr):
                sr.resize_(len(tile), height * self.scale, width * self.scale)
            sr[:, *box.scaled(self.scale).slices] = tile

        self.run_tiles(height, width, lambda box: lr[:, *box.slices], write)
        return sr

    def run_tiles(
        self,
        height: int,
        width: int,
        read: ReadTile,
        write: WriteTile,
        progress: Progress = SILENT,
    ) -> None:
        """Enlarge a picture that only `read` and `write` know.

        Args:
            height: Of the LR picture.
            width: Of the LR picture.
            read: Gives a box of the LR picture, (C, h, w) float32 in [0, 1].
            write: Takes the result for a box (given in LR pixels; the boxes of all
                calls make up the picture): (C, s*h, s*w) float32 on the device that
                computed it. It is called again where it ran out of memory itself, so
                it should store last.
            progress: Told of tiles.

        Raises:
            DeviceError: If memory does not even suffice for the smallest tiles.
        """
        started = time.perf_counter()
        whole, tiles, fallbacks = (height, width), 0, 0
        queue = deque(self._plan(height, width))
        progress.start(f"{self._model.arch} x{self.scale}", len(queue))
        tile_area = height * width / len(queue)
        size = queue[0].padded.size
        while queue:
            tile = queue.popleft()
            core, padded = tile.core, tile.padded
            if padded.size != size and self._device.type == "cpu":
                give_back_memory()
            size = padded.size
            if core.side > self._side:
                parts = plan_tiles(core, self._side, whole, self.overlap, self.multiple)
                queue.extendleft(reversed(parts))
            elif self._run_tile(tile, read, write):
                tiles += 1
                progress.advance(core.area / tile_area)
            else:
                self._make_room(core.side)
                fallbacks += 1
                queue.appendleft(tile)
        seconds = time.perf_counter() - started
        self.stats = RunStats(
            str(self._device), self._precision, tiles, fallbacks, seconds
        )

    def estimate_seconds(self, height: int, width: int) -> float:
        """About how long an LR picture will take, from tiles of noise timed here."""
        if self._pace is None:
            self._pace = self._measure_pace()
        return self._pace * sum(t.padded.area for t in self._plan(height, width))

    def estimate_memory(self, height: int, width: int) -> int:
        """About how many bytes of host memory an LR picture's tiles will take."""
        if self._device.type != "cpu":
            return 0
        dtype = DTYPES[self._precision]
        need = activation_bytes_per_pixel(self._model, self.scale, dtype)
        return int(need * max(t.padded.area for t in self._plan(height, width)))

    def _plan(self, height: int, width: int) -> list[Tile]:
        picture = Box(0, 0, height, width)
        side = min(self._side, picture.side)
        return plan_tiles(picture, side, picture.size, self.overlap, self.multiple)

    def _measure_pace(self) -> float:
        """Seconds that an LR pixel takes, in the largest tile that is soon done."""
        side = SMALLEST_TILE
        while True:
            lr = torch.rand(self._model.channels, side, side)
            self.enlarge(lr)  # what is done once for a size is done here
            self.enlarge(lr)
            seconds = self.stats.seconds
            if seconds > _PACE_SECONDS or 2 * side > self._side:
                return seconds / side**2
            side *= 2

    def _run_tile(self, tile: Tile, read: ReadTile, write: WriteTile) -> bool:
        """Compute one tile; False if memory ran out."""
        try:
            with torch.inference_mode():
                lr = read(tile.padded).to(self._device)[None]
                with self._arithmetic():
                    sr = self._average(lr) if self._ensemble else self._forward(lr)
                kept = tile.core.within(tile.padded).scaled(self.scale)
                write(tile.core, sr[0, :, *kept.slices])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # The traceback holds the tensors of the failed call: it must be gone
            # before their memory can be given back.
            return False
        return True

    def _forward(self, lr: Tensor) -> Tensor:
        lr = lr.contiguous(memory_format=self._model.memory_format)
        return self._model(lr, self.scale).float()

    def _average(self, lr: Tensor) -> Tensor:
        """The mean over the 8 symmetries of the square, each undone after the network.

        Source: Timofte et al., "Seven Ways to Improve Example-Based Single Image Super
        Resolution", CVPR 2016, section 3 (enhanced prediction).
        """
        total = torch.zeros((), device=lr.device)
        for turned in (False, True):
            for axes in ((), (2,), (3,), (2, 3)):
                view = (lr.mT if turned else lr).flip(axes)
                sr = self._forward(view).flip(axes)
                total = total + (sr.mT if turned else sr)
        return total / 8

    def _arithmetic(self) -> AbstractContextManager[object]:
        """The precision, for the time of a call."""
        if self._precision != "fp32":
            return torch.autocast(self._device.type, DTYPES[self._precision])
        if self._device.type == "cuda":
            # By default cuDNN's fp32 is TF32, whose 11 bits are no more than fp16's.
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()

    def _place(self, device: torch.device) -> None:
        """Move the network to a device, and choose precision and tiles for it."""
        model, wanted = self._model, self._precision_wanted
        self._device = device
        if device.type == "cpu":
            keep_freed_memory()
        try:
            # Even the first question to a full GPU may fail.
            self._precision = choose_precision(wanted, device)
            if self._precision not in model.precisions:
                if wanted.lower() != "auto":
                    raise UsageError(
                        f"a network of {model.arch} does not compute well in {wanted}: "
                        f"use --precision {' or '.join(model.precisions)}, or auto"
                    )
                self._precision = "fp32"
            model.to(device)
            if self._tile_wanted == "auto":
                dtype = DTYPES[self._precision]
                self._side = choose_tile(model, self.scale, device, dtype, self.overlap)
            else:
                self._side = self._tile_wanted or _WHOLE
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._leave_device()

    def _make_room(self, side: int) -> None:
        """See to it that a tile that ran out of memory will fit next time."""
        if side > SMALLEST_TILE:
            self._side = max(SMALLEST_TILE, math.ceil(side / 2))
            log.debug("out of memory: tiles of at most %d pixels now", self._side)
            empty_cache(self._device)
        else:
            self._leave_device()

    def _leave_device(self) -> None:
        """Go on on the CPU, if that is not where memory ran out."""
        left = self._device
        if left.type == "cpu":
            raise DeviceError(
                "the memory does not suffice for the smallest tiles: close other "
                "programs, or use a smaller --tile-overlap"
            )
        log.warning("out of memory on %s: going on on the CPU", left)
        if self._precision_wanted != "fp32":
            self._precision_wanted = "auto"
        self._tile_wanted = "auto"
        self._place(torch.device("cpu"))
        empty_cache(left)
