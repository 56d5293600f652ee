"""How fast training runs here: a step's time, its share of the chip's peak, its memory.

    python benchmarks/training.py --model mrnet drcn --seconds 20

Every row takes steps of the project's own trainer, with all recursions of the network,
on crops of pictures of noise; no data is needed.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from timing import (
    make_parser,
    measure_convolution_peak,
    measure_matrix_peak,
    name_machine,
    read_peak_memory,
    run_benchmark,
    save_picture,
    synchronise,
)
from torch.backends import cudnn

from srcli.errors import UsageError
from srcli.evaluation.tables import format_table
from srcli.inference.device import DTYPES, choose_device, choose_precision
from srcli.models import MODELS, winograd
from srcli.models.base import SRModel
from srcli.models.counting import MacCounter, outline
from srcli.training.data import CropSampler, find_pictures
from srcli.training.loop import Trainer
from srcli.training.recipe import NAMES, Recipe, load_recipe, parse_assignments
from srcli.training.run import make_network

PICTURES, PICTURE_SIDE = 4, 1024  # 4 megapixels
WARM_UP = 4  # steps before any is timed: libraries choose, graphs are recorded
ABOUT = (
    "Time: median of the timed steps. FLOP: three times those of the forward pass's "
    "learned layers, two for each multiply-accumulate; recomputation does not count. "
    "By fast-cpu: how many times as fast as with torch's convolutions alone. Where a "
    "step draws one scale at random, each scale is timed by itself, and all weigh the "
    "same."
)


class Sampler(CropSampler):
    """Draws for the scales of `turn`; the random choice takes its time all the same."""

    turn: tuple[int, ...] = ()

    def draw_scales(self) -> tuple[int, ...]:
        """`turn`."""
        super().draw_scales()
        return self.turn


def measure_network(recipe: Recipe, chosen: Namespace, folder: Path) -> dict[str, Any]:
    """The figures of one network; the peaks are measured before and after it."""
    device = choose_device(chosen.device)
    precision = choose_precision(chosen.precision, device)
    if precision == "fp16":
        raise UsageError("training knows no fp16: use --precision bf16, fp32 or auto")
    fastest = choose_precision("auto", device)
    peak_precision = fastest if fastest == "bf16" else precision
    dtype = DTYPES[peak_precision]
    matrix = measure_matrix_peak(device, dtype)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.reset_peak_memory_stats(device)
    network = make_network(recipe).to(device)
    sampler = Sampler(find_pictures([folder]), recipe, network.color, device)
    trainer = Trainer(network, recipe, sampler, folder, precision=DTYPES[precision])
    network.train()
    one = recipe.scale_mode == "one"
    turns = [(scale,) for scale in recipe.scales] if one else [recipe.scales]

    def time_turns() -> list[list[float]]:
        return [time_steps_at(turn, trainer, chosen, len(turns)) for turn in turns]

    with cudnn.flags(enabled=True, benchmark=True):  # as srcli.training.run
        times = time_turns()
    memory, drawing, alone = read_peak_memory(device), trainer.drawing, None
    taken = trainer.step
    if device.type == "cpu" and winograd.is_available():
        with winograd.suspended():
            alone = sum(map(statistics.median, time_turns())) / len(turns)
    step = sum(map(statistics.median, times)) / len(turns)
    flop = sum(count_step_flop(network, recipe, turn) for turn in turns) / len(turns)
    bare = measure_convolution_peak(device, dtype) if device.type == "cpu" else None
    matrix = max(matrix, measure_matrix_peak(device, dtype))
    crops = f"{recipe.batch} of {recipe.crop}x{recipe.crop} {recipe.crop_of.upper()}"
    return {
        "network": recipe.model,
        "device": str(device),
        "precision": precision,
        "crops": crops,
        "steps_timed": sum(map(len, times)),
        "ms_per_step": step * 1e3,
        "crops_per_second": recipe.batch / step,
        "gflop_per_step": flop / 1e9,
        "gflops": flop / step / 1e9,
        "peak_precision": peak_precision,
        "matrix_gflops": matrix / 1e9,
        "convolution_gflops": bare and bare / 1e9,
        "share_of_matrix": flop / step / matrix,
        "share_of_convolution": bare and flop / step / bare,
        "speed_up": alone and alone / step,
        "data_share": None if drawing is None else drawing / taken / step,
        "peak_memory_bytes": memory,
    }


def time_steps_at(
    scales: tuple[int, ...], trainer: Trainer, chosen: Namespace, turns: int
) -> list[float]:
    """Seconds of each step at these scales."""
    trainer.sampler.turn = scales  # type: ignore[attr-defined]
    time_steps(trainer, WARM_UP)
    count = chosen.steps
    if count is None:
        estimate = statistics.median(time_steps(trainer, 2))
        count = min(2000, max(3, round(chosen.seconds / turns / estimate)))
    return time_steps(trainer, count)


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
        with torch.no_grad(), MacCounter() as counter:
            if recipe.supervision == "final":
                twin(lr, scale)
            else:
                twin.predictions(lr, scale)
        total += 6 * crops * counter.macs
    return total


def format_rows(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Where and in what the networks ran, and the table."""
    first = rows[0]
    bare = first["convolution_gflops"]
    peaks = f"matrix product {first['matrix_gflops']:,.0f} GFLOP/s"
    if bare is not None:
        peaks += f", bare 3x3 convolution {bare:,.0f} GFLOP/s"
    yield (
        f"{name_machine(torch.device(first['device']))}; networks in "
        f"{first['precision']}; {first['peak_precision']} peaks: {peaks}."
    )
    formats = {
        "network": ("network", "{}"),
        "crops": ("crops", "{}"),
        "ms_per_step": ("ms/step", "{:.4g}"),
        "crops_per_second": ("crops/s", "{:.4g}"),
        "gflops": ("GFLOP/s", "{:,.0f}"),
        "share_of_matrix": ("of matrix peak", "{:.1%}"),
        "share_of_convolution": ("of bare 3x3", "{:.1%}"),
        "speed_up": ("by fast-cpu", "x{:.2f}"),
        "data_share": ("data", "{:.1%}"),
        "peak_memory_bytes": ("peak memory in bytes", "{:.3g}"),
    }
    cells = [
        ["" if row[key] is None else form.format(row[key]) for key, (_, form) in pairs]
        for row in rows
        for pairs in [formats.items()]
    ]
    yield "\n".join(format_table([name for name, _ in formats.values()], cells))
    yield ABOUT


