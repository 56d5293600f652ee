"""How fast training runs here: a step's time, its share of the chip's peak, its memory.

    python benchmarks/training.py --model mrnet drcn --seconds 20 --markdown table.md

Every row takes steps of the project's own trainer, with all recursions of the network,
on crops of pictures of noise; no data is needed.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from timing import Job, Row, make_pictures, measure_network

from srcli.cli.console import configure, print_json, progress_bar
from srcli.errors import SrcliError
from srcli.evaluation.tables import format_table
from srcli.inference.device import choose_device, describe_machine
from srcli.models import MODELS
from srcli.training.recipe import NAMES, load_recipe, parse_assignments
from srcli.writing import write_whole

log = logging.getLogger("srcli.benchmarks.training")

_ABOUT = (
    "Time: median of the timed steps. FLOP: three times those of the forward pass's "
    "learned layers, two for each multiply-accumulate; recomputation does not count. "
    "By fast-cpu: how many times as fast as with torch's convolutions alone. "
    "Where a step draws one scale at random, each scale is timed by itself, and all "
    "weigh the same."
)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--model", nargs="+", metavar="NAME", default=list(MODELS), help="networks")
    add("--recipe", choices=NAMES, default="fast", help="whose crops, batch and loss")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    add("--precision", default="auto", help="auto, bf16 or fp32")
    add("--batch", type=int, help="crops a step, instead of the recipe's")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="recipe field")
    add("--steps", type=int, help="timed steps of each scale, instead of --seconds")
    add("--seconds", type=float, default=20.0, help="timed in all for each network")
    add("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    add("--json", action="store_true", help="one JSON document instead of the table")
    chosen = parser.parse_args(arguments)
    if chosen.steps is not None and chosen.steps < 1:
        parser.error("--steps must be at least 1")
    return chosen


def _list_jobs(chosen: argparse.Namespace) -> list[Job]:
    overrides: dict[str, Any] = {
        "recursions": [],
        # The time of a step does not depend on it, and no network gets out of hand.
        "learning_rate": 1e-6,
        **({} if chosen.batch is None else {"batch": chosen.batch}),
        **parse_assignments(chosen.set),
    }
    return [
        Job(
            model=model,
            recipe=chosen.recipe,
            overrides=overrides,
            device=chosen.device,
            precision=chosen.precision,
            steps=chosen.steps,
            seconds=chosen.seconds,
        )
        for model in chosen.model
    ]


def _measure(jobs: Sequence[Job], pictures: Path) -> Iterator[Row]:
    """The rows; of several networks each in its own process, for its own memory."""
    if len(jobs) == 1:
        yield measure_network(jobs[0], pictures)
        return
    context = multiprocessing.get_context("spawn")
    for job in jobs:
        with ProcessPoolExecutor(1, context) as pool:
            yield pool.submit(measure_network, job, pictures).result()


def _describe(command: str, rows: Sequence[Row]) -> dict[str, Any]:
    """All figures as one JSON document; shares are of the run's best peaks."""
    matrix = max(row.matrix_peak for row in rows)
    bare = [row.convolution_peak for row in rows if row.convolution_peak is not None]
    convolution = max(bare) if bare else None
    return {
        "command": command,
        "machine": describe_machine(torch.device(rows[0].device)),
        "peak_precision": rows[0].peak_precision,
        "matrix_gflops": matrix / 1e9,
        "convolution_gflops": convolution and convolution / 1e9,
        "rows": [
            {
                "network": row.network,
                "device": row.device,
                "precision": row.precision,
                "crops": row.crops,
                "steps_timed": row.steps,
                "ms_per_step": row.step * 1e3,
                "crops_per_second": row.batch / row.step,
                "gflop_per_step": row.step_flop / 1e9,
                "gflops": row.step_flop / row.step / 1e9,
                "share_of_matrix": row.step_flop / row.step / matrix,
                "share_of_convolution": convolution
                and row.step_flop / row.step / convolution,
                "speed_up": row.alone and row.alone / row.step,
                "data_share": row.data_share,
                "peak_memory_bytes": row.memory,
            }
            for row in rows
        ],
    }


def _format_cells(document: dict[str, Any]) -> Iterator[dict[str, str]]:
    """The table's rows, each a cell by its column's name."""
    for row in document["rows"]:
        bare, memory = row["share_of_convolution"], row["peak_memory_bytes"]
        speed_up = row["speed_up"]
        yield {
            "network": row["network"],
            "crops": row["crops"],
            "ms/step": f"{row['ms_per_step']:.4g}",
            "crops/s": f"{row['crops_per_second']:.4g}",
            "GFLOP/s": f"{row['gflops']:,.0f}",
            "of matrix peak": f"{row['share_of_matrix']:.1%}",
            **({} if bare is None else {"of bare 3x3": f"{bare:.1%}"}),
            **({} if speed_up is None else {"by fast-cpu": f"x{speed_up:.2f}"}),
            "data": f"{row['data_share']:.1%}",
            "peak memory": "?" if memory is None else f"{memory / 1e9:.2f} GB",
        }


def _describe_peaks(document: dict[str, Any]) -> str:
    """Where and in what the networks ran, and what their shares are of."""
    machine, precision = document["machine"], document["peak_precision"]
    bare = document["convolution_gflops"]
    return (
        f"{machine.get('GPU', machine['CPU'])}; PyTorch {machine['PyTorch']}; networks "
        f"in {document['rows'][0]['precision']}; {precision} peaks: matrix product "
        f"{document['matrix_gflops']:,.0f} GFLOP/s"
        + ("" if bare is None else f", bare 3x3 convolution {bare:,.0f} GFLOP/s")
    )


def _show(document: dict[str, Any]) -> None:
    console = Console(markup=False, highlight=False)
    console.print(document["command"], soft_wrap=True)
    console.print(_describe_peaks(document))
    rows = list(_format_cells(document))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number > 1 else "left")
    for cells in rows:
        table.add_row(*cells.values())
    console.print(table)
    console.print(_ABOUT)


def _format_markdown(document: dict[str, Any]) -> str:
    rows = list(_format_cells(document))
    table = format_table(list(rows[0]), [list(cells.values()) for cells in rows])
    code = f"```\n{document['command']}\n```"
    parts = (code, f"{_describe_peaks(document)}.", "\n".join(table), _ABOUT)
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, show and write; the exit code."""
    chosen = _parse(arguments)
    configure(verbose=False, quiet=False)
    own = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "benchmarks/training.py", *own])
    try:
        choose_device(chosen.device)
        jobs = _list_jobs(chosen)
        for job in jobs:  # before any is timed
            load_recipe(job.model, job.recipe, job.overrides)
        with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
            make_pictures(Path(folder))
            progress.start("Timing networks", len(jobs))
            rows = []
            for row in _measure(jobs, Path(folder)):
                rows.append(row)
                progress.advance()
        document = _describe(command, rows)
        if chosen.markdown is not None:
            with write_whole(chosen.markdown) as part:
                part.write_text(_format_markdown(document), "utf-8")
    except SrcliError as error:
        log.error("%s", error)
        return error.exit_code
    if chosen.json:
        print_json(document)
    else:
        _show(document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
