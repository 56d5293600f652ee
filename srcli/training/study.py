"""A study from its request to its report: run after run, and on again where it stopped.

Every variant is an ordinary run in a folder of its own, with the same seed and so the
same crops; a run that has its steps is kept as it is.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.evaluation.datasets import find_dataset
from srcli.inference.device import choose_device
from srcli.progress import SILENT, Progress
from srcli.training.checkpoint import NAME as CHECKPOINT
from srcli.training.checkpoint import PREVIOUS, find_checkpoints
from srcli.training.overrides import merge
from srcli.training.pictures import choose_folders
from srcli.training.reading import find_pictures
from srcli.training.recipe import STUDY
from srcli.training.request import NO_VAL, TrainRequest, name_val, recall, remember
from srcli.training.run import check_folder, choose_training_precision, train
from srcli.training.stopping import (
    DivergedError,
    TrainingStoppedError,
    TrainingTerminatedError,
)
from srcli.training.study_outcome import StudyResult, read_outcome, read_result
from srcli.training.study_plan import Member, Study, load_study
from srcli.training.study_report import write_study_report
from srcli.training.worker import is_worker
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

NAME = "study.json"


def is_study(folder: Path) -> bool:
    """Whether a study has been begun in a folder."""
    return (folder / NAME).is_file()


def run_study(request: TrainRequest, progress: Progress = SILENT) -> StudyResult:
    """Train what is left of a study, and report on all of it.

    Args:
        request: As for one run; `overrides` also takes what `load_study` does, and
            `max_minutes` is for all runs together.
        progress: Told of every step.

    Raises:
        UsageError: For what makes no study, or another one than the folder holds.
        InputError: If pictures, the data set or a study to resume are missing.
        OutputError: If the folder holds something else or cannot be written.
        DeviceError: If the device is not there or its memory does not suffice.
        TrainingStoppedError: After Ctrl-C or SIGTERM, with a checkpoint and a report.
    """
    _check_request(request)
    study, request = _resume(request) if request.resume else _begin(request)
    stopped: SrcliError | None = None
    try:
        _train_members(study, request, progress)
    except SrcliError as error:
        stopped = error
    try:
        result = _report(study, request)
    except SrcliError as error:
        if stopped is None:
            raise
        log.warning("no report: %s", error)
    if stopped is not None:
        raise stopped
    return result


def _check_request(request: TrainRequest) -> None:
    """Refuse what one run can do and a study cannot.

    Raises:
        UsageError: If there is any of it.
    """
    if request.init is not None:
        raise UsageError("a study trains every variant from nothing: leave --init out")
    if request.val == NO_VAL:
        raise UsageError("a study compares by what --val measures: it cannot be none")
    if is_worker():
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
    document = {"model": study.network, "asked": dict(study.asked), **study.identity}
    with write_whole(out / NAME) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return study, request


def _resume(request: TrainRequest) -> tuple[Study, TrainRequest]:
    """The study that lies in the folder, if the request asks for no other.

    Raises:
        InputError: If there is none, or what describes it is damaged.
        UsageError: If the request is of another study.
    """
    out, kept = request.out, _read_kept(request.out)
    if request.model.lower() != kept["model"]:
        raise UsageError(f"the study in {out} is of {kept['model']}: -m names another")
    study = load_study(
        request.model,
        merge(kept["asked"], request.overrides),
        scales=request.scales or (kept["scale"],),
        seed=kept["seeds"][0],
    )
    _refuse_changes(out, _flatten(kept), _flatten(study.identity))
    before = recall(TrainRequest(model=study.network, out=out))
    request = _settle(recall(request), study)
    settings = {"val": name_val, "data": _name_data, "precision": _name_precision}
    _refuse_changes(
        out,
        {f"--{key}": name(before) for key, name in settings.items()},
        {f"--{key}": name(request) for key, name in settings.items()},
    )
    remember(request, request.precision)
    return study, request


def _read_kept(out: Path) -> dict[str, Any]:
    path = out / NAME
    try:
        kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if not {"model", "asked", "scale", "variants", "seeds", "recipe"} <= set(kept):
            raise ValueError
    except FileNotFoundError as error:
        raise InputError(f"no study in {out}: nothing to resume") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read: begin the study again with another --out"
        ) from error
    return kept


def _flatten(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must stay, each by the name that a user knows it by."""
    named = {key: identity[key] for key in ("scale", "variants", "seeds")}
    return {**named, **identity["recipe"]}


def _refuse_changes(
    out: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Raise for the first setting that is another now.

    Raises:
        UsageError: If there is one.
    """
    for name in now:
        if name in before and before[name] != now[name]:
            raise UsageError(
                f"the study in {out} has {name} {json.dumps(before[name])}, not "
                f"{json.dumps(now[name])}: a resumed study keeps it, --out NEW begins "
                "another"
            )


def _name_data(request: TrainRequest) -> list[str]:
    return [str(path.absolute()) for path in request.data]


def _name_precision(request: TrainRequest) -> str:
    return request.precision


def _settle(request: TrainRequest, study: Study) -> TrainRequest:
    """The request with its choices made, its pictures and data set found to be there.

    Raises:
        InputError: If they are not.
    """
    request = dataclasses.replace(
        request,
        val=request.val or study.dataset,
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
        except TrainingStoppedError as error:
            raise _retell(error, member, study, request.out) from error
        if steps < member.recipe.steps:
            log.info("the minutes are over: --resume goes on")
            return
        _report(study, request)


def _make_request(
    member: Member, study: Study, request: TrainRequest, minutes: float | None
) -> TrainRequest:
    """What one run of the study is asked for."""
    return dataclasses.replace(
        request,
        model=member.variant,
        out=member.folder,
        scales=(),
        recipe=STUDY,
        overrides=study.overrides,
        resume=bool(find_checkpoints(member.folder)),
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
        f"{shlex.quote(str(out))}` goes on"
    )


def _report(study: Study, request: TrainRequest) -> StudyResult:
    """What the study has come to, also written into its folder."""
    result = read_result(
        study,
        request.out,
        measured_on=request.val or study.dataset,
        precision=request.precision,
    )
    write_study_report(result, choose_device(request.device))
    return result
