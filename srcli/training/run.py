"""From a request to a finished run: the pictures, the network, the loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.backends import cudnn

from srcli.errors import DeviceError, UsageError
from srcli.inference.device import (
    DTYPES,
    Precision,
    choose_device,
    choose_precision,
    is_out_of_memory,
)
from srcli.models.base import Color
from srcli.progress import SILENT, Progress
from srcli.training.beginning import begin_run, check_pictures, check_settings
from srcli.training.checkpoint import check_network
from srcli.training.data import CropSampler, choose_folders, find_pictures
from srcli.training.distributed import World
from srcli.training.ending import end_run
from srcli.training.loop import Trainer
from srcli.training.network import make_network
from srcli.training.overrides import replace_fields
from srcli.training.recipe import Recipe, load_recipe, make_recipe
from srcli.training.request import TrainRequest, remember
from srcli.training.stopping import (
    DivergedError,
    TrainingStoppedError,
    work_and_report,
)
from srcli.training.teacher import Teachers, find_teachers
from srcli.training.validation import Validation, settle_val
from srcli.training.worker import join_world

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a run came to."""

    out: Path
    steps: int
    best: dict[str, float]  # PSNR in dB by scale, and their mean
    best_step: int


def train(request: TrainRequest, progress: Progress = SILENT) -> TrainSummary:
    """Train a network as the request says, from the start or from a checkpoint.

    Raises:
        UsageError: For an unknown model, recipe, field or scale, for a resumed run of
            another network, or if the loss is no number any more.
        InputError: If pictures, a checkpoint or the validation set are missing.
        OutputError: If the run's folder exists already or cannot be written.
        DeviceError: If the device is not there or its memory does not suffice.
        WeightsError: If weights to start from are missing or damaged.
        TrainingStoppedError: After Ctrl-C or SIGTERM.
    """
    with join_world(choose_device(request.device)) as world:
        return _train(request, world, progress)


def _train(request: TrainRequest, world: World, progress: Progress) -> TrainSummary:
    beginning = begin_run(request, world)
    request, state = beginning.request, beginning.state
    recipe = _choose_recipe(request, state)
    torch.manual_seed(request.seed)
    network = make_network(recipe, request.init)
    if state is not None:
        check_network(state, request.model.lower(), network)
    world.check_divisible(network, recipe)
    device = world.device
    precision = choose_training_precision(request.precision, device)
    teachers = _choose_teachers(request, recipe, network.color, world)
    check_settings(world, request, recipe, precision, teachers)
    folders = choose_folders(request.data, recipe, request.data_dir)
    request = replace(request, val=world.share(settle_val(request)))
    validation = Validation(request, recipe, network.color, device, precision)
    exact = precision == "fp32"
    flags = cudnn.flags(enabled=True, benchmark=True, allow_tf32=not exact)
    with _memory_of(device), flags:
        sampler = CropSampler(
            find_pictures(folders),
            recipe,
            network.color,
            device,
            seed=request.seed,
            teachers=teachers,
            share=(world.rank, world.size),
            hold_out=validation.hold_out,
            progress=progress,
        )
        del teachers  # their networks are no longer needed
        check_pictures(world, sampler)
        log.info(
            "%s: %d pictures, %.1f megapixels, %d skipped, on %s in %s",
            recipe.model,
            sampler.count,
            sampler.pixels / 1e6,
            len(sampler.skipped),
            f"{world.size} x {device.type}" if world.size > 1 else device,
            precision,
        )
        same_held = sampler.held_out.keys() == request.held_out.keys()
        request = replace(request, held_out=sampler.held_out)
        network.to(device)
        world.copy_weights(network)
        trainer = Trainer(
            network,
            recipe,
            sampler,
            request.out,
            validate=validation.make_validator([*sampler.held_out.values()]),
            precision=DTYPES[precision],
            world=world,
            progress=progress,
        )
        if state is not None:
            trainer.restore(state)
            degraded = state["recipe"]["degradation"] == recipe.degradation
            if not (beginning.same_val and same_held and degraded):
                trainer.forget_best()
            if trainer.finished:
                log.info("all %d steps are done: --steps takes more", trainer.step)
        if world.is_main:
            remember(request, precision, beginning.command)
        _run(trainer, request, folders, precision, progress)
    return TrainSummary(request.out, trainer.step, trainer.best, trainer.best_step)


def _run(
    trainer: Trainer,
    request: TrainRequest,
    folders: Sequence[Path],
    precision: Precision,
    progress: Progress,
) -> None:
    """Train, and leave a report behind however it ends."""

    def report(stopped: bool) -> None:
        if trainer.world.is_main:
            end_run(
                request,
                trainer,
                folders,
                precision=precision,
                stopped=stopped,
                progress=progress,
            )

    work_and_report(
        lambda: trainer.run(request.max_minutes),
        report,
        (TrainingStoppedError, DivergedError),
    )


def _choose_recipe(request: TrainRequest, state: dict[str, Any] | None) -> Recipe:
    """The request's recipe; a resumed run keeps its own, fields replaced as asked."""
    overrides = dict(request.overrides)
    if request.scales:
        overrides["scales"] = list(request.scales)
    if state is None:
        return load_recipe(request.model, request.recipe, overrides)
    values = replace_fields(state["recipe"], overrides)
    recipe = make_recipe(values, "the checkpoint's recipe")
    if recipe.steps < state["step"]:
        raise UsageError(
            f"the run has done {state['step']} steps: --steps must not be below that"
        )
    return recipe


def choose_training_precision(name: str, device: torch.device) -> Precision:
    """The precision of the network; never fp16, whose small gradients vanish.

    Raises:
        UsageError: If fp16 is asked for, or a precision that there is not.
        DeviceError: If the device cannot compute in it.
    """
    precision = choose_precision(name, device)
    if precision != "fp16":
        return precision
    if name.lower() == "fp16":
        raise UsageError(
            "fp16 has too little range to train in: use bf16, fp32 or auto"
        )
    return "fp32"


def _choose_teachers(
    request: TrainRequest, recipe: Recipe, color: Color, world: World
) -> Teachers | None:
    if request.teachers:
        found = find_teachers(request.teachers, recipe, color)
        cache = request.teacher_cache
        return Teachers(found, color, world.device, cache=cache, world=world)
    if request.teacher_cache or recipe.says_of_teachers:
        names = ", ".join(("--teacher-cache", *recipe.says_of_teachers))
        raise UsageError(f"{names} are for --teacher: name one, or leave them out")
    return None


@contextmanager
def _memory_of(device: torch.device) -> Iterator[None]:
    """Says in a sentence that the device's memory did not suffice.

    Raises:
        DeviceError: If it did not.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"the memory of {device} does not suffice: a smaller batch or crop needs "
            "less (--set batch=N, --set crop=N), recomputation (--set recompute=true) "
            "and fewer pictures too"
        ) from error
