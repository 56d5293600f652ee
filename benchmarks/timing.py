"""What the benchmarks share: pictures of noise, the chip's peaks, a run's frame."""

from __future__ import annotations

import logging
import re
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from srcli.cli.console import configure, out
from srcli.errors import SrcliError
from srcli.inference.device import describe_machine

log = logging.getLogger("srcli.benchmarks")

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
CONVOLUTIONS = (64, 128, 256)  # channels; on crops of 48x48
CROPS = {"cpu": 8, "cuda": 256, "mps": 64}
REPEATS = 10  # of which the best counts, for the peaks


def run_benchmark(
    parser: ArgumentParser,
    arguments: Sequence[str] | None,
    measure: Callable[[Namespace], Iterable[str]],
) -> int:
    """Measure as the arguments say, and print Markdown below the command; exit code."""
    chosen = parser.parse_args(arguments)
    configure(verbose=False, quiet=False)
    own = sys.argv[1:] if arguments is None else arguments
    try:
        text = "\n\n".join(measure(chosen))
    except SrcliError as error:
        log.error("%s", error)
        return error.exit_code
    command = shlex.join(["python", f"benchmarks/{parser.prog}", *own])
    out.out(f"```\n{command}\n```\n\n{text}", highlight=False)
    return 0


def make_parser(file: str, doc: str | None) -> ArgumentParser:
    """A parser for one of these scripts, described by its first line."""
    return ArgumentParser(Path(file).name, description=(doc or "").partition("\n")[0])


def name_machine(device: torch.device) -> str:
    """The chip and PyTorch's version."""
    machine = describe_machine(device)
    return f"{machine.get('GPU', machine['CPU'])}; PyTorch {machine['PyTorch']}"


def draw_picture(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth noise, coarse and fine, (height, width, 3)."""
    generator = np.random.default_rng(seed)
    layers = []
    for grain in (32, 4):  # px
        shape = (height // grain + 1, width // grain + 1, 3)
        noise = Image.fromarray(generator.integers(0, 256, shape, np.uint8))
        layers.append(noise.resize((width, height), Image.Resampling.BICUBIC))
    return np.asarray(Image.blend(layers[0], layers[1], 0.2))


def save_picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """A file of `draw_picture`."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(draw_picture(width, height, seed)).save(path)
    return path


def measure_matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the product of two large matrices."""
    side = MATRIX_SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _time_best(device, partial(torch.mm, matrix, matrix))


def measure_convolution_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest bare 3x3 convolution, channels last."""
    rates = []
    layout = torch.channels_last
    for width in CONVOLUTIONS:
        layer = nn.Conv2d(width, width, 3, padding=1, device=device, dtype=dtype)
        layer = layer.to(memory_format=layout)  # type: ignore[call-overload]
        shape = CROPS[device.type], width, 48, 48
        crops = torch.randn(shape, device=device, dtype=dtype).to(memory_format=layout)
        flop = 2 * crops.numel() * width * 9
        rates.append(flop / _time_best(device, partial(layer, crops)))
    return max(rates)


def _time_best(device: torch.device, work: Callable[[], Tensor]) -> float:
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
