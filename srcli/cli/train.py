"""`srcli train`: any of the networks, as its paper did or faster."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from srcli.cli.options import read_scales


def train(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Network or variant to train.")
    ],
    scale: Annotated[
        list[str] | None,
        typer.Option(
            "--scale", "-x", help="Enlargement; repeat or join with commas for several."
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="paper (to the letter), fast (best in a short time) or FILE.toml."
        ),
    ] = "fast",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a field of the recipe: key=value."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of training pictures; repeat for several."),
    ] = None,
    val: Annotated[
        str | None,
        typer.Option(
            help="Data set or folder to validate on (set5 unless given), or none."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where named data sets lie.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
    init: Annotated[
        str | None,
        typer.Option(help="Start from weights: bundled, or a .safetensors file."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps in all.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(min=0.0, help="Stop after so long, with a checkpoint."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Start of every random draw.")
    ] = 0,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as JSON.")
    ] = False,
) -> None:
    """Train a network on your pictures; a run can be stopped and resumed."""
    from srcli.cli.console import out as stdout
    from srcli.cli.console import print_json, progress_bar
    from srcli.training.recipe import parse_assignments
    from srcli.training.request import TrainRequest
    from srcli.training.run import train as run_training

    overrides = parse_assignments(assignments or [])
    if steps is not None:
        overrides["steps"] = steps
    folder = out or Path("runs") / model.lower()
    request = TrainRequest(
        model=model,
        data=tuple(data or ()),
        out=folder,
        scales=read_scales(scale),
        recipe=recipe,
        overrides=overrides,
        val=val,
        data_dir=data_dir,
        resume=resume,
        init=init,
        max_minutes=max_minutes,
        seed=seed,
        device=device,
        precision=precision,
    )
    with progress_bar() as progress:
        summary = run_training(request, progress)
    if as_json:
        print_json(
            {
                "out": str(summary.out),
                "steps": summary.steps,
                "best_step": summary.best_step,
                "psnr": {
                    name: round(value, 4) if math.isfinite(value) else None
                    for name, value in summary.best.items()
                },
            }
        )
        return
    stdout.print(f"{summary.out}: {summary.steps} steps", markup=False)
    for name, value in summary.best.items():
        stdout.print(f"  {name}: {value:.3f} dB", markup=False)
