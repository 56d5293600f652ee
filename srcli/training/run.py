"""From a request to a finished run: the pictures, the network, the loop."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.errors import InputError, OutputError, UsageError
from srcli.evaluation.datasets import Dataset, find_dataset, read_hr
from srcli.evaluation.metrics import psnr
from srcli.evaluation.protocol import Enlarger, Task, estimate
from srcli.imaging.degrade import crop_to_multiple
from srcli.inference.device import DTYPES, choose_device, choose_precision
from srcli.models import variant
from srcli.models.base import Color, SRModel
from srcli.pretrained.catalog import load_model
from srcli.progress import SILENT, Progress
from srcli.training.checkpoint import NAME, load_checkpoint
from srcli.training.data import CropSampler, find_pictures
from srcli.training.loop import Limits, Trainer, Validator
from srcli.training.recipe import Recipe, load_recipe, make_recipe, merge

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What `srcli train` was asked for."""

    model: str
    data: tuple[Path, ...]
    out: Path
    scales: tuple[int, ...] = ()  # instead of the recipe's
    recipe: str = "fast"
    overrides: dict[str, Any] = field(default_factory=dict)
    val: str | None = "set5"
    data_dir: Path | None = None
    resume: bool = False
    init: str | None = None  # "bundled" or a weight file
    max_minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a run came to."""

    out: Path
    steps: int
    best: dict[str, float]  # PSNR in dB by scale, and their mean
    best_step: int


def _recipe(request: TrainRequest) -> Recipe:
    """The request's recipe; a resumed run keeps its own, fields replaced as asked."""
    overrides = dict(request.overrides)
    if request.scales:
        overrides["scales"] = list(request.scales)
    if request.resume:
        kept = load_checkpoint(request.out)["recipe"]
        return make_recipe(merge(kept, overrides), "the checkpoint's recipe")
    return load_recipe(request.model, request.recipe, overrides)


def _network(request: TrainRequest, recipe: Recipe) -> SRModel:
    """A new network of the recipe's model, or one that starts from weights."""
    network_class, config = variant(recipe.model)
    values = {**config.as_dict(), **recipe.config, "scales": recipe.scales}
    network = network_class(type(config).from_dict(values))
    if request.init is None or request.resume:
        return network
    source: str | Path = (
        recipe.model if request.init == "bundled" else Path(request.init)
    )
    weights = load_model(source).state_dict()
    own = network.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and own[name].shape == value.shape
    }
    if not fitting:
        raise UsageError(f"no weight of {request.init} fits {recipe.model}")
    network.load_state_dict({**own, **fitting})
    log.info("%d of %d tensors start from %s", len(fitting), len(own), request.init)
    return network


def make_validator(
    dataset: Dataset,
    recipe: Recipe,
    color: Color,
    device: torch.device,
    precision: torch.dtype,
) -> Validator:
    """A function that measures a network's PSNR by its own protocol.

    Args:
        dataset: HR pictures; they stay in memory.
        recipe: Its scales and degradation.
        color: The network's, which decides the protocol.
        device: Where the network runs.
        precision: dtype of the autocast.
    """
    tasks = [
        Task(protocol=color, scale=scale, degradation=recipe.degradation)
        for scale in recipe.scales
    ]
    pictures = {
        task.scale: [
            crop_to_multiple(read_hr(path), task.scale)
            for path in dataset.pictures(task.scale)
        ]
        for task in tasks
    }
    autocast = torch.autocast(
        device.type, dtype=precision, enabled=precision != torch.float32
    )

    @torch.inference_mode()
    def validate(model: SRModel) -> dict[int, float]:
        results = {}
        for task in tasks:

            def enlarge(lr: Tensor, scale: int = task.scale) -> Tensor:
                with autocast:
                    sr: Tensor = model(lr[None].to(device), scale)
                return sr[0].float().cpu()

            values = []
            for hr in pictures[task.scale]:
                found = estimate(hr, task, Enlarger(color, enlarge))
                values.append(psnr(found.luma, found.reference, task.scale))
            results[task.scale] = sum(values) / len(values)
        return results

    return validate


def train(request: TrainRequest, progress: Progress = SILENT) -> TrainSummary:
    """Train a network as the request says, from the start or from a checkpoint.

    Raises:
        UsageError: For an unknown model, recipe, field or scale.
        InputError: If pictures, a checkpoint or the validation set are missing.
        OutputError: If the run's folder exists already or cannot be written.
        DeviceError: If the device is not there.
        TrainingStoppedError: After Ctrl-C or SIGTERM.
    """
    if not request.resume and (request.out / NAME).exists():
        raise OutputError(
            f"{request.out} holds a run already: --resume goes on with it, "
            "--out names another"
        )
    recipe = _recipe(request)
    torch.manual_seed(request.seed)
    network = _network(request, recipe)
    device = choose_device(request.device)
    precision = DTYPES[choose_precision(request.precision, device)]
    if not request.data:
        raise InputError(
            f"no training pictures: the recipe was made for {recipe.data}; "
            "`srcli train --data FOLDER` names yours, `srcli download --list` what "
            "can be fetched"
        )
    validate = None
    if request.val is not None:
        dataset = find_dataset(request.val, request.data_dir)
        validate = make_validator(dataset, recipe, network.color, device, precision)
    sampler = CropSampler(
        find_pictures(request.data),
        recipe,
        network.color,
        device,
        seed=request.seed,
        progress=progress,
    )
    log.info(
        "%s: %d pictures, %.1f megapixels, %d skipped, on %s in %s",
        recipe.model,
        sampler.count,
        sampler.pixels / 1e6,
        len(sampler.skipped),
        device,
        str(precision).removeprefix("torch."),
    )
    trainer = Trainer(
        network.to(device),
        recipe,
        sampler,
        request.out,
        validate=validate,
        precision=precision,
        progress=progress,
    )
    if request.resume:
        trainer.resume()
    trainer.run(Limits(max_minutes=request.max_minutes))
    return TrainSummary(request.out, trainer.step, trainer.best, trainer.best_step)
