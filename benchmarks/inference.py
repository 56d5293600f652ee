"""How fast a picture is enlarged here: srcli beside PyTorch and other runtimes.

    python benchmarks/inference.py --model mrnet drcn --memory --json figures.json

Every way enlarges the same picture of noise by the same bundled weights. The ways take
turns, so that whatever else the machine does hits them all; only their ratios count.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import statistics
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from timing import (
    draw_picture,
    log,
    make_parser,
    measure_convolution_peak,
    name_machine,
    read_peak_memory,
    run_benchmark,
)
from torch import Tensor

from srcli.errors import SrcliError, unknown
from srcli.evaluation.tables import format_table
from srcli.imaging.resize import imresize_torch
from srcli.inference.device import (
    DTYPES,
    Precision,
    choose_device,
    choose_precision,
    describe_machine,
)
from srcli.inference.runner import Runner
from srcli.models import winograd
from srcli.models.base import SRModel
from srcli.models.counting import count_macs
from srcli.pretrained.loading import load_model
from srcli.writing import write_whole

# Scale, and LR pixels a side: 288x288 after it where networks work at HR size, as the
# papers time them, and more where they work at LR size, which keeps them less busy.
NETWORKS = {
    "mrnet": (4, 192),
    "drrn": (3, 96),
    "drrn-b1u9": (3, 96),
    "dsrn": (4, 72),
    "drcn": (3, 96),
    "rrrn": (4, 64),
}
SAME = 0.5  # grey levels; an exported network further away is another one
PAUSE = 0.1  # seconds; until no thread of the last way spins in wait for more
ABOUT = (
    "Time: median of interleaved rounds. FLOP: two for each multiply-accumulate of the "
    "published network's learned layers; ways that need fewer can be above the peak, "
    "which is the fastest bare 3x3 convolution of that precision in the same run. "
    "Memory: the most that a process of its own needs beside the libraries and the "
    "weights as loaded. Difference: the largest from the network in fp32 on the CPU, "
    "in grey levels (0 to 255). On CUDA, fp32 convolutions of eager PyTorch are TF32, "
    "its default."
)

Enlarge = Callable[[Tensor], Tensor]  # (1, C, h, w) to (1, C, s*h, s*w) on the CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What every way enlarges, and by which weights."""

    network: str
    scale: int
    side: int  # LR pixels
    device: torch.device
    file: Path  # where the network lies as ONNX, for the other runtimes

    def load(self) -> tuple[SRModel, Tensor]:
        """The network with its bundled weights, and the picture, in [0, 1]."""
        model = load_model(self.network, self.scale).eval()
        model.limit_recursions(None)  # the paper's network, where the weights run less
        pixels = torch.from_numpy(draw_picture(self.side, self.side).copy())
        lr = pixels[:, :, : model.channels].permute(2, 0, 1)[None] / 255
        return model, lr.contiguous()


@dataclass(frozen=True, slots=True)
class Way:
    """One way to enlarge it."""

    label: str
    precision: Precision
    make: Callable[..., Enlarge]  # of a case, a network and a precision
    library: str | None = None  # beside PyTorch

    @property
    def exported(self) -> bool:
        """Whether it runs the network as ONNX."""
        return self.library in ("onnxruntime", "openvino")


def list_ways(device: torch.device) -> list[Way]:
    """The ways that this machine has; a line in the log tells what is left out."""
    precisions = list(dict.fromkeys(("fp32", choose_precision("auto", device))))
    ways = [Way(f"PyTorch eager {each}", each, make_eager) for each in precisions]
    if device.type != "cpu":
        return [*ways, Way(f"srcli {precisions[-1]}", precisions[-1], make_srcli)]
    if find_spec("onnxruntime") and find_spec("openvino") and find_spec("onnxscript"):
        ways.append(Way("ONNX Runtime fp32", "fp32", make_onnxruntime, "onnxruntime"))
        for each in precisions:
            ways.append(Way(f"OpenVINO {each}", each, make_openvino, "openvino"))
    else:
        log.warning("other runtimes are left out: pip install 'srcli[runtimes]'")
    alone = partial(make_srcli, alone=True)
    ways += [Way(f"srcli {each}, torch alone", each, alone) for each in precisions]
    if winograd.is_available():
        return ways + [
            Way(f"srcli {each}", each, make_srcli, "numba") for each in precisions
        ]
    log.warning("srcli's own kernels are left out: pip install 'srcli[fast-cpu]'")
    return ways


