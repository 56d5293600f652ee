"""What a run leaves behind when it ends: curves, an export, a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srcli.evaluation.benchmark import Row, run_benchmark
from srcli.progress import SILENT, Progress
from srcli.training.curves import draw_curves
from srcli.training.export import (
    export_run,
    find_weights,
    keep_published,
    make_request,
)
from srcli.training.loop import Trainer
from srcli.training.report import PictureFacts, RunFacts, write_report
from srcli.training.request import DEFAULT_VAL, NO_VAL, TrainRequest


def end_run(
    request: TrainRequest,
    trainer: Trainer,
    folders: Sequence[Path],
    *,
    precision: str,
    stopped: bool,
    progress: Progress = SILENT,
) -> None:
    """Write curves and report; export a run that has just taken its last step.

    Args:
        request: The run's.
        trainer: After its last step, its weights written.
        folders: Where its pictures came from.
        precision: That it was trained in.
        stopped: Whether somebody waits for the end of it: then nothing is measured.
        progress: Told of every picture that is measured.

    Raises:
        InputError: If a picture of the validation set or the run's log is unreadable.
        OutputError: If the folder cannot be written.
        WeightsError: If the run's weights have been damaged since.
    """
    val = request.val or DEFAULT_VAL
    device = trainer.sampler.device
    draw_curves(request.out)
    # A run that was given up before its first validation has none.
    weights = find_weights(request.out)
    rows: Sequence[Row] = ()
    if weights is not None and request.measured and not stopped:
        left_out = trainer.finished and not any(request.out.glob("export/*.json"))
        sets = keep_published(val, request.data_dir)
        if trainer.has_just_finished or left_out:
            exported = export_run(
                request.out,
                datasets=sets,
                data_dir=request.data_dir,
                of_recipe=not request.data,
                device=str(device),
                progress=progress,
            )
            weights, rows = exported.weights, exported.compared
        elif sets:
            bench = make_request(
                weights, trainer.recipe, sets, request.data_dir, str(device)
            )
            rows = run_benchmark(bench, progress)
    write_report(
        request.out,
        RunFacts(
            recipe=trainer.recipe,
            recipe_name=request.recipe,
            pictures=PictureFacts.of(trainer.sampler, folders, trainer.taught_by),
            step=trainer.step,
            seconds=trainer.seconds,
            finished=trainer.finished,
            best=trainer.best,
            best_step=trainer.best_step,
            device=device,
            devices=trainer.world.size,
            precision=precision,
            val=None if val == NO_VAL else val,
            weights=weights,
            rows=rows,
        ),
    )
