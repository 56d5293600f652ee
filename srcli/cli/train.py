"""`srcli train`: any of the networks, as its paper did or faster."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.cli.options import read_duration, read_scales, split_names
from srcli.errors import UsageError
from srcli.storage import show_path

if TYPE_CHECKING:
    from srcli.training.checkpoint import TrainRequest


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
        str | None,
        typer.Option(
            help="paper (to the letter), fast (best in a short time; used unless "
            "given), ablation (the paper's variants, compared) or FILE.toml."
        ),
    ] = None,
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
            help="Data set or folder to validate on, held-out, or none; unless given, "
            "set5, or where it is not at hand some pictures held out of the training."
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
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Learn the enlargements of this better network instead of the "
            "originals; repeat for one a scale.",
        ),
    ] = None,
    teacher_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default="the user's cache",
            help="Where the teachers' enlargements are kept.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps in all.")
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="TIME",
            help="Fit the schedule to a time, 8h or 25m, instead of to steps.",
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Stop after so long, with a checkpoint; the schedule stays as it is.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Start of every random draw (0)."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="GPUs (or CPU processes) that share each step.")
    ] = 1,
    export: Annotated[
        bool,
        typer.Option(
            "--export", help="Measure a run's best weights and pack them to pass on."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome as JSON.")
    ] = False,
) -> None:
    """Train a network on your pictures; a run can be stopped and resumed."""
    from srcli.training.checkpoint import TrainRequest
    from srcli.training.recipe import STUDY, parse_assignments
    from srcli.training.study_runs import is_study

    overrides = parse_assignments(assignments or [])
    name = f"{model}-{recipe}" if recipe == STUDY else model
    folder = out or Path("runs") / name.lower()
    study = recipe == STUDY or (recipe is None and resume and is_study(folder))
    if export:
        training = {
            "--resume": resume, "--init": init, "--steps": steps, "--scale": scale,
            "--max-minutes": max_minutes, "--data": data, "--devices": devices > 1,
            "--recipe": recipe, "--seed": seed, "--teacher": teacher,
            "--teacher-cache": teacher_cache, "--for": duration,
        }  # fmt: skip
        _refuse_training(training)
        _export(folder, model, overrides, val, data_dir, device, as_json)
        return
    if resume and (recipe not in (None, STUDY) or seed is not None):
        raise UsageError(
            "--resume keeps its own recipe and seed: leave --recipe and --seed out; "
            "--set changes fields of the recipe"
        )
    if steps is not None:
        if duration is not None:
            raise UsageError("--steps and --for: name one")
        overrides["steps"] = steps
    if duration is not None:
        overrides["minutes"] = read_duration(duration) / 60
    request = TrainRequest(
        model=model,
        data=tuple(data or ()),
        out=folder,
        scales=read_scales(scale),
        recipe=recipe or "fast",
        overrides=overrides,
        val=val,
        data_dir=data_dir,
        resume=resume,
        init=init,
        teachers=tuple(teacher or ()),
        teacher_cache=teacher_cache,
        max_minutes=max_minutes,
        seed=seed or 0,
        device=device,
        precision=precision,
    )
    if study:
        _train_study(request, devices, as_json)
    else:
        _train(request, devices, as_json)


def _train(request: TrainRequest, devices: int, as_json: bool) -> None:
    """Train, on several devices by this very command, and print what it came to."""
    from srcli.cli.console import out as stdout
    from srcli.cli.console import print_json, progress_bar
    from srcli.progress import SILENT
    from srcli.training.distributed import is_main_process, is_worker, launch
    from srcli.training.run import train as run_training

    if devices > 1 and not is_worker():
        launch(devices, request.device, [sys.executable, "-m", "srcli", *sys.argv[1:]])
        return
    if not is_main_process():
        run_training(request, SILENT)
        return
    with progress_bar() as progress:
        summary = run_training(request, progress)
    psnr = {k: round(v, 4) for k, v in summary.best.items() if math.isfinite(v)}
    if as_json:
        print_json(
            {
                "out": show_path(summary.out),
                "steps": summary.steps,
                "best_step": summary.best_step,
                "psnr": dict.fromkeys(summary.best) | psnr,
            }
        )
        return
    stdout.print(f"{show_path(summary.out)}: {summary.steps} steps", markup=False)
    for name, value in summary.best.items():
        stdout.print(f"  {name}: {value:.3f} dB", markup=False)
    stdout.print(f"  report: {show_path(summary.out / 'report.md')}", markup=False)


def _train_study(request: TrainRequest, devices: int, as_json: bool) -> None:
    """Train the variants of a study, and print them beside the paper's."""
    from srcli.cli.console import out as stdout
    from srcli.cli.console import print_json, progress_bar
    from srcli.training.study_report import NAME, build_study_document, print_study
    from srcli.training.study_runs import run_study

    with progress_bar() as progress:
        result = run_study(request, progress, devices=devices)
    if as_json:
        print_json(build_study_document(result))
        return
    print_study(stdout, result)
    stdout.print(
        f"report: {show_path(request.out / NAME)}", markup=False, highlight=False
    )


def _refuse_training(options: dict[str, Any]) -> None:
    """Raise for options that ask for training beside an export.

    Raises:
        UsageError: If any was given.
    """
    given = [name for name, value in options.items() if value not in (None, False)]
    if given:
        raise UsageError(f"--export trains nothing: leave {', '.join(given)} out")


def _export(
    folder: Path,
    model: str,
    overrides: dict[str, Any],
    val: str | None,
    data_dir: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Pack a run's best weights, and print where they are and how they measure."""
    from srcli.cli.console import out as stdout
    from srcli.cli.console import print_json, progress_bar
    from srcli.evaluation.tables import print_tables
    from srcli.training.checkpoint import TrainRequest, fill, read_kept
    from srcli.training.export import export_run

    kept = read_kept(folder)
    run = fill(TrainRequest(model=model, out=folder, data_dir=data_dir), kept)
    named = None if val is None else () if val == "none" else split_names([val])
    with progress_bar() as progress:
        done = export_run(
            folder,
            model=model,
            datasets=named,
            data_dir=run.data_dir,
            # A run that does not say which pictures were named may have had any.
            of_recipe=kept is not None and not run.data,
            words=overrides,
            device=device,
            progress=progress,
        )
    if as_json:
        print_json(done.as_document())
        return
    for path in (done.weights, done.listing):
        stdout.print(show_path(path), markup=False, highlight=False)
    if done.rows:
        print_tables(stdout, done.rows)