def make_eager(case: Case, model: SRModel, precision: Precision) -> Enlarge:
    """The network as published code calls it; half precision by autocast."""
    network = model.to(case.device)
    half = precision != "fp32"
    layout = torch.channels_last if half else torch.contiguous_format
    network.to(memory_format=layout)  # type: ignore[call-overload]

    def enlarge(lr: Tensor) -> Tensor:
        arithmetic = torch.autocast(case.device.type, DTYPES[precision], enabled=half)
        with torch.inference_mode(), arithmetic:
            placed = lr.to(case.device, memory_format=layout)
            return network(placed, case.scale).float().cpu()

    return enlarge


def make_srcli(
    case: Case, model: SRModel, precision: Precision, *, alone: bool = False
) -> Enlarge:
    """The whole picture as `srcli upscale` does it; `alone`, without Winograd."""
    arithmetic = winograd.suspended if alone else nullcontext
    options: Any = {"device": str(case.device), "precision": precision, "tile": 0}
    with arithmetic():
        runner = Runner(model, case.scale, **options)

    def enlarge(lr: Tensor) -> Tensor:
        with arithmetic():
            return runner.enlarge(lr[0])[None]

    return enlarge


def make_onnxruntime(case: Case, _model: SRModel, _precision: Precision) -> Enlarge:
    """The exported network."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    where = {"providers": ["CPUExecutionProvider"]}
    session = runtime.InferenceSession(case.file, options, **where)
    return lambda lr: torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0])


def make_openvino(case: Case, _model: SRModel, precision: Precision) -> Enlarge:
    """The exported network."""
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = import_module("openvino").Core()
    compiled = core.compile_model(core.read_model(case.file), "CPU", options)
    return lambda lr: torch.from_numpy(compiled(lr.numpy())[0])


def export_network(case: Case, model: SRModel, lr: Tensor) -> None:
    """Write the network as ONNX, for pictures of the size of `lr` alone.

    The runtimes optimise it themselves; PyTorch's own pass over it only takes time.
    """
    logging.disable(logging.WARNING)
    options: Any = {"dynamo": True, "optimize": False, "external_data": False}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The bicubic's matrices are kept for later calls: made during the export,
            # they would hold no values.
            imresize_torch(lr, case.scale)
            torch.onnx.export(model, (lr, case.scale), case.file, **options)
    finally:
        logging.disable(logging.NOTSET)


def measure_memory(case: Case, way: Way) -> int | None:
    """Bytes that a way needs at most; meant for a process that does nothing else.

    Counted from where the libraries and the weights are loaded. What a way makes of the
    weights counts, since some make nothing and some a lot.
    """
    model, lr = case.load()
    if way.library is not None:
        import_module(way.library)
    if case.device.type == "cuda":
        torch.cuda.init()  # before it, there is nothing to reset
        torch.cuda.reset_peak_memory_stats(case.device)
    else:
        with suppress(OSError):  # the peak begins at what is in use now
            Path("/proc/self/clear_refs").write_text("5", "utf-8")
    before = read_peak_memory(case.device)
    enlarge = way.make(case, model, way.precision)
    for _ in range(2):
        enlarge(lr)
    after = read_peak_memory(case.device)
    return None if before is None or after is None else after - before


def measure_network(
    case: Case, ways: Sequence[Way], chosen: Namespace
) -> dict[str, Any]:
    """The figures of one network.

    Raises:
        SrcliError: If another runtime computes something else.
    """
    model, lr = case.load()
    with torch.inference_mode():
        exact = model(lr, case.scale)
    if any(way.exported for way in ways):
        export_network(case, model, lr)
    made, differences = [], []
    for way in ways:
        made.append(way.make(case, case.load()[0], way.precision))
        sr = made[-1](lr)  # the warm-up
        differences.append(float((sr - exact).abs().max()) * 255)
        if way.exported and way.precision == "fp32" and differences[-1] > SAME:
            raise SrcliError(f"{way.label} does not compute what {case.network} does")
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(chosen.rounds):
        for enlarge, each in zip(made, times, strict=True):
            time.sleep(PAUSE)
            begun = time.perf_counter()
            enlarge(lr)
            each.append(time.perf_counter() - begun)
    made.clear()  # the processes below need the memory
    memory: list[int | None] = [None for _ in ways]
    if chosen.memory:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as pool:
            memory = list(pool.map(partial(measure_memory, case), ways))
    seconds = [statistics.median(each) for each in times]
    named = zip(ways, seconds, strict=True)
    best = min(each for way, each in named if way.label.startswith("srcli"))
    gflop = 2 * count_macs(model, case.scale, *exact.shape[2:]) / 1e9
    rows = zip(ways, seconds, memory, differences, strict=True)
    return {
        "network": case.network,
        "scale": case.scale,
        "side": case.side,
        "gflop": gflop,
        "ways": [
            {
                "way": way.label,
                "precision": way.precision,
                "ms": taken * 1e3,
                "relative_time": taken / best,
                "gflops": gflop / taken,
                "memory_bytes": need,
                "difference": difference,
            }
            for way, taken, need, difference in rows
        ],
    }


def format_network(
    network: dict[str, Any], peaks: dict[Precision, float], absolute: bool
) -> str:
    """A network's heading and table; `absolute` shows milliseconds."""
    lr, sr = network["side"], network["side"] * network["scale"]
    head = ["way", "time", "GFLOP/s", "of peak", "peak memory", "difference"]
    rows = []
    for way in network["ways"]:
        memory = way["memory_bytes"]
        rows.append((
            way["way"],
            f"{way['ms']:.3g} ms" if absolute else f"x {way['relative_time']:.2f}",
            f"{way['gflops']:,.0f}",
            f"{way['gflops'] / peaks[way['precision']]:.0%}",
            "" if memory is None else f"{memory / 1e6:,.0f} MB",
            f"{way['difference']:.2f}",
        ))  # fmt: skip
    title = f"### {network['network']} x{network['scale']}, {lr}x{lr} to {sr}x{sr}, "
    table = "\n".join(format_table(head, rows))
    return f"{title}{network['gflop']:,.1f} GFLOP\n\n{table}"


