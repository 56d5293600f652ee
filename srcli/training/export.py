"""A run's weights as a file to pass on: small, measured, with its manifest entry."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch

from srcli.errors import InputError, UsageError
from srcli.evaluation.benchmark import BenchmarkRequest, Row, run_benchmark
from srcli.evaluation.contenders import BICUBIC, Engine, Selection
from srcli.evaluation.datasets import canonical_name, find_dataset
from srcli.evaluation.report import build_document, format_command
from srcli.evaluation.table import format_line
from srcli.models.base import SRModel
from srcli.pretrained.catalog import WeightEntry, save_weights, sha256_of
from srcli.progress import SILENT, Progress
from srcli.storage import show_path
from srcli.training.checkpoint import DEFAULT_VAL, RUN_FILE, TrainRequest, recall
from srcli.training.provenance import (
    Provenance,
    TrainedWeights,
    describe_network,
    describe_pictures,
    find_weights,
    read_trained,
    state_terms,
)
from srcli.writing import make_folder, write_whole

log = logging.getLogger(__name__)

FOLDER = "export"  # in a run's folder
USUAL_SETS = ("set5", "set14", "b100", "urban100", "manga109")
# Half precision is stored where it moves the mean PSNR on this set by less than this.
DECIDING_SET = "set5"
HALF_TOLERANCE = 0.002  # dB
_DIGITS = {"psnr": 3, "ssim": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The files of an export, and what is in them."""

    weights: Path
    listing: Path  # the manifest entry as JSON
    entry: WeightEntry
    stored: Literal["fp16", "fp32"]
    rows: tuple[Row, ...]  # the network's own, by data set and scale
    request: BenchmarkRequest  # measures the file again

    def as_document(self) -> dict[str, Any]:
        """The export as a JSON document: a benchmark's, the files, and the entry."""
        return {
            **build_document(self.rows, format_command(self.request)),
            "files": [show_path(self.weights), show_path(self.listing)],
            "stored": self.stored,
            "entry": dataclasses.asdict(self.entry),
        }


def export_finished(request: TrainRequest, progress: Progress = SILENT) -> Exported:
    """The export that ends a run: measured on its validation set, if that has a name.

    Args:
        request: The run's.
        progress: Told of every picture.

    Raises:
        SrcliError: As `export_run`.
    """
    named = canonical_name(request.val or DEFAULT_VAL)
    return export_run(
        request.out,
        datasets=() if named is None else (named,),
        data_dir=request.data_dir,
        engine=Engine(device=request.device, precision="fp32"),
        progress=progress,
    )


