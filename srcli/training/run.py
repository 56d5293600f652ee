"""From a request to a finished run: the pictures, the network, the loop, the report."""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.backends import cudnn

from srcli import __version__
from srcli.errors import (
    DeviceError,
    InputError,
    OutputError,
    SrcliError,
    TrainingStoppedError,
    UsageError,
)
from srcli.evaluation.measurement import Row, run_benchmark
from srcli.inference.device import (
    DTYPES,
    Precision,
    choose_device,
    choose_precision,
    is_out_of_memory,
)
from srcli.models.base import Color, SRModel
from srcli.pretrained.catalog import served_scales
from srcli.pretrained.loading import load_model
from srcli.progress import SILENT, Progress
from srcli.training.checkpoint import (
    DEFAULT_VAL,
    TrainRequest,
    check_network,
    describe_command,
    fill,
    find_checkpoints,
    find_weights,
    load_checkpoint,
    name_val,
    read_kept,
    remember,
)
from srcli.training.data import CropSampler, choose_folders, find_pictures
from srcli.training.distributed import World, is_restartable, join_world
from srcli.training.export import export_run, keep_published, make_request
from srcli.training.loop import DivergedError, Trainer
from srcli.training.recipe import (
    Recipe,
    load_recipe,
    make_recipe,
    outline_config,
    replace_fields,
)
from srcli.training.report import write_report
from srcli.training.teacher import Teachers
from srcli.training.validation import Validation, settle_val
from srcli.units import format_count

log = logging.getLogger(__name__)

_Report = TypeVar("_Report")


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
        TrainingStoppedError: After Ctrl-C or SIGTERM.
        SrcliError: If the request makes no run, what it names is not there, or the loss
            is no number any more.
    """
    begun = time.perf_counter()
    with join_world(choose_device(request.device)) as world:
        return _train(request, world, begun, progress)


def _train(
    request: TrainRequest, world: World, begun: float, progress: Progress
) -> TrainSummary:
    command: dict[str, Any] | None = describe_command(request)
    request, kept, state = begin_run(request, world)
    recipe = _choose_recipe(request, state)
    torch.manual_seed(request.seed)
    network = make_network(recipe, request.init)
    if state is not None:
        check_network(state, request.model.lower(), network)
        command = (kept or {}).get("command")
    check_divisible(world, network, recipe)
    device = world.device
    precision = choose_training_precision(request.precision, device)
    teachers = _choose_teachers(request, recipe, network.color, world)
    settings = {
        "srcli": __version__,
        **recipe.as_dict(),
        "seed": request.seed,
        "precision": precision,
        "--max-minutes": request.max_minutes,
        "--teacher": None if teachers is None else teachers.fingerprint,
    }
    if found := find_difference(world, settings):
        raise UsageError(
            f"the processes were started differently: {found}: give every node the "
            "same command"
        )
    folders = choose_folders(request.data, recipe, request.data_dir)
    request = dataclasses.replace(request, val=world.share(settle_val(request)))
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
        pictures = f"{sampler.count} of {sampler.pixels / 1e6:.2f} megapixels"
        seen = {"what is trained on": f"{pictures} ({sampler.fingerprint})"}
        if found := find_difference(world, seen):
            raise InputError(
                f"the nodes see different pictures: {found}: --data has to hold the "
                "same files on all of them"
            )
        where = f"{world.size} x {device.type}" if world.size > 1 else device
        log.info(
            "%s: %s, %.1f megapixels, %d skipped, on %s in %s",
            recipe.model, format_count(sampler.count, "picture"), sampler.pixels / 1e6,
            len(sampler.skipped), where, precision,
        )  # fmt: skip
        same_held = sampler.held_out.keys() == request.held_out.keys()
        request = dataclasses.replace(request, held_out=sampler.held_out)
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
            same_val = (kept or {}).get("val", DEFAULT_VAL) == name_val(request)
            if not (same_val and same_held and degraded):
                trainer.forget_best()
            if trainer.finished:
                more = "--for" if recipe.minutes else "--steps"
                log.info("all %d steps are done: %s takes more", trainer.step, more)
        if world.is_main:
            remember(request, precision, command)

        def report(stopped: bool) -> None:
            if world.is_main:
                weights, rows = _measure(request, trainer, stopped, progress)
                write_report(request, trainer, folders, precision, weights, rows)

        work_and_report(
            lambda: trainer.run(request.max_minutes, begun),
            report,
            (TrainingStoppedError, DivergedError),
        )
    return TrainSummary(request.out, trainer.step, trainer.best, trainer.best_step)


def work_and_report(
    work: Callable[[], object],
    report: Callable[[bool], _Report],
    reported: tuple[type[SrcliError], ...],
) -> _Report:
    """Do some work and report on it, also after the errors of it that are `reported`.

    The report is told whether the work was stopped. Its own error then only warns.
    """
    try:
        work()
    except reported:
        try:
            report(True)
        except SrcliError as error:
            log.warning("no report: %s", error)
        raise
    return report(False)


def _measure(
    request: TrainRequest, trainer: Trainer, stopped: bool, progress: Progress
) -> tuple[Path | None, Sequence[Row]]:
    """The weight file that stands for the run, exported after its last step; its rows.

    Where somebody waits for the end of a stopped run, nothing is measured.
    """
    # A run that was given up before its first validation has none.
    weights = find_weights(request.out)
    if weights is None or not request.measured or stopped:
        return weights, ()
    sets = keep_published(request.val or DEFAULT_VAL, request.data_dir)
    device = str(trainer.sampler.device)
    left_out = trainer.finished and not any(request.out.glob("export/*.json"))
    if trainer.has_just_finished or left_out:
        exported = export_run(
            request.out,
            datasets=sets,
            data_dir=request.data_dir,
            of_recipe=not request.data,
            device=device,
            progress=progress,
        )
        return exported.weights, exported.compared
    where = (weights, trainer.recipe, sets, request.data_dir, device)
    return weights, run_benchmark(make_request(*where), progress) if sets else ()


def _choose_recipe(request: TrainRequest, state: dict[str, Any] | None) -> Recipe:
    """The request's recipe; a resumed run keeps its own, fields replaced as asked."""
    overrides = dict(request.overrides)
    if request.scales:
        overrides["scales"] = list(request.scales)
    if state is None:
        return load_recipe(request.model, request.recipe, overrides)
    values = replace_fields(state["recipe"], overrides)
    recipe = make_recipe(values, "the checkpoint's recipe")
    if recipe.steps < state["step"] and not recipe.minutes:
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
        return Teachers(
            request.teachers,
            recipe,
            color,
            world.device,
            cache=request.teacher_cache,
            world=world,
        )
    fields = [name for name in recipe.changed_later if name.startswith("teacher_")]
    if request.teacher_cache or fields:
        names = ", ".join(("--teacher-cache", *fields))
        raise UsageError(f"{names} are for --teacher: name one, or leave them out")
    return None


