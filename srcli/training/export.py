"""A run's weights: measured as its paper was, and packed into a file to pass on."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from srcli.errors import InputError, SrcliError, UsageError, WeightsError
from srcli.evaluation.contenders import Engine, Selection
from srcli.evaluation.measurement import BenchmarkRequest, Row, run_benchmark
from srcli.evaluation.tables import build_document, format_command, format_line
from srcli.inference.device import choose_device
from srcli.models.base import SRModel
from srcli.pretrained.catalog import (
    BICUBIC,
    EXPORT_FOLDER,
    UNSTATED,
    WeightEntry,
    name_file,
)
from srcli.pretrained.datasets import DATASET_NAMES, find_dataset
from srcli.pretrained.weight_file import (
    describe_file,
    read_metadata,
    read_weights,
    save_weights,
)
from srcli.progress import SILENT, Progress
from srcli.storage import show_path
from srcli.training.checkpoint import TrainRequest, find_weights
from srcli.training.recipe import NAMES, Recipe, load_recipe, make_recipe
from srcli.training.teacher import TeacherFacts, describe_facts, read_facts
from srcli.training.validation import Validation
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

USUAL_SETS = ("set5", "set14", "b100", "urban100", "manga109")
# Half precision is stored where it moves the mean PSNR on this set by less than this.
DECIDING_SET = "set5"
HALF_TOLERANCE = 0.002  # dB
_DIGITS = {"psnr": 3, "ssim": 4}
_WORDS = ("data", "data_licence", "teacher_licence")  # what a user may say


def keep_published(val: str, data_dir: Path | None) -> tuple[str, ...]:
    """A run's validation set; nothing where it is no published one or not at hand."""
    try:
        name = find_dataset(val, data_dir).name
    except SrcliError:  # it has gone since, or there was none
        return ()
    return (val,) if name in DATASET_NAMES else ()


