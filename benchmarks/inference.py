"""How fast a picture is enlarged here: srcli beside PyTorch and other runtimes.

    python benchmarks/inference.py --model mrnet drcn --memory --json figures.json

Every way enlarges the same picture of noise by the same bundled weights. The ways take
turns, so that whatever else the machine does hits them all; only their ratios count.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import typer
from runtimes import (
    Case,
    Enlarge,
    Way,
    export_network,
    list_ways,
    measure_memory,
    time_ways,
)
from timing import measure_convolution_peak

from srcli.cli.console import configure, progress_bar
from srcli.errors import SrcliError, unknown
from srcli.evaluation.tables import format_table
from srcli.inference.device import (
    DTYPES,
    Precision,
    choose_device,
    describe_machine,
)
from srcli.models.counting import count_macs
from srcli.writing import write_whole

log = logging.getLogger("srcli.benchmarks.inference")

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
_ABOUT = (
    "Time: median of interleaved rounds. FLOP: two for each multiply-accumulate of the "
    "published network's learned layers; ways that need fewer can be above the peak, "
    "which is the fastest bare 3x3 convolution of that precision in the same run. "
    "Memory: the most that a process of its own needs beside the libraries and the "
    "weights as loaded. Difference: the largest from the network in fp32 on the CPU, "
    "in grey levels (0 to 255). On CUDA, fp32 convolutions of eager PyTorch are TF32, "
    "its default."
)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--model", nargs="+", metavar="NAME", default=list(NETWORKS), help="networks")
    add("--device", default="cpu", help="cpu, cuda, cuda:N, mps or auto")
    add("--side", type=int, help="LR pixels a side, instead of each network's own")
    add("--rounds", type=int, default=5, help="timed calls of each way")
    add("--memory", action="store_true", help="measure the peak memory, too")
    add("--json", type=Path, metavar="FILE", help="write all figures there")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1:
        parser.error("--rounds must be at least 1")
    if chosen.side is not None and chosen.side < 1:
        parser.error("--side must be at least 1")
    return chosen


def _list_cases(
    chosen: argparse.Namespace, device: torch.device, folder: Path
) -> Iterator[Case]:
    for network in chosen.model:
        if network not in NETWORKS:
            raise unknown("network", network, NETWORKS)
        scale, side = NETWORKS[network]
        yield Case(
            network=network,
            scale=scale,
            side=chosen.side or side,
            device=device,
            file=folder / f"{network}.onnx",
        )


def _measure_peaks(device: torch.device, ways: Sequence[Way]) -> dict[Precision, float]:
    """GFLOP/s of bare convolutions by precision."""
    return {
        each: measure_convolution_peak(device, DTYPES[each]) / 1e9
        for each in dict.fromkeys(way.precision for way in ways)
    }


def _measure(
    case: Case, ways: Sequence[Way], rounds: int, with_memory: bool
) -> dict[str, Any]:
    """The figures of one network.

    Raises:
        SrcliError: If another runtime computes something else.
    """
    model = case.load()
    lr = case.draw(model.channels)
    with torch.inference_mode():
        exact = model(lr, case.scale)
    if any(way.exported for way in ways):
        export_network(case, model, lr)
    made: dict[str, Enlarge] = {}
    differences: list[float] = []
    for way in ways:
        made[way.label] = way.make(case, model)
        sr = made[way.label](lr)  # the warm-up
        differences.append(float((sr - exact).abs().max()) * 255)
        if way.exported and way.precision == "fp32" and differences[-1] > SAME:
            raise SrcliError(f"{way.label} does not compute what {case.network} does")
    seconds = time_ways(made, lr, rounds)
    made.clear()  # the processes below need the memory
    best = min(each for label, each in seconds.items() if label.startswith("srcli"))
    gflop = 2 * count_macs(model, case.scale, *exact.shape[2:]) / 1e9
    return {
        "network": case.network,
        "scale": case.scale,
        "side": case.side,
        "gflop": gflop,
        "ways": [
            {
                "way": way.label,
                "precision": way.precision,
                "ms": seconds[way.label] * 1e3,
                "relative_time": seconds[way.label] / best,
                "gflops": gflop / seconds[way.label],
                "memory_bytes": _measure_memory(case, way) if with_memory else None,
                "difference": difference,
            }
            for way, difference in zip(ways, differences, strict=True)
        ],
    }


def _measure_memory(case: Case, way: Way) -> int | None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measure_memory, case, way).result()


def _format_network(
    network: dict[str, Any], peaks: dict[Precision, float], absolute: bool
) -> Iterator[str]:
    """The lines of a network's heading and table; `absolute` shows milliseconds."""
    lr, sr = network["side"], network["side"] * network["scale"]
    yield (
        f"### {network['network']} x{network['scale']}, {lr}x{lr} to {sr}x{sr}, "
        f"{network['gflop']:,.1f} GFLOP\n"
    )
    head = ["way", "time", "GFLOP/s", "of peak", "peak memory", "difference"]
    rows = []
    for way in network["ways"]:
        memory = way["memory_bytes"]
        cells = (
            way["way"],
            f"{way['ms']:.3g} ms" if absolute else f"x {way['relative_time']:.2f}",
            f"{way['gflops']:,.0f}",
            f"{way['gflops'] / peaks[way['precision']]:.0%}",
            "" if memory is None else f"{memory / 1e6:,.0f} MB",
            f"{way['difference']:.2f}",
        )
        rows.append(cells)
    yield from format_table(head, rows)
    yield ""


def _format_markdown(document: dict[str, Any], absolute: bool) -> str:
    machine, peaks = document["machine"], document["peak_gflops"]
    libraries = {"PyTorch": machine["PyTorch"], **document["libraries"]}
    named = ", ".join(" ".join(each) for each in libraries.items())
    bare = " and ".join(f"{rate:,.0f} in {each}" for each, rate in peaks.items())
    lines = [
        f"```\n{document['command']}\n```\n",
        f"{machine.get('GPU', machine['CPU'])}; {named}; "
        f"GFLOP/s of a bare 3x3 convolution: {bare}.\n",
    ]
    for network in document["networks"]:
        lines += _format_network(network, peaks, absolute)
    return "\n".join([*lines, _ABOUT])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show and write; the exit code."""
    chosen = _parse(arguments)
    configure(verbose=False, quiet=False)
    own = sys.argv[1:] if arguments is None else arguments
    try:
        device = choose_device(chosen.device)
        with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
            cases = list(_list_cases(chosen, device, Path(folder)))
            ways = list_ways(device)
            progress.start("Timing networks", len(cases))
            before = _measure_peaks(device, ways)
            networks = []
            for case in cases:
                networks.append(_measure(case, ways, chosen.rounds, chosen.memory))
                progress.advance()
            after = _measure_peaks(device, ways)
        document = {
            "command": shlex.join(["python", "benchmarks/inference.py", *own]),
            "machine": describe_machine(device),
            "libraries": {w.library: version(w.library) for w in ways if w.library},
            "peak_gflops": {each: max(before[each], after[each]) for each in before},
            "networks": networks,
        }
        typer.echo(_format_markdown(document, device.type != "cpu"))
        if chosen.json is not None:
            with write_whole(chosen.json) as part:
                text = json.dumps(document, indent=2, allow_nan=False)
                part.write_text(f"{text}\n", "utf-8")
    except SrcliError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