def measure(chosen: Namespace) -> Iterator[str]:
    """All networks, each a heading and a table."""
    for name in chosen.model:
        if name not in NETWORKS:
            raise unknown("network", name, NETWORKS)
    device = choose_device(chosen.device)
    ways = list_ways(device)
    peaks: dict[Precision, float] = {}
    networks = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (*chosen.model, None):  # the peaks also at the end
            for each in dict.fromkeys(way.precision for way in ways):
                peak = measure_convolution_peak(device, DTYPES[each]) / 1e9
                peaks[each] = max(peaks.get(each, 0.0), peak)
            if name is not None:
                scale, side = NETWORKS[name]
                case = Case(
                    network=name,
                    scale=scale,
                    side=chosen.side or side,
                    device=device,
                    file=Path(folder, f"{name}.onnx"),
                )
                log.info("timing %s", name)
                networks.append(measure_network(case, ways, chosen))
    libraries = {way.library: version(way.library) for way in ways if way.library}
    if chosen.json is not None:
        document = {
            "machine": describe_machine(device),
            "libraries": libraries,
            "peak_gflops": peaks,
            "networks": networks,
        }
        text = json.dumps(document, indent=2, allow_nan=False)
        with write_whole(chosen.json) as part:
            part.write_text(f"{text}\n", "utf-8")
    named = ", ".join([name_machine(device), *map(" ".join, libraries.items())])
    bare = " and ".join(f"{rate:,.0f} in {each}" for each, rate in peaks.items())
    yield f"{named}; GFLOP/s of a bare 3x3 convolution: {bare}."
    for network in networks:
        yield format_network(network, peaks, device.type != "cpu")
    yield ABOUT


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; the exit code."""
    parser = make_parser(__file__, __doc__)
    add = parser.add_argument
    add("--model", nargs="+", metavar="NAME", default=list(NETWORKS), help="networks")
    add("--device", default="cpu", help="cpu, cuda, cuda:N, mps or auto")
    add("--side", type=int, help="LR pixels a side, instead of each network's own")
    add("--rounds", type=int, default=5, help="timed calls of each way")
    add("--memory", action="store_true", help="measure the peak memory, too")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    return run_benchmark(parser, arguments, measure)


if __name__ == "__main__":
    raise SystemExit(main())
