"""What `srcli upscale` costs beside its network: time, folders, thumbnails, memory.

    python benchmarks/command.py --model mrnet --sizes 1 4 9 24

Every command runs as a user would start it, in a process of its own, at x4, on pictures
that are made here.
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
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from timing import log, make_parser, name_machine, run_benchmark, save_picture

from srcli.errors import SrcliError
from srcli.evaluation.tables import format_table
from srcli.inference.device import choose_device

SCALE = 4
THUMBNAIL = 64  # px
RATIO, GRACE = 1.15, 2.0  # times the network, and seconds, that a command may take
_BYTES_PER_MAXRSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one command took."""

    wall: float  # seconds, from its start to its end
    network: float  # seconds of enlarging, of all pictures
    peak: int  # bytes of memory


class Bench:
    """Makes pictures in a folder and runs commands on them."""

    def __init__(self, folder: Path, chosen: Namespace) -> None:
        self.folder, self.chosen = folder, chosen

    def make(self, name: str, megapixels: float) -> Path:
        """A picture file of so many pixels, three wide to two high."""
        width = round((megapixels * 1.5e6) ** 0.5)
        return save_picture(self.folder / name, width, round(megapixels * 1e6 / width))

    def run(self, source: Path) -> Outcome:
        """Enlarge a file or folder by a command of its own.

        Raises:
            SrcliError: If the command fails.
        """
        # A name of its own, so that nothing is there already.
        target = tempfile.mkdtemp(dir=self.folder)
        chosen = self.chosen
        command = [
            *(sys.executable, "-m", "srcli", "upscale", str(source), "-o", target),
            *("-m", chosen.model, "-x", str(SCALE), "--device", chosen.device),
            *("--precision", chosen.precision, "--json"),
        ]
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
        network = sum(row["seconds"] for row in json.loads(document)["results"])
        return Outcome(wall, network, usage.ru_maxrss * _BYTES_PER_MAXRSS)


def measure_command(bench: Bench) -> list[str]:
    """One photograph: the whole command against the network alone."""
    megapixels = bench.chosen.megapixels
    outcome = bench.run(bench.make("photo.jpg", megapixels))
    network = outcome.network
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
        bench.make(f"folder/{number}.jpg", megapixels)
    # The start of the first command also fills the file cache.
    starts = [bench.run(bench.make("tiny.png", 256 / 1e6)) for _ in range(3)]
    start_up = min(outcome.wall - outcome.network for outcome in starts)
    outcome = bench.run(bench.folder / "folder")
    batch = outcome.wall - start_up
    cells = (
        f"{count} of {megapixels:g} MP",
        f"{start_up:.2f} s",
        f"{batch:.2f} s",
        f"{outcome.network:.2f} s",
        f"{outcome.network / batch:.1%}",
    )
    head = ("pictures", "start-up", "batch", "network", "network's share")
    return format_table(head, [cells])


def measure_thumbnails(bench: Bench) -> list[str]:
    """Thumbnails: all in one command against one command each."""
    count, alone = bench.chosen.thumbnails, bench.chosen.alone
    folder = bench.folder / "thumbnails"
    for number in range(count):
        path = save_picture(folder / f"{number}.png", THUMBNAIL, THUMBNAIL, number)
    together = bench.run(folder)
    each = sum(bench.run(path).wall for _ in range(alone)) / alone
    cells = (
        f"{count} of {THUMBNAIL}x{THUMBNAIL}",
        f"{together.wall:.2f} s",
        f"{count / together.wall:.2f}/s",
        f"{each:.2f} s",
        f"{each * count / together.wall:.1f}",
        f"{together.network / together.wall:.1%}",
    )
    head = ("thumbnails", "one command", "rate", f"one alone (mean of {alone})")
    return format_table((*head, "times the rate", "network's share"), [cells])


def measure_sizes(bench: Bench) -> list[str]:
    """Several sizes: whether time and memory grow with the pixels."""
    rows, first = [], 0.0
    for megapixels in sorted(bench.chosen.sizes):
        path = bench.make(f"{megapixels:g}.jpg", megapixels)
        with Image.open(path) as image:
            pixels = image.width * image.height
        outcome = bench.run(path)
        pace = outcome.network / pixels * 1e6
        first = first or pace
        output = pixels * SCALE**2 * 3
        memory = (outcome.peak, output, outcome.peak - output)
        rows.append([
            f"{megapixels:g} MP", f"{outcome.wall:.2f} s", f"{pace:.2f} s",
            f"{pace / first:.3f}", *(f"{each / 1e9:.2f} GB" for each in memory),
        ])  # fmt: skip
    head = ("picture", "command", "network per MP", "to the smallest", "peak memory")
    return format_table((*head, "output", "beside it"), rows)


PARTS = {
    "command": measure_command,
    "folder": measure_folder,
    "thumbnails": measure_thumbnails,
    "sizes": measure_sizes,
}


def measure(chosen: Namespace) -> Iterator[str]:
    """The chosen parts, each a sentence and a table."""
    yield f"{name_machine(choose_device(chosen.device))}."
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen)
        for part in chosen.parts:
            log.info("measuring: %s", part)
            yield f"{PARTS[part].__doc__}"
            yield "\n".join(PARTS[part](bench))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = make_parser(__file__, __doc__)
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
    return run_benchmark(parser, arguments, measure)


if __name__ == "__main__":
    raise SystemExit(main())
