"""What `srcli upscale` costs beside its network: time, folders, thumbnails, memory.

    python benchmarks/command.py --model mrnet --sizes 1 4 9 24 --markdown table.md

Every command runs as a user would start it, in a process of its own, at x4, on pictures
that are made here: smooth noise.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from srcli.cli.console import configure, out
from srcli.errors import SrcliError
from srcli.evaluation.tables import format_table
from srcli.inference.device import choose_device, describe_machine
from srcli.writing import write_whole

log = logging.getLogger("srcli.benchmarks.command")

SCALE = 4
THUMBNAIL = 64  # px
RATIO, GRACE = 1.15, 2.0  # times the network, and seconds, that a command may take
_BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command took."""

    wall: float  # seconds, from its start to its end
    network: tuple[float, ...]  # seconds of enlarging, for each picture
    peak: int  # bytes of memory


class Bench:
    """Makes pictures in a folder and runs commands on them."""

    def __init__(self, folder: Path, chosen: argparse.Namespace) -> None:
        self.folder = folder
        where = ("--device", chosen.device, "--precision", chosen.precision)
        self._options = ("-m", chosen.model, "-x", str(SCALE), *where, "--json")
        self.chosen = chosen

    def make(self, name: str, width: int, height: int) -> Path:
        """A picture file of smooth noise, coarse and fine."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        generator = np.random.default_rng(len(name) + width)
        layers = []
        for grain in (32, 4):  # px
            shape = (height // grain + 1, width // grain + 1, 3)
            noise = Image.fromarray(generator.integers(0, 256, shape, np.uint8))
            layers.append(noise.resize((width, height), Image.Resampling.BICUBIC))
        Image.blend(layers[0], layers[1], 0.2).save(path)
        return path

    def make_megapixels(self, name: str, megapixels: float) -> Path:
        """A picture file of so many pixels, three wide to two high."""
        width = round((megapixels * 1.5e6) ** 0.5)
        return self.make(name, width, round(megapixels * 1e6 / width))

    def run(self, source: Path) -> Outcome:
        """Enlarge a file or folder by a command of its own.

        Raises:
            SrcliError: If the command fails.
        """
        # A name of its own, so that nothing is there already.
        target = tempfile.mkdtemp(dir=self.folder)
        command = [sys.executable, "-m", "srcli", "upscale", str(source)]
        command += ["-o", target, *self._options]
        with tempfile.TemporaryFile() as stdout:
            started = time.perf_counter()
            child = subprocess.Popen(command, stdout=stdout)
            # The peak counts this process's own until then, which is less by far.
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - started
            child.returncode = os.waitstatus_to_exitcode(status)
            stdout.seek(0)
            document = stdout.read()
        if child.returncode:
            raise SrcliError(f"{shlex.join(command)} failed")
        results = json.loads(document)["results"]
        peak = usage.ru_maxrss * _BYTES_PER_MAXRSS
        return Outcome(wall, tuple(row["seconds"] for row in results), peak)

    def start_up(self) -> float:
        """Seconds of a command without those of its network: hardly more than a start.

        The best of several, as the start of the first one also fills the file cache.
        """
        outcomes = [self.run(self.make("tiny.png", 16, 16)) for _ in range(3)]
        return min(outcome.wall - sum(outcome.network) for outcome in outcomes)


def measure_command(bench: Bench) -> list[str]:
    """One photograph: the whole command against the network alone."""
    megapixels = bench.chosen.megapixels
    outcome = bench.run(bench.make_megapixels("photo.jpg", megapixels))
    network = sum(outcome.network)
    cells = (
        f"{megapixels:g} MP JPEG",
        f"{outcome.wall:.2f} s",
        f"{network:.2f} s",
        f"{outcome.wall / network:.3f}",
        f"{outcome.wall - network:.2f} s",
        "yes" if outcome.wall <= RATIO * network + GRACE else "no",
    )
    within = f"at most {RATIO} x network + {GRACE:g} s"
    head = ("picture", "command", "network", "ratio", "rest", within)
    return format_table(head, [cells])


def measure_folder(bench: Bench) -> list[str]:
    """A folder: the share of the time after start-up in which the network computes."""
    count, megapixels = bench.chosen.pictures, bench.chosen.folder_megapixels
    for number in range(count):
        bench.make_megapixels(f"folder/{number}.jpg", megapixels)
    start_up = bench.start_up()
    outcome = bench.run(bench.folder / "folder")
    busy, batch = sum(outcome.network), outcome.wall - start_up
    cells = (
        f"{count} of {megapixels:g} MP",
        f"{start_up:.2f} s",
        f"{batch:.2f} s",
        f"{busy:.2f} s",
        f"{busy / batch:.1%}",
    )
    head = ("pictures", "start-up", "batch", "network", "network's share")
    return format_table(head, [cells])


def measure_thumbnails(bench: Bench) -> list[str]:
    """Thumbnails: all in one command against one command each."""
    count, alone = bench.chosen.thumbnails, bench.chosen.alone
    for number in range(count):
        path = bench.make(f"thumbnails/{number}.png", THUMBNAIL, THUMBNAIL)
    together = bench.run(path.parent)
    each = sum(bench.run(path).wall for _ in range(alone)) / alone
    cells = (
        f"{count} of {THUMBNAIL}x{THUMBNAIL}",
        f"{together.wall:.2f} s",
        f"{count / together.wall:.2f}/s",
        f"{each:.2f} s",
        f"{each * count / together.wall:.1f}",
        f"{sum(together.network) / together.wall:.1%}",
    )
    head = ("thumbnails", "one command", "rate", f"one alone (mean of {alone})")
    return format_table((*head, "times the rate", "network's share"), [cells])


def measure_sizes(bench: Bench) -> list[str]:
    """Several sizes: whether time and memory grow with the pixels."""
    rows, first = [], 0.0
    for megapixels in sorted(bench.chosen.sizes):
        path = bench.make_megapixels(f"{megapixels:g}.jpg", megapixels)
        with Image.open(path) as image:
            pixels = image.width * image.height
        outcome = bench.run(path)
        pace = sum(outcome.network) / pixels * 1e6
        first = first or pace
        output = pixels * SCALE**2 * 3
        rows.append(
            (
                f"{megapixels:g} MP",
                f"{outcome.wall:.2f} s",
                f"{pace:.2f} s",
                f"{pace / first:.3f}",
                f"{outcome.peak / 1e9:.2f} GB",
                f"{output / 1e9:.2f} GB",
                f"{(outcome.peak - output) / 1e9:.2f} GB",
            )
        )
    head = ("picture", "command", "network per MP", "to the smallest", "peak memory")
    return format_table((*head, "output", "beside it"), rows)


PARTS: dict[str, Callable[[Bench], list[str]]] = {
    "command": measure_command,
    "folder": measure_folder,
    "thumbnails": measure_thumbnails,
    "sizes": measure_sizes,
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure"
    )
    add("--model", default="mrnet", help="as `srcli upscale`; also a weight file")
    add("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps")
    add("--precision", default="auto", help="auto, bf16, fp16 or fp32")
    add("--megapixels", type=float, default=1.0, help="of the one photograph")
    add("--pictures", type=int, default=8, help="in the folder")
    add("--folder-megapixels", type=float, default=0.5, help="of each of them")
    add("--thumbnails", type=int, default=1000, help="in one command")
    add("--alone", type=int, default=3, help="commands of one thumbnail that are timed")
    add("--sizes", type=float, nargs="+", metavar="MP", default=[1.0, 4.0, 9.0, 24.0])
    add("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    chosen = parser.parse_args(arguments)
    counts = (chosen.pictures, chosen.thumbnails, chosen.alone)
    if min(counts) < 1 or min(chosen.megapixels, chosen.folder_megapixels) <= 0:
        parser.error("sizes and counts must be more than none")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show and write; the exit code."""
    chosen = _parse(arguments)
    configure(verbose=False, quiet=False)
    own = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/command.py", *own])
    try:
        machine = describe_machine(choose_device(chosen.device))
        name = machine.get("GPU", machine["CPU"])
        parts = [f"```\n{command}\n```", f"{name}; PyTorch {torch.__version__}."]
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), chosen)
            for part in chosen.parts:
                log.info("measuring: %s", part)
                measure = PARTS[part]
                parts += [f"{measure.__doc__}", "\n".join(measure(bench))]
        text = "\n\n".join(parts) + "\n"
        if chosen.markdown is not None:
            with write_whole(chosen.markdown) as path:
                path.write_text(text, "utf-8")
    except SrcliError as error:
        log.error("%s", error)
        return error.exit_code
    out.out(text, end="", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