def export_run(
    folder: Path,
    *,
    model: str | None = None,
    datasets: tuple[str, ...] | None = None,
    data_dir: Path | None = None,
    provenance: Provenance | None = None,
    engine: Engine | None = None,
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
        data_dir: Where named sets lie; None is where the run's validation set lay.
        provenance: What to say of pictures and teachers; see `describe_pictures`.
        engine: How the network is run; None is in fp32 on the fastest device.
        progress: Told of every picture.

    Raises:
        UsageError: If the run is of another model, or a data set is unknown.
        InputError: If the run or a data set is missing, or cannot be read.
        WeightsError: If the weights are damaged, or do not say how they were trained.
        OutputError: If a file cannot be written.
        DeviceError: If the device is absent.
    """
    trained = read_trained(find_weights(folder))
    if model is not None and model.lower() != trained.model:
        raise UsageError(f"{folder} holds a run of {trained.model}, not of {model}")
    kept = recall(TrainRequest(model=trained.model, out=folder, data_dir=data_dir))
    # A run that does not say which pictures were named may have been given any.
    of_recipe = (folder / RUN_FILE).is_file() and not kept.data
    said = provenance or Provenance()
    trained = state_terms(trained, said)
    data, licence = describe_pictures(trained, said, of_recipe=of_recipe)
    sets = _find_sets(datasets, kept.data_dir)
    bench = _Bench(
        BenchmarkRequest(
            datasets=tuple(sets.values()),
            selection=Selection(
                models=(trained.model,),
                scales=trained.network.config.scales,
                degradation=trained.degradation,
            ),
            engine=engine or Engine(precision="fp32"),
            data_dir=kept.data_dir,
        ),
        progress,
    )
    weights = folder / FOLDER / trained.file_name
    listing = weights.with_suffix(".json")
    make_folder(weights.parent)
    # Both are complete before the first of them takes its place.
    with write_whole(listing) as listed, write_whole(weights) as part:
        half, rows = _store(trained, part, sets, bench)
        entry = WeightEntry(
            file=weights.name,
            sha256=sha256_of(part),
            bytes=part.stat().st_size,
            model=trained.model,
            **describe_network(trained.network),
            data=data,
            data_licence=licence,
            recipe=trained.recipe_hash,
            steps=trained.steps,
            degradation=trained.degradation,
            teachers=tuple(dataclasses.asdict(each) for each in trained.teachers),
            psnr=_tabulate(rows, "psnr"),
            ssim=_tabulate(rows, "ssim"),
        )
        text = json.dumps(dataclasses.asdict(entry), indent=2)
        listed.write_text(text + "\n", "utf-8")
    return Exported(
        weights=weights,
        listing=listing,
        entry=entry,
        stored="fp16" if half else "fp32",
        rows=tuple(rows),
        request=bench.request_for(weights),
    )


@dataclass(frozen=True, slots=True)
class _Bench:
    """Measures weight files of one network, always in the same way."""

    request: BenchmarkRequest  # of no file yet
    progress: Progress

    def request_for(self, path: Path, *datasets: str) -> BenchmarkRequest:
        """What measures the file at `path`; no data set is all of the request's."""
        return dataclasses.replace(
            self.request,
            datasets=datasets or self.request.datasets,
            selection=dataclasses.replace(self.request.selection, weights=path),
        )

    def measure(self, path: Path, dataset: str) -> list[Row]:
        """The file's own rows of one data set, without bicubic's."""
        rows = run_benchmark(self.request_for(path, dataset), self.progress)
        own = [row for row in rows if row.model != BICUBIC]
        for row in own:
            log.info("%s", format_line(row))
        return own


def _find_sets(names: tuple[str, ...] | None, data_dir: Path | None) -> dict[str, str]:
    """What to measure on: each set's name, and as what it was asked for.

    Raises:
        UsageError: If a name is unknown.
        InputError: If a set that was named is missing, or `data_dir` holds none.
    """
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


def _store(
    trained: TrainedWeights, path: Path, sets: dict[str, str], bench: _Bench
) -> tuple[bool, list[Row]]:
    """Write the weights to `path`; returns whether in fp16, and what they measure."""
    half, deciding = _decide(trained, path, sets.get(DECIDING_SET), bench)
    _save(trained, path, half=half)
    rows = [row for row in deciding if row.dataset in sets]
    done = {row.dataset for row in rows}
    for name, given in sets.items():
        if name not in done:
            rows += bench.measure(path, given)
    if rows:
        figures = {name: json.dumps(_tabulate(rows, name)) for name in _DIGITS}
        _save(trained, path, half=half, figures=figures)
    return half, rows


def _decide(
    trained: TrainedWeights, path: Path, named: str | None, bench: _Bench
) -> tuple[bool, list[Row]]:
    """Whether fp16 serves, and what is to be stored measures on Set5; uses `path`."""
    name = trained.file_name
    given = named or DECIDING_SET
    try:
        find_dataset(given, bench.request.data_dir)
    except InputError:
        log.info("%s is stored in fp32: no Set5 at hand to measure fp16 on", name)
        return False, []
    _save(trained, path, half=False)
    full = bench.measure(path, given)
    if not _fits_half(trained.network):
        log.info("%s is stored in fp32: fp16 cannot hold its values", name)
        return False, full
    _save(trained, path, half=True)
    short = bench.measure(path, given)
    before, after = _mean_psnr(full), _mean_psnr(short)
    half = abs(after - before) < HALF_TOLERANCE
    log.info(
        "%s is stored in %s: Set5 %.4f dB in fp32, %.4f dB in fp16",
        name, "fp16" if half else "fp32", before, after,
    )  # fmt: skip
    return half, short if half else full


def _fits_half(network: SRModel) -> bool:
    """Whether no weight leaves the range of fp16."""
    return all(
        bool(value.half().isfinite().all())
        for value in network.state_dict().values()
        if value.is_floating_point()
    )


def _save(
    trained: TrainedWeights,
    path: Path,
    *,
    half: bool,
    figures: Mapping[str, str] | None = None,
) -> None:
    """Write the weights with all that their file said of them, and their figures."""
    metadata = {**trained.metadata, **(figures or {})}
    dtype = torch.float16 if half else torch.float32
    save_weights(trained.network, path, metadata, dtype=dtype)


def _mean_psnr(rows: Sequence[Row]) -> float:
    """Over the scales, dB."""
    return fmean(row.psnr for row in rows)


def _tabulate(rows: Sequence[Row], metric: str) -> dict[str, dict[str, float]]:
    """Figures by data set and scale."""
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        value = round(getattr(row, metric), _DIGITS[metric])
        table.setdefault(row.dataset, {})[str(row.scale)] = value
    return table