@contextmanager
def _memory_of(device: torch.device) -> Iterator[None]:
    """Says in a sentence that the device's memory did not suffice."""
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


def make_network(recipe: Recipe, init: str | None = None) -> SRModel:
    """The recipe's network.

    A new one runs as many recursions as the recipe begins with. One that starts from
    weights runs all that these were trained with: they have learned their part.

    Args:
        recipe: Its model, config and scales.
        init: "bundled", which is the model's own weights of the recipe's first scale
            that there are any for, or the path of a weight file; what fits is taken
            over, see `SRModel.fitting_weights`.

    Raises:
        UsageError: If the config makes no network, or no weight fits.
        WeightsError: If the weights are missing or damaged.
    """
    network_class, config = outline_config(recipe)
    network = network_class(config)
    if init is None:
        network.limit_recursions(recipe.recursions_at(0))
        return network
    if init == "bundled":
        there = served_scales(recipe.model, installed=True)
        scale = next((scale for scale in recipe.scales if scale in there), None)
        source = load_model(recipe.model, scale)
    else:
        source = load_model(Path(init))
    own, fitting = network.state_dict(), network.fitting_weights(source)
    if not fitting:
        raise UsageError(f"no weight of {init} fits {recipe.model}")
    network.load_state_dict({**own, **fitting})
    network.limit_recursions(source.recursion_limit)
    log.info("%d of %d tensors start from %s", len(fitting), len(own), init)
    return network


