"""What `--engine ray` costs beside the local engine, and how it grows with workers.

    python benchmarks/bulk.py --model mrnet --scale 4 --side 512 --pictures 8 --rounds 2

Every command runs as a user would start it, on pictures that are made here. Rates are
those between the first and the last result: what a command takes to begin and to end
is told by itself.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from timing import log, make_parser, name_machine, run_benchmark, save_picture

from srcli.errors import SrcliError
from srcli.evaluation.tables import format_table


def time_command(source: Path, way: str, chosen: Namespace) -> tuple[float, float, int]:
    """Pictures a second, seconds for beginning and end, and pixels of a result.

    Raises:
        SrcliError: If the command fails.
    """
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [
            *(sys.executable, "-m", "srcli", "-q", "upscale", str(source)),
            *("-o", f"{folder}/", "-m", chosen.model, "-x", str(chosen.scale)),
            *("--json-lines", "--device", "cpu"),
        ]
        environment = dict(os.environ)
        if way == "local":  # the same threads for the same work as Ray's workers
            environment["OMP_NUM_THREADS"] = str(chosen.threads)
        else:
            command += ["--engine", "ray", "--workers", way]
        started = time.monotonic()
        moments, pixels = [], 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                moments.append(time.monotonic())
                record = json.loads(line)
                pixels = record["width"] * record["height"]
        seconds = time.monotonic() - started
    if process.returncode:
        raise SrcliError(f"{shlex.join(command)} failed")
    rate = (len(moments) - 1) / (moments[-1] - moments[0])
    return rate, seconds - len(moments) / rate, pixels


def measure(chosen: Namespace) -> Iterator[str]:
    """Every way, in turns: the medians of all rounds, and how they compare."""
    found: dict[str, list[tuple[float, float, int]]] = {way: [] for way in chosen.ways}
    with tempfile.TemporaryDirectory(prefix="srcli-bulk-") as folder:
        source = Path(folder, "in")
        for number in range(chosen.pictures):
            save_picture(source / f"{number:05}.jpg", chosen.side, chosen.side, number)
        for number in range(chosen.rounds):
            for way, each in found.items():
                each.append(time_command(source, way, chosen))
                log.info("round %d, %s: %.3f/s", number + 1, way, each[-1][0])
    rates = {way: median(rate for rate, _, _ in each) for way, each in found.items()}
    rows = []
    for way, each in found.items():
        rate = rates[way]
        cells = [
            way if way == "local" else f"Ray, {way} worker{'s' * (way != '1')}",
            f"{rate:.3f}",
            f"{1 / rate:.2f}",
            f"{1e6 / rate / each[0][2]:.3f}",
            f"{median(fixed for _, fixed, _ in each):.1f}",
        ]
        beside = (
            f"{rate / rates[b]:.2f}" if b in rates else "" for b in ("local", "1")
        )
        rows.append([*cells, *beside])
    head = ["engine", "pictures/s", "s/picture", "s/MP of result", "fixed s"]
    size = f"{chosen.pictures} pictures of {chosen.side}x{chosen.side}"
    yield f"{name_machine(torch.device('cpu'))}; {chosen.model} x{chosen.scale}, {size}"
    yield "\n".join(format_table([*head, "of local", "of one worker"], rows))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = make_parser(__file__, __doc__)
    parser.add_argument("--model", default="mrnet")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=512, help="px of a picture")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", nargs="+", default=["local", "1", "2"])
    return run_benchmark(parser, arguments, measure)


if __name__ == "__main__":
    raise SystemExit(main())
