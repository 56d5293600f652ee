"""A study from its request to its report: run after run, and on again where it stopped.

Every variant is an ordinary run in a folder of its own, with the same seed and so the
same crops; a run that has its steps is kept as it is.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.evaluation.datasets import find_dataset
from srcli.inference.device import choose_device
from srcli.progress import SILENT, Progress
from srcli.storage import quote_path
from srcli.training.beginning import check_folder
from srcli.training.checkpoint import NAME as CHECKPOINT
from srcli.training.checkpoint import PREVIOUS, find_checkpoints
from srcli.training.data import choose_folders, find_pictures
from srcli.training.overrides import merge
from srcli.training.provenance import has_weights
from srcli.training.recipe import STUDY
from srcli.training.request import NO_VAL, TrainRequest, recall, remember
from srcli.training.run import choose_training_precision, train
from srcli.training.stopping import (
    DivergedError,
    TrainingStoppedError,
    TrainingTerminatedError,
    work_and_report,
)
from srcli.training.study_folder import (
    list_fixed,
    name_set,
    name_settings,
    read_description,
    refuse_changes,
    write_description,
)
from srcli.training.study_member import read_outcome, tell_remedy
from srcli.training.study_outcome import StudyResult, read_result
from srcli.training.study_plan import Member, Study, load_study
from srcli.training.study_report import write_study_report
from srcli.training.worker import is_worker
from srcli.writing import make_folder

log = logging.getLogger(__name__)


def run_study(
    request: TrainRequest, progress: Progress = SILENT, *, devices: int = 1
) -> StudyResult:
    """Train what is left of a study, and report on all of it.

    Args:
        request: As for one run; `overrides` also takes what `load_study` does, and
            `max_minutes` is for all runs together.
        progress: Told of every step.
        devices: How many the user asked for; a study takes one.

    Raises:
        UsageError: For what makes no study, or another one than the folder holds.
        InputError: If pictures, the data set or a study to resume are missing.
        OutputError: If the folder holds something else or cannot be written.
        DeviceError: If the device is not there or its memory does not suffice.
        TrainingStoppedError: After Ctrl-C or SIGTERM, with a checkpoint and a report.
    """
    _check_request(request, devices)
    study, request = _resume(request) if request.resume else _begin(request)
    return work_and_report(
        lambda: _train_members(study, request, progress),
        lambda _stopped: _report(study, request),
        (SrcliError,),
    )


def _check_request(request: TrainRequest, devices: int) -> None:
    """Refuse what one run can do and a study cannot.

    Raises:
        UsageError: If there is any of it.
    """
    if request.init is not None:
        raise UsageError("a study trains every variant from nothing: leave --init out")
    if (
        request.teachers
        or request.teacher_cache
        or any(name.startswith("teacher_") for name in request.overrides)
    ):
        raise UsageError("a study compares what papers did: leave --teacher out")
    if request.val == NO_VAL:
        raise UsageError("a study compares by what --val measures: it cannot be none")
    if devices > 1 or is_worker():
        raise UsageError("a study trains on one device: leave --devices out")


def _begin(request: TrainRequest) -> tuple[Study, TrainRequest]:
    """A new study, its folder made once its pictures are known to be there.

    Raises:
        OutputError: If the folder holds a run or a study.
    """
    study = load_study(
        request.model, request.overrides, scales=request.scales, seed=request.seed
    )
    out = request.out
    check_folder(out)
    names = (CHECKPOINT, PREVIOUS)
    if any(any(out.glob(f"{deep}/{name}")) for deep in ("*", "*/*") for name in names):
        raise OutputError(
            f"{out} holds a study or runs already: --resume goes on with a study, "
            "--out names another folder"
        )
    request = _settle(request, study)
    make_folder(out)
    remember(request, request.precision)
    write_description(study, request)
    return study, request


def _resume(request: TrainRequest) -> tuple[Study, TrainRequest]:
    """The study that lies in the folder, if the request asks for no other.

    Raises:
        InputError: If there is none, or what describes it is damaged.
        UsageError: If the request is of another study.
    """
    out, kept = request.out, read_description(request.out)
    if request.model.lower() != kept["model"]:
        raise UsageError(f"the study in {out} is of {kept['model']}: -m names another")
    study = load_study(
        request.model,
        merge(kept["asked"], request.overrides),
        scales=request.scales or (kept["scale"],),
        seed=kept["seeds"][0],
    )
    refuse_changes(out, list_fixed(kept), list_fixed(study.identity))
    before = {**name_settings(recall(TrainRequest(model="", out=out))), **kept}
    asked = recall(request)
    auto = asked.precision == "auto"
    precision = before["precision"] if auto else asked.precision
    request = _settle(
        dataclasses.replace(
            asked,
            data=asked.data or tuple(Path(name) for name in before["data"]),
            val=asked.val or before["val"],
            precision=precision,
        ),
        study,
    )
    now = name_settings(request)
    refuse_changes(
        out,
        {f"--{name}": before[name] for name in now},
        {f"--{name}": value for name, value in now.items()},
    )
    remember(request, request.precision)
    return study, request


def _settle(request: TrainRequest, study: Study) -> TrainRequest:
    """The request with its choices made, its pictures and data set found to be there.

    Raises:
        InputError: If they are not.
    """
    request = dataclasses.replace(request, val=request.val or study.dataset)
    request = dataclasses.replace(
        request,
        val=name_set(request),
        precision=choose_training_precision(
            request.precision, choose_device(request.device)
        ),
    )
    find_pictures(choose_folders(request.data, study.recipe, request.data_dir))
    find_dataset(request.val or study.dataset, request.data_dir).pictures(study.scale)
    return request


def _train_members(study: Study, request: TrainRequest, progress: Progress) -> None:
    """Train every run that has not its steps yet, until the time is over."""
    started = time.perf_counter()
    members = study.list_members(request.out)
    waiting = [member for member in members if not read_outcome(member).finished]
    for member in waiting:
        left = request.max_minutes
        if left is not None and member is not waiting[0]:
            left -= (time.perf_counter() - started) / 60
            if left <= 0:
                log.info("the minutes are over: --resume goes on")
                return
        log.info(
            "study, run %d of %d: %s, seed %d",
            members.index(member) + 1, len(members), member.variant, member.seed,
        )  # fmt: skip
        try:
            steps = train(_make_request(member, study, request, left), progress).steps
        except DivergedError as error:
            log.warning("%s does not train: %s", member.variant, error)
            continue
        except InputError as error:
            if str(member.folder) not in str(error):
                raise  # about the pictures
            raise InputError(f"{error}; or {tell_remedy(member)}") from error
        except TrainingStoppedError as error:
            raise _retell(error, member, study, request.out) from error
        if steps < member.recipe.steps:
            log.info("the minutes are over: --resume goes on")
            return
        _report(study, request)


def _make_request(
    member: Member, study: Study, request: TrainRequest, minutes: float | None
) -> TrainRequest:
    """What one run of the study is asked for.

    Raises:
        OutputError: If the folder has the weights of a run but not its checkpoint.
    """
    resume = bool(find_checkpoints(member.folder))
    if not resume and has_weights(member.folder):
        raise OutputError(
            f"{member.folder} has weights, but no checkpoint to go on from: "
            f"{tell_remedy(member)}"
        )
    return dataclasses.replace(
        request,
        model=member.variant,
        out=member.folder,
        scales=(),
        recipe=STUDY,
        overrides=study.overrides,
        resume=resume,
        seed=member.seed,
        max_minutes=minutes,
        measured=False,
    )


def _retell(
    error: TrainingStoppedError, member: Member, study: Study, out: Path
) -> TrainingStoppedError:
    """The error of a run that was stopped, with the command that goes on."""
    terminated = isinstance(error, TrainingTerminatedError)
    kind = "terminated" if terminated else "interrupted"
    return type(error)(
        f"{kind} while training {member.variant}: {out / 'report.md'} has what is "
        f"done, `srcli train -m {study.network} --recipe {STUDY} --resume --out "
        f"{quote_path(out)}` goes on"
    )


def _report(study: Study, request: TrainRequest) -> StudyResult:
    """What the study has come to, also written into its folder."""
    result = read_result(
        study,
        request.out,
        measured_on=request.val or study.dataset,
        precision=request.precision,
    )
    write_study_report(result)
    return result