def make_request(
    weights: Path,
    recipe: Recipe,
    datasets: tuple[str, ...],
    data_dir: Path | None = None,
    device: str = "auto",
) -> BenchmarkRequest:
    """What to measure of a run: its weights on data sets, in fp32.

    The network goes by the recipe's name: a variant at other scales than its paper's
    is compared with that variant, not with the paper's main network.
    """
    selection = Selection(
        models=(recipe.model,),
        scales=recipe.scales,
        degradation=recipe.degradation,
        weights=weights,
    )
    engine = Engine(device=device, precision="fp32")
    return BenchmarkRequest(
        datasets=datasets, selection=selection, engine=engine, data_dir=data_dir
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The files of an export, and what is in them."""

    weights: Path
    listing: Path  # the manifest entry as JSON
    entry: WeightEntry
    stored: str  # "fp16" or "fp32"
    compared: tuple[Row, ...]  # the network's by data set and scale, below bicubic's
    request: BenchmarkRequest  # measures the file again

    @property
    def rows(self) -> tuple[Row, ...]:
        """The network's own."""
        return tuple(row for row in self.compared if row.model != BICUBIC)

    def as_document(self) -> dict[str, Any]:
        """The export as a JSON document: a benchmark's, the files, and the entry."""
        return {
            **build_document(self.rows, format_command(self.request)),
            "files": [show_path(self.weights), show_path(self.listing)],
            "stored": self.stored,
            "entry": dataclasses.asdict(self.entry),
        }


def export_run(
    folder: Path,
    *,
    model: str | None = None,
    datasets: tuple[str, ...] | None = None,
    data_dir: Path | None = None,
    of_recipe: bool = False,
    words: Mapping[str, Any] | None = None,
    device: str = "auto",
    progress: Progress = SILENT,
) -> Exported:
    """Write a run's best weights, or else its last, and their manifest entry.

    Both appear in `folder`/export, whole or not at all, in the place of an earlier
    export. The weights are stored in fp16 if that moves the mean PSNR on Set5 by less
    than `HALF_TOLERANCE`, measured; where Set5 is not at hand, in fp32.

    Args:
        folder: The run's.
        model: What the run must be of; None is anything.
        datasets: What to measure on; None is every one of `USUAL_SETS` that is there.
        data_dir: Where named sets lie.
        of_recipe: Whether the pictures were the data sets that the recipe names.
        words: What the user says of pictures and teachers, by the fields of a recipe.
        device: Where the network is run, in fp32.
        progress: Told of every picture.

    Raises:
        SrcliError: If the run is of another model, a set or word is unknown, weights or
            sets are missing or damaged, or a file cannot be written.
    """
    said = words or {}
    if not all(name in _WORDS and isinstance(said[name], str) for name in said):
        raise UsageError(
            "an export trains nothing: of --set it takes data='...', "
            "data_licence='...' and teacher_licence='...'"
        )
    weights = find_weights(folder)
    if weights is None:
        raise InputError(
            f"no weights in {folder}: --out names the folder of a run that has some"
        )
    network = read_weights(weights)
    terms = said.get("teacher_licence") or UNSTATED
    recipe, teachers, metadata = _read_training(weights, terms)
    if model is not None and model.lower() != recipe.model:
        raise UsageError(f"{folder} holds a run of {recipe.model}, not of {model}")
    sets = _find_sets(datasets, data_dir)
    name = name_file(recipe.model, recipe.scales, recipe.degradation)
    path = folder / EXPORT_FOLDER / name
    listing = path.with_suffix(".json")
    make_folder(path.parent)
    # Both are complete before the first of them takes its place.
    with write_whole(listing) as listed, write_whole(path) as part:
        dtype, why = torch.float32, "no Set5 at hand to measure fp16 on"
        deciding = sets.get(DECIDING_SET, DECIDING_SET)
        if keep_published(deciding, data_dir):
            asked = TrainRequest(
                model=recipe.model, out=folder, val=deciding, data_dir=data_dir
            )
            dtype, why = _choose_dtype(network, asked, recipe, device)
        save_weights(network, part, metadata, dtype=dtype)
        names = tuple(sets.values())
        request = make_request(part, recipe, names, data_dir, device)
        rows = run_benchmark(request, progress, _log_own) if sets else []
        figures: dict[str, dict[str, dict[str, float]]] = {m: {} for m in _DIGITS}
        for row in rows:
            for metric, table in figures.items() if row.model != BICUBIC else ():
                value = round(getattr(row, metric), _DIGITS[metric])
                table.setdefault(row.dataset, {})[str(row.scale)] = value
        shown = {metric: json.dumps(table) for metric, table in figures.items()}
        save_weights(network, part, metadata | (shown if rows else {}), dtype=dtype)
        data, licence = _describe_pictures(recipe, metadata, said, of_recipe=of_recipe)
        entry = WeightEntry(
            file=name,
            model=recipe.model,
            **describe_file(part),
            data=data,
            data_licence=licence,
            recipe=metadata["recipe_hash"],
            steps=int(metadata["steps"]),
            degradation=recipe.degradation,
            teachers=tuple(dataclasses.asdict(each) for each in teachers),
            psnr=figures["psnr"],
            ssim=figures["ssim"],
        )
        text = json.dumps(dataclasses.asdict(entry), indent=2)
        listed.write_text(text + "\n", "utf-8")
    stored = "fp16" if dtype == torch.float16 else "fp32"
    log.info("%s is stored in %s: %s", name, stored, why)
    return Exported(
        weights=path,
        listing=listing,
        entry=entry,
        stored=stored,
        compared=tuple(rows),
        request=make_request(path, recipe, names, data_dir, device),
    )


def _read_training(
    path: Path, terms: str
) -> tuple[Recipe, list[TeacherFacts], dict[str, str]]:
    """What a file says of its training: recipe, teachers and all of its metadata.

    `terms` are those of teachers whose own are not stated.
    """
    metadata = read_metadata(path)
    try:
        recipe = make_recipe(json.loads(metadata["recipe"]))
        _ = metadata["recipe_hash"], int(metadata["steps"])
        teachers = [
            dataclasses.replace(each, licence=terms)
            if each.licence == UNSTATED
            else each
            for each in read_facts(metadata)
        ]
    except (KeyError, ValueError, TypeError, UsageError) as error:
        raise WeightsError(
            f"{path} does not say how it was trained ({error}): "
            "`srcli train` writes files that do"
        ) from error
    return recipe, teachers, metadata | describe_facts(teachers)


def _describe_pictures(
    recipe: Recipe,
    metadata: Mapping[str, str],
    words: Mapping[str, str],
    *,
    of_recipe: bool,
) -> tuple[str, str]:
    """What the manifest says of the training pictures: which they are, and their terms.

    First comes what the weight file knows for certain, how many there were and their
    fingerprint; then the user's words, given with the export, the run or a recipe.
    """
    # What a recipe of srcli's says holds for the data sets that it names only.
    silent = [Recipe(model=recipe.model)]
    if not of_recipe:
        silent += [load_recipe(recipe.model, name) for name in NAMES]
    said = []
    for name in ("data", "data_licence"):
        word = getattr(recipe, name)
        known = word not in [getattr(each, name) for each in silent]
        said.append(words.get(name) or (word if known else ""))
    data = ": ".join(filter(None, (metadata.get("data"), said[0])))
    return data or UNSTATED, said[1] or UNSTATED


def _find_sets(names: tuple[str, ...] | None, data_dir: Path | None) -> dict[str, str]:
    """What to measure on: each set's name, and as what it was asked for."""
    sets, missing = {}, None
    for name in USUAL_SETS if names is None else names:
        try:
            sets[find_dataset(name, data_dir).name] = name
        except InputError as error:
            if names is not None:
                raise
            missing = error
    if missing is not None and not sets:
        if data_dir is not None:
            raise missing
        log.info("no data set is at hand, so nothing is measured: %s", missing)
    return sets


def _choose_dtype(
    network: SRModel, request: TrainRequest, recipe: Recipe, device: str
) -> tuple[torch.dtype, str]:
    """What the weights are stored in, and why: measured on the request's `val`."""
    short = copy.deepcopy(network).half().float()
    values = short.state_dict().values()
    if not all(v.isfinite().all() for v in values if v.is_floating_point()):
        return torch.float32, "fp16 cannot hold its values"
    place = choose_device(device)
    validate = Validation(request, recipe, network.color, place, "fp32").make_validator(
        ()
    )
    assert validate is not None
    before, after = (fmean(validate(each).values()) for each in (network, short))
    why = f"Set5 {before:.4f} dB in fp32, {after:.4f} dB in fp16"
    half = abs(after - before) < HALF_TOLERANCE
    return torch.float16 if half else torch.float32, why


def _log_own(row: Row) -> None:
    if row.model != BICUBIC:
        log.info("%s", format_line(row))
