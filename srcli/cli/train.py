"""`srcli train`: any of the networks, as its paper did or faster."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from srcli.cli import options
from srcli.cli.console import out as stdout
from srcli.cli.console import print_json, print_line, progress_bar
from srcli.cli.options import flag, option, read_duration, read_scales, split_names
from srcli.errors import UsageError
from srcli.storage import show_path

if TYPE_CHECKING:
    from srcli.training.checkpoint import TrainRequest

_of_length = partial(option, rich_help_panel="How long")
_of_teacher = partial(option, rich_help_panel="Teachers")


def train(
    model: Annotated[str, option("MODEL", "Network or variant.", "--model", "-m")],
    scale: Annotated[
        list[str] | None, options.scales(show_default="those of the recipe")
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            "RECIPE",
            "paper (to the letter), fast (best in a short time), ablation (the paper's "
            "variants, compared) or FILE.toml.",
            show_default="fast",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None, option("KEY=VALUE", "Replace a field of the recipe.", "--set")
    ] = None,
    data: Annotated[
        list[Path] | None, option("FOLDER", "Training pictures; repeat for several.")
    ] = None,
    val: Annotated[
        str | None,
        option(
            "DATASET",
            "Data set or folder to validate on, held-out (some pictures of the "
            "training) or none.",
            show_default="set5, or held-out where it is not at hand",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    out: Annotated[
        Path | None,
        option("FOLDER", "Of the run.", "--out", "-o", show_default="runs/MODEL"),
    ] = None,
    resume: Annotated[bool, flag("Go on with the run in --out.", "--resume")] = False,
    init: Annotated[
        str | None, option("FILE", "Weights to start from: bundled or .safetensors.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        _of_teacher(
            "FILE",
            "Learn the enlargements of this better network instead of the originals; "
            "repeat for one a scale.",
        ),
    ] = None,
    teacher_cache: Annotated[
        Path | None,
        _of_teacher(
            "FOLDER",
            "Where the teachers' enlargements are kept.",
            show_default="the user's cache",
        ),
    ] = None,
    steps: Annotated[
        int | None, _of_length("N", "Optimiser steps in all.", min=1)
    ] = None,
    duration: Annotated[
        str | None,
        _of_length(
            "TIME", "Fit the schedule to a time, 8h or 25m, not to steps.", "--for"
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        _of_length(
            "M",
            "Stop after so long, with a checkpoint; the schedule stays as it is.",
            min=0.0,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        option("N", "Of every random draw.", min=0, max=2**32 - 1, show_default="0"),
    ] = None,
    device: options.Device = "auto",
    precision: Annotated[
        str, options.on_device("TYPE", "auto, fp32 or bf16.")
    ] = "auto",
    devices: Annotated[
        int,
        options.on_device("N", "GPUs (or CPU processes) that share each step.", min=1),
    ] = 1,
    export: Annotated[
        bool, flag("Measure a run's best weights and pack them to pass on.", "--export")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train a network on your pictures; a run can be stopped and resumed."""
    from srcli.training.checkpoint import TrainRequest
    from srcli.training.recipe import STUDY, parse_assignments
    from srcli.training.study_runs import is_study

    overrides = parse_assignments(assignments or [])
    name = f"{model}-{recipe}" if recipe == STUDY else model
    folder = out or Path("runs") / name.lower()
    if export:
        training = {
            "--resume": resume, "--init": init, "--steps": steps, "--scale": scale,
            "--max-minutes": max_minutes, "--data": data, "--devices": devices > 1,
            "--recipe": recipe, "--seed": seed, "--teacher": teacher,
            "--teacher-cache": teacher_cache, "--for": duration,
        }  # fmt: skip
        given = [name for name, value in training.items() if value not in (None, False)]
        if given:
            raise UsageError(f"--export trains nothing: leave {', '.join(given)} out")
        _export(folder, model, overrides, val, data_dir, device, as_json)
        return
    if resume and (recipe not in (None, STUDY) or seed is not None):
        raise UsageError(
            "--resume keeps its own recipe and seed: leave --recipe and --seed out; "
            "--set changes fields of the recipe"
        )
    overrides |= _read_length(steps, duration)
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
    if recipe == STUDY or (recipe is None and resume and is_study(folder)):
        _train_study(request, devices, as_json)
    else:
        _train(request, devices, as_json)


def _read_length(steps: int | None, duration: str | None) -> dict[str, Any]:
    """The fields of a recipe that say how long it trains."""
    if steps is not None and duration is not None:
        raise UsageError("--steps and --for: name one")
    if steps is not None:
        return {"steps": steps}
    return {} if duration is None else {"minutes": read_duration(duration) / 60}


def _train(request: TrainRequest, devices: int, as_json: bool) -> None:
    """Train, on several devices by this very command, and print what it came to."""
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
    folder = show_path(summary.out)
    if as_json:
        psnr = {
            name: round(value, 4) if math.isfinite(value) else None
            for name, value in summary.best.items()
        }
        print_json(
            {
                "out": folder,
                "steps": summary.steps,
                "best_step": summary.best_step,
                "psnr": psnr,
            }
        )
        return
    print_line(f"{folder}: {summary.steps} steps")
    for name, value in summary.best.items():
        print_line(f"  {name}: {value:.3f} dB")
    print_line(f"  report: {show_path(summary.out / 'report.md')}")


def _train_study(request: TrainRequest, devices: int, as_json: bool) -> None:
    """Train the variants of a study, and print them beside the paper's."""
    from srcli.training.study_report import NAME, build_study_document, print_study
    from srcli.training.study_runs import run_study

    with progress_bar() as progress:
        result = run_study(request, progress, devices=devices)
    if as_json:
        print_json(build_study_document(result))
        return
    print_study(stdout, result)
    print_line(f"report: {show_path(request.out / NAME)}")


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
    print_line(show_path(done.weights))
    print_line(show_path(done.listing))
    if done.rows:
        print_tables(stdout, done.rows)
