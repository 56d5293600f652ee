"""Whether a run begins anew or goes on, decided once for all of its processes.

The main process looks into the run's folder and gives the others what it finds there,
so that they cannot differ in where they begin.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from srcli import __version__
from srcli.errors import InputError, OutputError, UsageError
from srcli.training.checkpoint import (
    find_checkpoints,
    load_checkpoint,
    pack_state,
    unpack_state,
)
from srcli.training.data import CropSampler
from srcli.training.distributed import World, is_restartable
from srcli.training.provenance import has_weights
from srcli.training.recipe import Recipe
from srcli.training.request import (
    NAME,
    TrainRequest,
    describe_command,
    fill,
    name_val,
    read_kept,
)
from srcli.training.teacher import Teachers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a run begins, the same in all processes.

    Attributes:
        request: What was asked for, its gaps filled from the run's folder.
        state: The checkpoint to go on from; None where the run begins anew.
        command: What the run was begun with, as `describe_command` says it; None where
            that is not known.
        same_val: Whether the best so far was measured on what is validated on now.
    """

    request: TrainRequest
    state: dict[str, Any] | None = None
    command: dict[str, Any] | None = None
    same_val: bool = True


def begin_run(request: TrainRequest, world: World) -> Beginning:
    """Find out whether the run goes on, and from what.

    It does with `request.resume`; and under torchrun, which gives the same command
    again when it restarts the processes, where the same command began the run.

    Raises:
        InputError: If a checkpoint is missing or damaged, or if the run's folder is not
            the same one for all nodes.
        OutputError: If the folder holds a run that was not asked for.
        PeerLostError: If another process has ended.
    """
    kept, state, resume = None, None, request.resume
    if world.is_main:
        found = bool(find_checkpoints(request.out))
        resume = resume or (is_restartable() and _is_ours(request, found=found))
        if not resume:
            check_folder(request.out)
        if resume and found:
            kept, state = read_kept(request.out), load_checkpoint(request.out)
    _check_shared(request.out, world, state)
    if world.is_main and request.resume and state is None:
        load_checkpoint(request.out)  # which says what is missing
    if world.size > 1:
        packed = pack_state(state) if state is not None else None
        resume, kept, packed = world.share((resume, kept, packed))
        if packed is not None and not world.is_main:
            state = unpack_state(packed)
    if state is None:
        return Beginning(request, command=describe_command(request))
    if not request.resume:
        log.info(
            "%s: the same command began this run: it goes on from step %d",
            request.out,
            state["step"],
        )
        request = _go_on(request)
    filled = fill(request, kept)
    before = fill(dataclasses.replace(request, val=None), kept)
    return Beginning(
        filled,
        state,
        command=None if kept is None else kept.get("command"),
        same_val=name_val(before) == name_val(filled),
    )


def check_folder(folder: Path) -> None:
    """Refuse a folder that another run's files lie in.

    Raises:
        OutputError: If there are any, or `folder` is a file.
    """
    if find_checkpoints(folder) or has_weights(folder):
        raise OutputError(
            f"{folder} holds a run already: --resume goes on with it, "
            "--out names another"
        )
    if folder.is_file():
        raise OutputError(f"{folder} is a file: --out names a folder")


def _is_ours(request: TrainRequest, *, found: bool) -> bool:
    """Whether the folder holds a run that this very command began.

    Raises:
        OutputError: If another command began it.
        InputError: If what the run remembers of itself is damaged.
    """
    if not found:
        if (request.out / NAME).is_file() and not has_weights(request.out):
            log.info("%s: no checkpoint yet: the run begins anew", request.out)
        return False
    kept = read_kept(request.out) or {}
    if kept.get("command") == describe_command(request):
        return True
    raise OutputError(
        f"{request.out} holds a run already, which another command began: --resume "
        "goes on with it, --out names another"
    )


def _go_on(request: TrainRequest) -> TrainRequest:
    """The request without what it asked of a new run: the checkpoint has it all."""
    return dataclasses.replace(request, resume=True, init=None, overrides={}, scales=())


def _check_shared(folder: Path, world: World, state: dict[str, Any] | None) -> None:
    """See to it that no node has a newer checkpoint than the main process found.

    After a restart the main process may run on another node than before: where nodes
    have folders of their own, the run would begin anew, or go back, without a word.

    Raises:
        InputError: If one has.
    """
    if world.size == 1:
        return
    own = -1 if state is None else int(state["step"])
    # Within a node all see the same.
    if not world.is_main and world.local_rank == 0:
        own = _find_step(folder)
    seen = world.gather((own, platform.node()))
    step, node = max(seen, key=lambda each: each[0])
    if step > seen[0][0]:
        there = "none" if seen[0][0] < 0 else f"that of step {seen[0][0]}"
        raise InputError(
            f"{folder} is not the same on all nodes: {node} has the checkpoint of step "
            f"{step}, {seen[0][1]} with the main process {there}: --out names a folder "
            "that all nodes share"
        )


def _find_step(folder: Path) -> int:
    """The step of the newest whole checkpoint; -1 where there is none."""
    try:
        return int(load_checkpoint(folder)["step"])
    except InputError:
        return -1


def check_settings(
    world: World,
    request: TrainRequest,
    recipe: Recipe,
    precision: str,
    teachers: Teachers | None,
) -> None:
    """See to it that all processes were started for the same training.

    Raises:
        UsageError: If they were not.
    """
    settings = {
        "srcli": __version__,
        **recipe.as_dict(),
        "seed": request.seed,
        "precision": precision,
        "--max-minutes": request.max_minutes,
        "--teacher": None if teachers is None else teachers.fingerprint,
    }
    told = {name: json.dumps(value, default=str) for name, value in settings.items()}
    first, *others = world.gather((told, platform.node()))
    for rank, (other, node) in enumerate(others, 1):
        for name in first[0]:
            if other.get(name) != first[0][name]:
                raise UsageError(
                    f"the processes were started differently: {name} is "
                    f"{first[0][name]} on {first[1]} and {other.get(name)} for process "
                    f"{rank} on {node}: give every node the same command"
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


def check_pictures(world: World, sampler: CropSampler) -> None:
    """See to it that all processes draw their crops from the same pictures.

    Raises:
        InputError: If they do not.
    """
    own = (sampler.count, sampler.pixels, sampler.fingerprint)
    first, *others = world.gather((own, platform.node()))
    for rank, (seen, node) in enumerate(others, 1):
        if seen != first[0]:
            raise InputError(
                f"the nodes see different pictures: {_say(first[0])} on {first[1]}, "
                f"{_say(seen)} for process {rank} on {node}: --data has to hold the "
                "same files on all of them"
            )


def _say(pictures: tuple[int, int, str]) -> str:
    count, pixels, fingerprint = pictures
    return f"{count} of {pixels / 1e6:.2f} megapixels ({fingerprint})"