def begin_run(
    request: TrainRequest, world: World
) -> tuple[TrainRequest, dict[str, Any] | None, dict[str, Any] | None]:
    """Where a run begins: the request without gaps, what was kept, the checkpoint.

    The run goes on with `request.resume`; and under torchrun, which gives the same
    command again when it restarts the processes, where the same command began the run.
    The main process tells the others; what is kept and the checkpoint are None where
    there are none, or the run begins anew.

    Raises:
        InputError: If a checkpoint is damaged, or there is none that all nodes see.
        OutputError: If the folder holds a run that was not asked for.
    """
    kept, state = None, None
    if world.is_main:
        found = bool(find_checkpoints(request.out))
        if found and not request.resume and is_restartable():
            kept = read_kept(request.out) or {}
            if kept.get("command") != describe_command(request):
                raise _occupied(request.out, ", which another command began")
            state = load_checkpoint(request.out)
        elif not request.resume:
            check_folder(request.out)
        elif found:
            kept, state = read_kept(request.out), load_checkpoint(request.out)
    _check_shared(request.out, world, state)
    if world.is_main and request.resume and state is None:
        load_checkpoint(request.out)  # which says what is missing
    kept, state = world.share((kept, state))
    if state is None:
        return request, None, None
    if not request.resume:
        step = state["step"]
        log.info("the same command began this run: it goes on from step %d", step)
        # The checkpoint has all that was asked of a new run.
        request = dataclasses.replace(
            request, resume=True, init=None, overrides={}, scales=()
        )
    return fill(request, kept), kept, state


def check_folder(folder: Path) -> None:
    """Refuse a folder that another run's files lie in.

    Raises:
        OutputError: If there are any, or `folder` is a file.
    """
    if find_checkpoints(folder) or find_weights(folder) is not None:
        raise _occupied(folder)
    if folder.is_file():
        raise OutputError(f"{folder} is a file: --out names a folder")


def _occupied(folder: Path, what: str = "") -> OutputError:
    return OutputError(
        f"{folder} holds a run already{what}: --resume goes on with it, --out names "
        "another"
    )


def _check_shared(folder: Path, world: World, state: dict[str, Any] | None) -> None:
    """See to it that no node has a newer checkpoint than the main process found.

    After a restart the main process may run on another node than before: where nodes
    have folders of their own, the run would begin anew, or go back, without a word.
    """
    if world.size == 1:
        return
    own = -1 if state is None else int(state["step"])
    if not world.is_main and world.local_rank == 0:  # within a node all see the same
        with suppress(InputError):
            own = int(load_checkpoint(folder)["step"])
    main, *_ = seen = world.gather((own, platform.node()))
    step, node = max(seen, key=lambda each: each[0])
    if step > main[0]:
        there = "none" if main[0] < 0 else f"that of step {main[0]}"
        raise InputError(
            f"{folder} is not the same on all nodes: {node} has the checkpoint of step "
            f"{step}, {main[1]} with the main process {there}: --out names a folder "
            "that all nodes share"
        )


def check_divisible(world: World, model: nn.Module, recipe: Recipe) -> None:
    """See to it that a step means the same on several devices as on one.

    Raises:
        UsageError: If a device would be left without a crop, or if the network
            normalises by the statistics of a batch, of which it saw a share only.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if world.size > 1 and any(isinstance(part, norms) for part in model.modules()):
        raise UsageError(
            f"{recipe.model} normalises over the batch, of which each of several "
            "devices would see only a share: train it on one"
        )
    together = recipe.scales if recipe.scale_mode == "all" else recipe.scales[:1]
    crops = max(recipe.divide_batch(together).values())
    if crops < world.size:
        raise UsageError(
            f"{world.size} devices cannot share {crops} crops of a scale: fewer "
            f"devices, or a larger batch (--set batch={world.size * len(together)})"
        )


def find_difference(world: World, facts: Mapping[str, object]) -> str:
    """What another process says otherwise than the main one; nothing if all agree."""
    own = {name: json.dumps(value, default=str) for name, value in facts.items()}
    (first, there), *others = world.gather((own, platform.node()))
    for rank, (said, node) in enumerate(others, 1):
        for name, value in first.items():
            if said.get(name) != value:
                other = f"{said.get(name)} for process {rank} on {node}"
                return f"{name} is {value} on {there}, {other}"
    return ""
