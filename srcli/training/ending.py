"""What a run leaves behind when it ends: curves, an export, a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srcli.evaluation.benchmark import Row
from srcli.progress import SILENT, Progress
from srcli.training.curves import draw_curves
from srcli.training.export import export_finished
from srcli.training.loop import Trainer
from srcli.training.measure import add_bicubic, make_request, measure_run
from srcli.training.provenance import find_weights, has_weights
from srcli.training.report import PictureFacts, RunFacts, write_report
from srcli.training.request import DEFAULT_VAL, HELD_OUT, NO_VAL, TrainRequest


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
    weights = find_weights(request.out) if has_weights(request.out) else None
    rows: Sequence[Row] = ()
    if weights is not None and request.measured and not stopped:
        where = (weights, trainer.recipe, val, request.data_dir, device)
        left_out = trainer.finished and not any(request.out.glob("export/*.json"))
        if trainer.has_just_finished or left_out:
            exported = export_finished(request, progress)
            weights, rows = exported.weights, exported.rows
            if rows:
                rows = add_bicubic(rows, make_request(*where), progress)
        elif val != NO_VAL:
            rows = measure_run(*where, progress)
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
            val=None if val in (NO_VAL, HELD_OUT) else val,
            weights=weights,
            rows=rows,
        ),
    )
