"""A run's weights measured as its paper was."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from srcli.errors import SrcliError
from srcli.evaluation.benchmark import BenchmarkRequest, Row, run_benchmark
from srcli.evaluation.contenders import BICUBIC, Engine, Selection
from srcli.evaluation.datasets import DATASET_NAMES, find_dataset
from srcli.progress import SILENT, Progress
from srcli.training.recipe import Recipe

_CPU = torch.device("cpu")


def make_request(
    weights: Path,
    recipe: Recipe,
    val: str,
    data_dir: Path | None = None,
    device: torch.device = _CPU,
) -> BenchmarkRequest:
    """What to measure of a run: its weights on its validation set, in fp32.

    The network goes by the recipe's name: a variant at other scales than its paper's
    is compared with that variant, not with the paper's main network.

    Args:
        weights: The run's weight file.
        recipe: The run's recipe.
        val: Name or folder of the validation set.
        data_dir: Where named sets lie.
        device: Where to run.
    """
    return BenchmarkRequest(
        datasets=(val,),
        selection=Selection(
            models=(recipe.model,),
            scales=recipe.scales,
            degradation=recipe.degradation,
            weights=weights,
        ),
        engine=Engine(device=str(device), precision="fp32"),
        data_dir=data_dir,
    )


def measure_run(
    weights: Path,
    recipe: Recipe,
    val: str | None,
    data_dir: Path | None = None,
    device: torch.device = _CPU,
    progress: Progress = SILENT,
) -> list[Row]:
    """The rows of bicubic and of a run's weights, as `make_request` asks.

    Args:
        weights: The run's weight file, see `find_weights`.
        recipe: The run's recipe.
        val: Name or folder of the validation set; None: there was none.
        data_dir: Where named sets lie.
        device: Where to run.
        progress: Told of every picture.

    Returns:
        Nothing where the set is no published one or is not at hand.

    Raises:
        InputError: If a picture is unreadable or too small.
        WeightsError: If the weights are missing or damaged.
    """
    if val is None:
        return []
    try:
        name = find_dataset(val, data_dir).name
    except SrcliError:  # it has gone since
        return []
    if name not in DATASET_NAMES:
        return []
    request = make_request(weights, recipe, val, data_dir, device)
    return run_benchmark(request, progress)


def add_bicubic(
    rows: Sequence[Row], request: BenchmarkRequest, progress: Progress = SILENT
) -> list[Row]:
    """The rows of a run that was measured without bicubic, each below bicubic's.

    Args:
        rows: Of one data set.
        request: What `make_request` gives for it.
        progress: Told of every picture.

    Raises:
        InputError: If the set has gone, or a picture of it is unreadable.
    """
    alone = dataclasses.replace(request.selection, models=(BICUBIC,), weights=None)
    bicubic = run_benchmark(dataclasses.replace(request, selection=alone), progress)
    return [
        each
        for base in bicubic
        for each in (base, *(row for row in rows if row.scale == base.scale))
    ]