def measure(chosen: Namespace) -> Iterator[str]:
    """All networks, of several each in a process of its own, for its own memory."""
    choose_device(chosen.device)
    # The time of a step does not depend on the learning rate, and no network gets out
    # of hand.
    overrides = {
        "recursions": [],
        "learning_rate": 1e-6,
        **parse_assignments(chosen.set),
    }
    recipes = [load_recipe(each, chosen.recipe, overrides) for each in chosen.model]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PICTURES):
            path = Path(folder, f"{number}.png")
            save_picture(path, PICTURE_SIDE, PICTURE_SIDE, number)
        work = partial(measure_network, chosen=chosen, folder=Path(folder))
        if len(recipes) == 1:
            rows = [work(recipes[0])]
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
                rows = list(pool.map(work, recipes))
    if chosen.json is not None:
        Path(chosen.json).write_text(json.dumps({"rows": rows}, indent=2), "utf-8")
    yield from format_rows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--model", nargs="+", metavar="NAME", default=list(MODELS), help="networks")
    add("--recipe", choices=NAMES, default="fast", help="whose crops, batch and loss")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--precision", default="auto", help="auto, bf16 or fp32")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe field")
    add("--steps", type=int, help="timed steps of each scale, instead of --seconds")
    add("--seconds", type=float, default=20.0, help="timed in all for each network")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    return run_benchmark(parser, arguments, measure)


if __name__ == "__main__":
    raise SystemExit(main())
