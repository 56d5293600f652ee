"""Ways to enlarge one picture by the same weights: PyTorch, other runtimes, srcli.

Every way takes (1, C, h, w) and returns (1, C, s*h, s*w), both float32 on the CPU.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from timing import draw_picture, read_peak_memory
from torch import Tensor

from srcli.imaging.resize import imresize_torch
from srcli.inference.device import DTYPES, Precision, choose_precision
from srcli.inference.runner import Runner
from srcli.models import winograd
from srcli.models.base import SRModel
from srcli.pretrained.loading import load_model

log = logging.getLogger("srcli.benchmarks.runtimes")

RUNTIMES = ("onnxruntime", "openvino")
EXPORTER = "onnxscript"  # what torch.onnx needs to write a file
PAUSE = 0.1  # seconds; until no thread of the last way spins in wait for more

Enlarge = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What every way enlarges, and by which weights."""

    network: str
    scale: int
    side: int  # LR pixels
    device: torch.device
    file: Path  # where the network lies as ONNX, for the other runtimes

    def load(self) -> SRModel:
        """The network with its bundled weights."""
        return load_model(self.network, self.scale).eval()

    def draw(self, channels: int) -> Tensor:
        """The LR picture, (1, channels, side, side) in [0, 1]."""
        whole = -(-self.side // 16) * 16
        pixels = draw_picture(np.random.default_rng(0), whole)
        picture = torch.from_numpy(pixels[: self.side, : self.side, :channels])
        return picture.permute(2, 0, 1)[None].contiguous() / 255


@dataclass(frozen=True, slots=True)
class Way:
    """One way to enlarge it."""

    label: str
    precision: Precision
    make: Callable[[Case, SRModel], Enlarge]
    library: str | None = None  # beside PyTorch

    @property
    def exported(self) -> bool:
        """Whether it runs the network as ONNX."""
        return self.library in RUNTIMES


def list_ways(device: torch.device) -> list[Way]:
    """The ways that this machine has; a line in the log tells what is left out."""
    fastest = choose_precision("auto", device)
    precisions: list[Precision] = ["fp32"] if fastest == "fp32" else ["fp32", fastest]
    if len(precisions) == 1:
        log.warning("half precision is left out: the hardware does not multiply in it")
    ways = [
        Way(f"PyTorch eager {each}", each, partial(make_eager, precision=each))
        for each in precisions
    ]
    srcli = [
        Way(f"srcli {each}", each, partial(make_srcli, precision=each), "numba")
        for each in precisions
    ]
    if device.type != "cpu":
        return [*ways, replace(srcli[-1], library=None)]
    runtimes = [Way("ONNX Runtime fp32", "fp32", make_onnxruntime, "onnxruntime")]
    for each in precisions:
        make = partial(make_openvino, precision=each)
        runtimes.append(Way(f"OpenVINO {each}", each, make, "openvino"))
    ways += filter(_is_installed, runtimes)
    for each in precisions:
        make = partial(make_srcli, precision=each, alone=True)
        ways.append(Way(f"srcli {each}, torch alone", each, make))
    if winograd.is_available():
        return ways + srcli
    log.warning("srcli's own kernels are left out: pip install 'srcli[fast-cpu]'")
    return ways


def _is_installed(way: Way) -> bool:
    if find_spec(str(way.library)) and find_spec(EXPORTER):
        return True
    log.warning("%s is left out: pip install 'srcli[runtimes]'", way.label)
    return False


def make_eager(case: Case, model: SRModel, precision: Precision) -> Enlarge:
    """The network as published code calls it; half precision by autocast."""
    network = copy.deepcopy(model).to(case.device)
    layout = torch.contiguous_format
    arithmetic: AbstractContextManager[object] = nullcontext()
    if precision != "fp32":
        layout = torch.channels_last
        network.to(memory_format=layout)  # type: ignore[call-overload]
        arithmetic = torch.autocast(case.device.type, DTYPES[precision])

    def enlarge(lr: Tensor) -> Tensor:
        with torch.inference_mode(), arithmetic:
            placed = lr.to(case.device, memory_format=layout)
            return network(placed, case.scale).float().cpu()

    return enlarge


def make_srcli(
    case: Case, model: SRModel, precision: Precision, *, alone: bool = False
) -> Enlarge:
    """The whole picture as `srcli upscale` does it; `alone`, without Winograd."""
    arithmetic = winograd.suspended if alone else nullcontext
    with arithmetic():
        runner = Runner(
            model, case.scale, device=str(case.device), precision=precision, tile=0
        )

    def enlarge(lr: Tensor) -> Tensor:
        with arithmetic():
            return runner.enlarge(lr[0])[None]

    return enlarge


def make_onnxruntime(case: Case, _model: SRModel) -> Enlarge:
    """The exported network."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(
        case.file, options, providers=["CPUExecutionProvider"]
    )

    def enlarge(lr: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"lr": lr.numpy()})[0])

    return enlarge


def make_openvino(case: Case, _model: SRModel, precision: Precision) -> Enlarge:
    """The exported network."""
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = import_module("openvino").Core()
    compiled = core.compile_model(core.read_model(case.file), "CPU", options)

    def enlarge(lr: Tensor) -> Tensor:
        return torch.from_numpy(compiled(lr.numpy())[0])

    return enlarge


def export_network(case: Case, model: SRModel, lr: Tensor) -> None:
    """Write the network as ONNX, for pictures of the size of `lr` alone.

    The runtimes optimise it themselves; PyTorch's own pass over it only takes time.
    """
    logging.disable(logging.WARNING)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The bicubic's matrices are kept for later calls: made during the export,
            # they would hold no values.
            imresize_torch(lr, case.scale)
            torch.onnx.export(
                model,
                (lr, case.scale),
                case.file,
                dynamo=True,
                optimize=False,
                external_data=False,
                verbose=False,
            )
    finally:
        logging.disable(logging.NOTSET)


def time_ways(ways: Mapping[str, Enlarge], lr: Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of each way; every round times every way once."""
    seconds: dict[str, list[float]] = {label: [] for label in ways}
    for _ in range(rounds):
        for label, enlarge in ways.items():
            time.sleep(PAUSE)
            begun = time.perf_counter()
            enlarge(lr)
            seconds[label].append(time.perf_counter() - begun)
    return {label: statistics.median(each) for label, each in seconds.items()}


def measure_memory(case: Case, way: Way) -> int | None:
    """Bytes that a way needs at most; meant for a process that does nothing else.

    Counted from where the libraries and the weights are loaded. What a way makes of the
    weights counts, since some make nothing and some a lot.
    """
    model = case.load()
    lr = case.draw(model.channels)
    if way.library is not None:
        import_module(way.library)
    _restart_peak(case.device)
    before = read_peak_memory(case.device)
    enlarge = way.make(case, model)
    for _ in range(2):
        enlarge(lr)
    after = read_peak_memory(case.device)
    return None if before is None or after is None else after - before


def _restart_peak(device: torch.device) -> None:
    """Let the peak memory be what is in use now, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.init()  # before it, there is nothing to reset
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
