"""A study from its request to its report: run after run, and on again where it stopped.

Every variant is an ordinary run in a folder of its own, with the same seed and so the
same crops; a run that has its steps is kept as it is.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

from srcli.errors import (
    InputError,
    OutputError,
    SrcliError,
    TrainingStoppedError,
    TrainingTerminatedError,
    UsageError,
    WeightsError,
)
from srcli.inference.device import choose_device
from srcli.pretrained.datasets import canonical_name, find_dataset
from srcli.pretrained.weight_file import read_metadata
from srcli.progress import SILENT, Progress
from srcli.storage import quote_path
from srcli.training.checkpoint import (
    NO_VAL,
    TrainRequest,
    describe_places,
    fill,
    find_checkpoints,
    find_weights,
    name_val,
)
from srcli.training.data import choose_folders, find_pictures
from srcli.training.distributed import is_worker
from srcli.training.log import read_history
from srcli.training.loop import GIVEN_UP, DivergedError
from srcli.training.recipe import STUDY, Recipe, make_recipe, merge
from srcli.training.run import (
    check_folder,
    choose_training_precision,
    train,
    work_and_report,
)
from srcli.training.study import OWN_FIELDS, Study, StudyRun, TrainedVariant, load_study
from srcli.training.study_report import write_study_report
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

NAME = "study.json"
_REMEDY = "delete {}, and --resume trains it anew"


def is_study(folder: Path) -> bool:
    """Whether a study has been begun in a folder."""
    return (folder / NAME).is_file()


def run_study(
    request: TrainRequest, progress: Progress = SILENT, *, devices: int = 1
) -> StudyRun:
    """Train what is left of a study, and report on all of it.

    Args:
        request: As for one run; `overrides` also takes what `load_study` does, and
            `max_minutes` is for all runs together.
        progress: Told of every step.
        devices: How many the user asked for; a study takes one.

    Raises:
        TrainingStoppedError: After Ctrl-C or SIGTERM, with a checkpoint and a report.
        SrcliError: For what makes no study, or another one than the folder holds.
    """
    fields = request.overrides
    taught = any(name.startswith("teacher_") for name in fields)
    for is_asked, refusal in (
        (request.init, "trains every variant from nothing: leave --init out"),
        (request.teachers or request.teacher_cache or taught,
         "compares what papers did: leave --teacher out"),
        (fields.get("minutes"), "compares runs of equal steps: --steps, not --for"),
        (request.val == NO_VAL, "compares by what --val measures: it cannot be none"),
        (devices > 1 or is_worker(), "trains on one device: leave --devices out"),
    ):  # fmt: skip
        if is_asked:
            raise UsageError(f"a study {refusal}")
    study, request = _resume(request) if request.resume else _begin(request)
    return work_and_report(
        lambda: _train_all(study, request, progress),
        lambda _stopped: _report(study, request),
        (SrcliError,),
    )


def _begin(request: TrainRequest) -> tuple[Study, TrainRequest]:
    """A new study, its folder made once its pictures are known to be there."""
    study = load_study(
        request.model, request.overrides, scales=request.scales, seed=request.seed
    )
    out = request.out
    check_folder(out)
    if is_study(out) or any(out.glob("*/checkpoint*")) or any(out.glob("*/seed-*")):
        raise OutputError(
            f"{out} holds a study or runs already: --resume goes on with a study, "
            "--out names another folder"
        )
    request = _settle(request, study)
    make_folder(out)
    with write_whole(out / NAME) as part:
        text = json.dumps(_describe(study, request), indent=2) + "\n"
        part.write_text(text, "utf-8")
    return study, request


def _resume(request: TrainRequest) -> tuple[Study, TrainRequest]:
    """The study that lies in the folder, if the request asks for no other."""
    path = request.out / NAME
    try:
        kept = json.loads(path.read_text("utf-8"))
        model, fixed = kept["model"], kept["identity"]
        asked = dataclasses.replace(
            request,
            scales=request.scales or (fixed["scale"],),
            seed=fixed["seeds"][0],
            overrides=merge(kept["asked"], request.overrides),
        )
        filled = fill(asked, kept)
    except FileNotFoundError as error:
        raise InputError(f"no study in {request.out}: nothing to resume") from error
    except (
        InputError, OSError, ValueError, LookupError, TypeError, RecursionError
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} cannot be read: begin the study again with another --out"
        ) from error
    if request.model.lower() != model:
        raise UsageError(f"the study in {request.out} is of {model}: -m names another")
    study = load_study(model, filled.overrides, scales=filled.scales, seed=filled.seed)
    filled = _settle(filled, study)
    now = _describe(study, filled)
    was = fixed | {f"--{name}": kept[name] for name in ("data", "val", "precision")}
    is_ = now["identity"] | {f"--{n}": now[n] for n in ("data", "val", "precision")}
    for name, value in is_.items():
        if was.get(name) != value:
            raise UsageError(
                f"the study in {request.out} has {name} {json.dumps(was.get(name))}, "
                f"not {json.dumps(value)}: a resumed study keeps it, --out NEW begins "
                "another"
            )
    return study, filled


def _settle(request: TrainRequest, study: Study) -> TrainRequest:
    """The request with its choices made, its pictures and data set at hand."""
    val = name_val(dataclasses.replace(request, val=request.val or study.dataset))
    device = choose_device(request.device)
    request = dataclasses.replace(
        request,
        val=canonical_name(val) or val,
        precision=choose_training_precision(request.precision, device),
    )
    find_pictures(choose_folders(request.data, study.recipe, request.data_dir))
    find_dataset(request.val or val, request.data_dir).pictures(study.scale)
    return request


def _describe(study: Study, request: TrainRequest) -> dict[str, Any]:
    """What a resumed study is held to, or filled from, as JSON values."""
    return {
        "model": study.network,
        "asked": dict(study.asked),
        **describe_places(request, request.precision),
        "identity": study.identity,
    }


def _train_all(study: Study, request: TrainRequest, progress: Progress) -> None:
    """Train every run that has not its steps yet, until the time is over."""
    started, left = time.perf_counter(), request.max_minutes
    runs = [(name, seed) for seed in study.seeds for name in study.recipes]
    for number, (name, seed) in enumerate(runs, 1):
        folder = study.folder(request.out, name, seed)
        remedy = _REMEDY.format(folder)
        if _read_variant(folder, study.recipes[name]).psnr is not None:
            continue
        log.info("study, run %d of %d: %s, seed %d", number, len(runs), name, seed)
        try:
            run = _make_request(folder, name, seed, study, request)
            steps = train(dataclasses.replace(run, max_minutes=left), progress).steps
        except DivergedError as error:
            log.warning("%s does not train: %s", name, error)
            continue
        except InputError as error:
            if str(folder) not in str(error):
                raise  # about the pictures
            raise InputError(f"{error}; or {remedy}") from error
        except TrainingStoppedError as error:
            terminated = isinstance(error, TrainingTerminatedError)
            raise type(error)(
                f"{'terminated' if terminated else 'interrupted'} while training "
                f"{name}: {request.out / 'report.md'} has what is done, `srcli train "
                f"-m {study.network} --recipe {STUDY} --resume --out "
                f"{quote_path(request.out)}` goes on"
            ) from error
        if request.max_minutes is not None:
            left = request.max_minutes - (time.perf_counter() - started) / 60
        if steps < study.recipe.steps or (left is not None and left <= 0):
            log.info("the minutes are over: --resume goes on")
            return
        _report(study, request)


def _make_request(
    folder: Path, name: str, seed: int, study: Study, request: TrainRequest
) -> TrainRequest:
    """What one run of the study is asked for."""
    resume, remedy = bool(find_checkpoints(folder)), _REMEDY.format(folder)
    if not resume and find_weights(folder) is not None:
        raise OutputError(
            f"{folder} has weights, but no checkpoint to go on from: {remedy}"
        )
    fields = {k: v for k, v in study.asked.items() if k not in OWN_FIELDS}
    return dataclasses.replace(
        request,
        model=name,
        out=folder,
        scales=(),
        recipe=STUDY,
        overrides={**fields, "scales": [study.scale]},
        resume=resume,
        seed=seed,
        measured=False,
    )


def _read_variant(folder: Path, recipe: Recipe) -> TrainedVariant:
    """What one run has come to so far; an error where it is not by the recipe."""
    path, remedy = folder / "last.safetensors", _REMEDY.format(folder)
    try:
        history = read_history(folder)
        metadata = read_metadata(path) if path.exists() else None
        last = history.events[-1] if history.events else (0, "")
        found = TrainedVariant(
            steps=history.last_step,  # of one that was killed or given up
            # It may have been tried again since, and gone further.
            diverged=last[1] == GIVEN_UP and last[0] >= history.last_step,
            seconds_per_step=history.seconds_per_step,
            setbacks=sum(text != GIVEN_UP for _, text in history.events),
        )
        if metadata is None:
            return found
        steps, own = int(metadata["steps"]), make_recipe(json.loads(metadata["recipe"]))
    except (InputError, WeightsError) as error:
        raise type(error)(f"{error}; {remedy}") from error
    except (KeyError, ValueError, TypeError, UsageError) as error:
        raise WeightsError(
            f"{path} does not say how it was trained; {remedy}"
        ) from error
    if own != recipe:
        raise UsageError(
            f"{folder} was trained by another recipe than its study's; {remedy}"
        )
    psnr = history.validations.get(steps, {}).get(recipe.scales[0])
    done = steps >= recipe.steps and psnr is not None
    return dataclasses.replace(
        found,
        steps=steps,
        pictures=metadata.get("data"),
        psnr=round(psnr, 3) if done and psnr is not None else None,
        diverged=found.diverged and not done,
    )


def _report(study: Study, request: TrainRequest) -> StudyRun:
    """What the study has come to, also written into its folder."""
    outcomes = {
        name: {
            seed: _read_variant(study.folder(request.out, name, seed), recipe)
            for seed in study.seeds
        }
        for name, recipe in study.recipes.items()
    }
    done = StudyRun(study=study, request=request, outcomes=outcomes)
    write_study_report(done)
    return done
