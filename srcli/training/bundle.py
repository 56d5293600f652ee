"""From a run's weights to a bundled file: the smaller format, measured, listed."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from srcli.errors import OutputError, UsageError
from srcli.evaluation.benchmark import BenchmarkRequest, Row, run_benchmark
from srcli.evaluation.contenders import BICUBIC, Engine, Selection
from srcli.models.base import SRModel, count_parameters
from srcli.pretrained.catalog import (
    WeightEntry,
    bundled_folder,
    manifest,
    manifest_path,
    read_weights,
    save_weights,
    sha256_of,
)
from srcli.progress import SILENT, Progress
from srcli.writing import write_whole

log = logging.getLogger(__name__)

# Half precision is stored where it moves the mean PSNR on Set5 by less than this, dB.
HALF_TOLERANCE = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What the manifest says beyond what a weight file knows itself."""

    model: str  # the name that users will type
    data: str
    data_licence: str
    degradation: str = "bi"


def _measure(path: Path, request: BenchmarkRequest, progress: Progress) -> list[Row]:
    """A weight file's own rows of a benchmark."""
    selection = dataclasses.replace(request.selection, weights=path)
    request = dataclasses.replace(request, selection=selection)
    return [row for row in run_benchmark(request, progress) if row.model != BICUBIC]


def _mean_psnr(rows: list[Row]) -> float:
    return sum(row.psnr for row in rows) / len(rows)


def _tabulate(rows: list[Row], metric: str, digits: int) -> dict[str, dict[str, float]]:
    """Figures by data set and scale."""
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        value = round(getattr(row, metric), digits)
        table.setdefault(row.dataset, {})[str(row.scale)] = value
    return table


def _store(network: SRModel, metadata: dict[str, str], path: Path, half: bool) -> None:
    dtype = torch.float16 if half else torch.float32
    save_weights(network, path, metadata, dtype=dtype)


def bundle_weights(
    source: Path,
    provenance: Provenance,
    datasets: tuple[str, ...] = ("set5", "set14", "b100"),
    data_dir: Path | None = None,
    progress: Progress = SILENT,
) -> WeightEntry:
    """Put a run's weights beside the code and into the manifest.

    The file is stored in half precision where Set5 moves by less than
    `HALF_TOLERANCE`, and replaces one of the same name only if it measures better.

    Args:
        source: A weight file of `srcli train`.
        provenance: Name, data and licence.
        datasets: What it is measured on; the first decides.
        data_dir: Where they lie.
        progress: Told of every picture.

    Returns:
        The new entry of the manifest.

    Raises:
        WeightsError: If the source cannot be read.
        UsageError: If the bundled file measures better.
        InputError: If a data set is missing.
        OutputError: If the file or the manifest cannot be written.
    """
    network = read_weights(source)
    metadata = _metadata(source)
    scales = network.config.scales
    parts = [provenance.model]
    if len(scales) == 1:
        parts.append(f"x{scales[0]}")
    if provenance.degradation != "bi":
        parts.append(provenance.degradation)
    every = BenchmarkRequest(
        datasets=datasets,
        selection=Selection(degradation=provenance.degradation),
        engine=Engine(precision="fp32"),
        data_dir=data_dir,
    )
    deciding = dataclasses.replace(every, datasets=datasets[:1])
    target = bundled_folder() / f"{'_'.join(parts)}.safetensors"
    trial = target.with_name(target.stem + ".trial.safetensors")
    try:
        measured = _measure(source, deciding, progress)
        _check_better(target.name, measured)
        full = _mean_psnr(measured)
        _store(network, metadata, trial, half=True)
        half = _mean_psnr(_measure(trial, deciding, progress))
        log.info("%s: %.4f dB in fp32, %.4f dB in fp16", target.name, full, half)
        if abs(half - full) >= HALF_TOLERANCE:
            _store(network, metadata, trial, half=False)
        rows = _measure(trial, every, progress)
        trial.replace(target)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from error
    finally:
        trial.unlink(missing_ok=True)
    entry = WeightEntry(
        file=target.name,
        sha256=sha256_of(target),
        bytes=target.stat().st_size,
        model=provenance.model,
        arch=network.arch,
        scales=scales,
        config=network.config.as_dict(),
        parameters=count_parameters(network),
        data=provenance.data,
        data_licence=provenance.data_licence,
        recipe=metadata.get("recipe_hash", "unknown"),
        steps=int(metadata.get("steps", "0")),
        degradation=provenance.degradation,
        psnr=_tabulate(rows, "psnr", 3),
        ssim=_tabulate(rows, "ssim", 4),
    )
    _list_entry(entry)
    return entry


def _metadata(path: Path) -> dict[str, str]:
    """What a weight file says of its training."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _check_better(name: str, rows: list[Row]) -> None:
    """Refuse to replace a file that measures better at the same scales.

    Raises:
        UsageError: If it does.
    """
    dataset, psnr = rows[0].dataset, _mean_psnr(rows)
    for entry in manifest():
        known = entry.psnr.get(dataset, {})
        if entry.file == name and set(known) == {str(row.scale) for row in rows}:
            before = sum(known.values()) / len(known)
            if before >= psnr:
                raise UsageError(
                    f"{name} stays: it has {before:.3f} dB on {dataset}, "
                    f"the new weights {psnr:.3f} dB"
                )


def _list_entry(entry: WeightEntry) -> None:
    """Write the manifest with `entry` in the place of the file's old one."""
    path = manifest_path()
    entries = [old for old in manifest() if old.file != entry.file] + [entry]
    document: dict[str, Any] = {
        "weights": [
            dataclasses.asdict(each) for each in sorted(entries, key=lambda e: e.file)
        ]
    }
    with write_whole(path) as part:
        part.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    manifest.cache_clear()
