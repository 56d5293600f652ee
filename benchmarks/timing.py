"""The time of a network's training steps, and the peaks of the chip they run on."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.backends import cudnn

from srcli.errors import UsageError
from srcli.imaging.resize import imresize
from srcli.inference.device import DTYPES, choose_device, choose_precision
from srcli.models import winograd
from srcli.models.base import SRModel
from srcli.models.counting import MacCounter, outline
from srcli.training.data import CropSampler, find_pictures
from srcli.training.loop import Trainer
from srcli.training.recipe import Recipe, load_recipe
from srcli.training.run import make_network

PICTURES, PICTURE_SIDE = 4, 1024  # 4 megapixels
MATRIX_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
CONVOLUTIONS = (64, 128, 256)  # channels; on crops of 48x48
CROPS = {"cpu": 8, "cuda": 256, "mps": 64}
REPEATS = 10  # of which the best counts, for the peaks
WARM_UP = 4  # steps before any is timed: libraries choose, graphs are recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One network to time."""

    model: str
    recipe: str = "fast"
    overrides: dict[str, Any]
    device: str = "auto"
    precision: str = "auto"
    steps: int | None = None  # timed a scale; None: as many as the seconds give
    seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured of one network; times in seconds, rates in FLOP/s."""

    network: str
    device: str
    precision: str
    crops: str  # of a step, in words
    batch: int
    steps: int  # that were timed, over all scales
    step: float
    step_flop: float
    data_share: float  # of the time
    memory: int | None  # bytes: the GPU's tensors, or all of the process on the CPU
    peak_precision: str
    matrix_peak: float
    convolution_peak: float | None  # on the CPU
    alone: float | None  # a step by torch's convolutions alone, with the extra fast-cpu


class Sampler(CropSampler):
    """Draws for the scales that it is told; where `fixed`, the same crops again."""

    def __init__(self, pictures: Path, recipe: Recipe, network: SRModel) -> None:
        device = next(network.parameters()).device
        super().__init__(find_pictures([pictures]), recipe, network.color, device)
        self.turn: tuple[int, ...] = recipe.scales
        self.fixed = False
        self._kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def draw(self, scale: int, count: int) -> tuple[Tensor, Tensor]:
        """Crops as in training, or those of the first call."""
        if not self.fixed:
            return super().draw(scale, count)
        if (scale, count) not in self._kept:
            self._kept[scale, count] = super().draw(scale, count)
        return self._kept[scale, count]

    def draw_scales(self) -> tuple[int, ...]:
        """`turn`; the choice at random is made as well, since it takes time."""
        if not self.fixed:
            super().draw_scales()
        return self.turn


def make_pictures(folder: Path) -> None:
    """Write pictures of coarse noise under fine noise."""
    draw = np.random.default_rng(0)
    for number in range(PICTURES):
        picture = Image.fromarray(draw_picture(draw, PICTURE_SIDE))
        picture.save(folder / f"{number}.png", compress_level=1)


def draw_picture(draw: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Coarse noise under fine noise, (side, side, 3); the side is a multiple of 16."""
    coarse = draw.uniform(0, 255, (side // 16, side // 16, 3))
    smooth = imresize(coarse, 16)
    noisy = smooth + draw.normal(0, 8, smooth.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def measure_network(job: Job, pictures: Path) -> Row:
    """Time the steps of one network; the peaks are measured before and after it.

    Args:
        job: What to time.
        pictures: Folder of pictures to train on.

    Raises:
        UsageError: For an unknown model, recipe, field or precision.
        DeviceError: If the device is not there.
    """
    device = choose_device(job.device)
    precision = choose_precision(job.precision, device)
    if precision == "fp16":
        raise UsageError("training knows no fp16: use --precision bf16, fp32 or auto")
    recipe = load_recipe(job.model, job.recipe, job.overrides)
    fastest = choose_precision("auto", device)
    peak_precision = fastest if fastest == "bf16" else precision
    dtype = DTYPES[peak_precision]
    matrix_peak = measure_matrix_peak(device, dtype)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
    network = make_network(recipe).to(device)
    sampler = Sampler(pictures, recipe, network)
    trainer = Trainer(network, recipe, sampler, pictures, precision=DTYPES[precision])
    network.train()
    alone = recipe.scale_mode == "one"
    turns = [(scale,) for scale in recipe.scales] if alone else [recipe.scales]

    def time_turns() -> list[tuple[int, float, float]]:
        each = job.seconds / len(turns)
        return [time_steps_at(turn, trainer, sampler, job, each) for turn in turns]

    with cudnn.flags(enabled=True, benchmark=True):  # as srcli.training.run
        times = time_turns()
    memory = read_peak_memory(device)
    alone_seconds = None
    if device.type == "cpu" and winograd.is_available():
        with winograd.suspended():
            alone_seconds = sum(seconds for _, seconds, _ in time_turns())
    steps, seconds, lost = (sum(values) for values in zip(*times, strict=True))
    step_flop = sum(count_step_flop(network, recipe, turn) for turn in turns)
    on_cpu = device.type == "cpu"
    return Row(
        network=recipe.model,
        device=str(device),
        precision=precision,
        crops=f"{recipe.batch} of {recipe.crop}x{recipe.crop} {recipe.crop_of.upper()}",
        batch=recipe.batch,
        steps=steps,
        step=seconds / len(turns),
        step_flop=step_flop / len(turns),
        data_share=lost / seconds,
        memory=memory,
        peak_precision=peak_precision,
        matrix_peak=max(matrix_peak, measure_matrix_peak(device, dtype)),
        convolution_peak=measure_convolution_peak(device, dtype) if on_cpu else None,
        alone=alone_seconds and alone_seconds / len(turns),
    )


def time_steps_at(
    scales: tuple[int, ...],
    trainer: Trainer,
    sampler: Sampler,
    job: Job,
    seconds: float,
) -> tuple[int, float, float]:
    """Steps timed, their median in seconds, and how much of that data takes.

    On the CPU the drawing of crops is timed. A GPU works while the processor is
    elsewhere: there, steps with fresh crops and steps with the same crops take turns.
    """
    sampler.turn = scales
    rounds = 1 if sampler.device.type == "cpu" else 4
    time_steps(trainer, WARM_UP)
    count = job.steps
    if count is None:
        estimate = statistics.median(time_steps(trainer, 2))
        count = min(500, max(3, round(seconds / rounds / estimate)))
    drawn = trainer.drawing
    fresh: list[float] = []
    fixed: list[float] = []
    for number in range(rounds):
        sampler.fixed = number % 2 == 1
        (fixed if sampler.fixed else fresh).extend(time_steps(trainer, count))
    sampler.fixed = False
    step = statistics.median(fresh)
    if fixed:
        return len(fresh), step, max(0.0, step - statistics.median(fixed))
    return len(fresh), step, step * (trainer.drawing - drawn) / sum(fresh)


def time_steps(trainer: Trainer, count: int) -> list[float]:
    """Seconds of each of `count` steps."""
    device = trainer.sampler.device
    if device.type == "cuda":
        # Steps queue up as in training: nobody waits for one before the last.
        timed = partial(torch.cuda.Event, enable_timing=True)
        marks = [timed() for _ in range(count + 1)]
        marks[0].record()
        for mark in marks[1:]:
            trainer.train_step()
            mark.record()
        torch.cuda.synchronize(device)
        return [one.elapsed_time(two) / 1000 for one, two in pairwise(marks)]
    times = [time.perf_counter()]
    for _ in range(count):
        trainer.train_step()
        synchronise(device)
        times.append(time.perf_counter())
    return [two - one for one, two in pairwise(times)]


def count_step_flop(network: SRModel, recipe: Recipe, scales: tuple[int, ...]) -> int:
    """FLOP of a step: three forward passes, two for each multiply-accumulate."""
    twin = outline(type(network), network.config)
    twin.recursion_limit = network.recursion_limit
    total = 0
    for scale, crops in recipe.divide_batch(scales).items():
        side = recipe.lr_crop(scale)
        lr = torch.zeros(1, twin.channels, side, side, device="meta")
        counter = MacCounter()
        with torch.no_grad(), counter:
            if recipe.supervision == "final":
                twin(lr, scale)
            else:
                twin.predictions(lr, scale)
        total += 6 * crops * counter.macs
    return total


def measure_matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the product of two large matrices."""
    side = MATRIX_SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / time_best(device, partial(torch.mm, matrix, matrix))


def measure_convolution_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest bare 3x3 convolution, channels last."""
    rates = []
    for width in CONVOLUTIONS:
        layer = nn.Conv2d(width, width, 3, padding=1, device=device, dtype=dtype)
        layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        crops = torch.randn(
            CROPS[device.type], width, 48, 48, device=device, dtype=dtype
        )
        crops = crops.to(memory_format=torch.channels_last)
        flop = 2 * crops.numel() * width * 9
        rates.append(flop / time_best(device, partial(layer, crops)))
    return max(rates)


def time_best(device: torch.device, work: Callable[[], Tensor]) -> float:
    """Seconds that a piece of work takes at its fastest."""
    calls = 1 if device.type == "cpu" else 8  # so that launching them does not count
    seconds = []
    with torch.no_grad():
        for _ in range(REPEATS):
            synchronise(device)
            begun = time.perf_counter()
            for _ in range(calls):
                work()
            synchronise(device)
            seconds.append((time.perf_counter() - begun) / calls)
    return min(seconds)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def read_peak_memory(device: torch.device) -> int | None:
    """Most bytes of the GPU's tensors, or of the process; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
