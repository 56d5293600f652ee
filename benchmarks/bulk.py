"""What `--engine ray` costs beside the local engine, and how it grows with workers.

    python benchmarks/bulk.py --model mrnet --scale 4 --side 512 --pictures 8 --rounds 2

Every command runs as a user would start it, on pictures that are made here: smooth
noise. Rates are those between the first and the last result: what a command takes to
begin and to end is told by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from srcli.cli.console import configure, out
from srcli.evaluation.tables import format_table
from srcli.inference.device import describe_machine
from srcli.writing import write_whole

log = logging.getLogger("srcli.benchmarks.bulk")

_LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command took."""

    seconds: float  # from its start to its end
    between: float  # seconds from the first result to the last
    results: int
    pixels: int  # of one result

    @property
    def rate(self) -> float:
        """Pictures a second once they come."""
        return (self.results - 1) / self.between

    @property
    def fixed(self) -> float:
        """Seconds that do not grow with the number of pictures."""
        return self.seconds - self.results / self.rate


def make_pictures(folder: Path, chosen: argparse.Namespace) -> None:
    """Square picture files of smooth noise, coarse and fine."""
    generator = np.random.default_rng(0)
    size = (chosen.side, chosen.side)
    for number in range(chosen.pictures):
        layers = []
        for grain in (32, 4):  # px
            shape = (chosen.side // grain + 1, chosen.side // grain + 1, 3)
            noise = Image.fromarray(generator.integers(0, 256, shape, np.uint8))
            layers.append(noise.resize(size, Image.Resampling.BICUBIC))
        Image.blend(layers[0], layers[1], 0.2).save(folder / f"{number:05}.jpg")


def time_command(source: Path, way: str, chosen: argparse.Namespace) -> Outcome:
    """Enlarge the folder by a command of its own, its results told as they come.

    Args:
        source: The folder.
        way: "local", or how many workers Ray has.
        chosen: The options.
    """
    engine = ["--engine", "ray", "--workers", way] if way != _LOCAL else []
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [
            *(sys.executable, "-m", "srcli", "-q", "upscale", str(source)),
            *("-o", f"{folder}/", "-m", chosen.model, "-x", str(chosen.scale)),
            *("--json-lines", "--device", "cpu", *engine),
        ]
        # The same threads for the same work: as many as Ray has workers.
        threads = {"OMP_NUM_THREADS": str(chosen.threads)} if way == _LOCAL else {}
        started = time.monotonic()
        moments, pixels = [], 0
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, **threads}
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                moments.append(time.monotonic())
                record = json.loads(line)
                pixels = record["width"] * record["height"]
        seconds = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return Outcome(seconds, moments[-1] - moments[0], len(moments), pixels)


def tabulate(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """The medians of all rounds, and how they compare."""
    rows = []
    rates = {way: median(o.rate for o in each) for way, each in outcomes.items()}
    for way, each in outcomes.items():
        name = way if way == _LOCAL else f"Ray, {way} worker{'s' * (way != '1')}"
        rate, pixels = rates[way], each[0].pixels
        rows.append(
            (
                name,
                f"{rate:.3f}",
                f"{1 / rate:.2f}",
                f"{1e6 / rate / pixels:.3f}",
                f"{median(o.fixed for o in each):.1f}",
                f"{rate / rates[_LOCAL]:.2f}" if _LOCAL in rates else "",
                f"{rate / rates['1']:.2f}" if "1" in rates else "",
            )
        )
    titles = (
        "engine", "pictures/s", "s/picture", "s/MP of result", "fixed s",
        "of local", "of one worker",
    )  # fmt: skip
    return "\n".join(format_table(titles, rows))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mrnet")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=512, help="px of a picture")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ways", nargs="+", default=[_LOCAL, "1", "2"])
    parser.add_argument("--markdown", type=Path, help="also write the table there")
    chosen = parser.parse_args()
    configure(verbose=False, quiet=False)
    outcomes: dict[str, list[Outcome]] = {way: [] for way in chosen.ways}
    with tempfile.TemporaryDirectory(prefix="srcli-bulk-") as folder:
        source = Path(folder, "in")
        source.mkdir()
        make_pictures(source, chosen)
        for number in range(chosen.rounds):
            for way in chosen.ways:
                outcomes[way].append(time_command(source, way, chosen))
                last = outcomes[way][-1]
                log.info("round %d, %s: %.3f/s", number + 1, way, last.rate)
    text = (
        f"{describe_machine(torch.device('cpu'))['CPU']}; "
        f"{chosen.model} x{chosen.scale}, "
        f"{chosen.pictures} pictures of {chosen.side}x{chosen.side}\n\n"
        f"{tabulate(outcomes)}\n"
    )
    out.print(text, markup=False, highlight=False)
    if chosen.markdown:
        with write_whole(chosen.markdown) as part:
            part.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
