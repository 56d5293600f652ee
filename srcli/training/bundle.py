"""From an export to the package: its file beside the code, its manifest entry."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from statistics import fmean
from typing import Any

from srcli.errors import InputError, UsageError, WeightsError
from srcli.pretrained.catalog import (
    WeightEntry,
    bundled_folder,
    make_entry,
    manifest,
    manifest_path,
    read_weights,
    sha256_of,
)
from srcli.training.export import FOLDER
from srcli.training.provenance import describe_network, name_file
from srcli.training.recipe import UNSTATED
from srcli.writing import write_whole

log = logging.getLogger(__name__)


def bundle_export(place: Path) -> WeightEntry:
    """Put an export beside the code and into the manifest.

    Nothing is measured: the entry's figures count. A file of the same name is replaced
    only by one that serves the same scales and has a higher mean PSNR on the new
    entry's first data set.

    Args:
        place: The entry's JSON, the folder with it and the weights, or the run's.

    Returns:
        The new entry of the manifest.

    Raises:
        InputError: If there is no export, or its entry cannot be read.
        WeightsError: If the weights are damaged or not those of the entry.
        UsageError: If the bundled file measures better or serves more, or if the entry
            lacks figures or the licence of the pictures.
        OutputError: If the file or the manifest cannot be written.
    """
    listing = _find_listing(place)
    entry = _read_entry(listing)
    weights = listing.with_name(entry.file)
    _check_weights(weights, entry, listing)
    _check_complete(entry, listing)
    _check_better(entry)
    # Both are complete before the first of them takes its place.
    with (
        write_whole(manifest_path()) as listed,
        write_whole(bundled_folder() / entry.file) as part,
    ):
        listed.write_text(_list_entry(entry), "utf-8")
        shutil.copyfile(weights, part)
    manifest.cache_clear()
    return entry


def _list_entry(entry: WeightEntry) -> str:
    """The manifest with `entry` in the place of the file's old one."""
    entries = [old for old in manifest() if old.file != entry.file] + [entry]
    document: dict[str, Any] = {
        "weights": [
            dataclasses.asdict(each) for each in sorted(entries, key=lambda e: e.file)
        ]
    }
    return json.dumps(document, indent=2) + "\n"


def _find_listing(place: Path) -> Path:
    """The entry's JSON.

    Raises:
        InputError: If there is none.
        UsageError: If there are several.
    """
    if place.suffix in (".json", ".safetensors"):
        return place.with_suffix(".json")
    folder = place / FOLDER if (place / FOLDER).is_dir() else place
    found = [
        path
        for path in sorted(folder.glob("*.json"))
        if path.with_suffix(".safetensors").is_file()
    ]
    if not found:
        raise InputError(
            f"no export in {place}: `srcli train -m MODEL --out RUN --export` makes one"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{folder} holds several exports, name one of {names}")
    return found[0]


def _read_entry(path: Path) -> WeightEntry:
    """The manifest entry that an export wrote.

    Raises:
        InputError: If it cannot be read or is none.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        entry = make_entry(values)
        name = name_file(entry.model, entry.scales, entry.degradation)
        if entry.file != name:
            raise ValueError(f"its file would be called {name}, not {entry.file}")
        for by_scale in entry.psnr.values():
            fmean(by_scale[str(scale)] for scale in entry.scales)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is no whole manifest entry ({error}): export the run again"
        ) from error
    return entry


def _check_weights(path: Path, entry: WeightEntry, listing: Path) -> None:
    """See to it that the weights are those of the entry.

    Raises:
        WeightsError: If they are missing, damaged or others.
    """
    try:
        same = sha256_of(path) == entry.sha256
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    network = describe_network(read_weights(path)) if same else {}
    if any(getattr(entry, name) != value for name, value in network.items()):
        same = False
    if not same or path.stat().st_size != entry.bytes:
        raise WeightsError(
            f"{path} is not what {listing.name} describes: export the run again"
        )


def _check_complete(entry: WeightEntry, listing: Path) -> None:
    """Refuse weights of which nobody knows how good they are or on whose pictures.

    Raises:
        UsageError: If the entry has no figures or no licence.
    """
    if not entry.psnr:
        raise UsageError(
            f"{listing} has no figures: export the run again with a data set"
        )
    if UNSTATED in (entry.data, entry.data_licence):
        raise UsageError(
            f"{listing} does not say on whose pictures it was trained: export the run "
            "again with --set data='...' --set data_licence='...'"
        )
    if any(teacher["licence"] == UNSTATED for teacher in entry.teachers):
        raise UsageError(
            f"{listing} does not say under which terms its teachers are: export the "
            "run again with --set teacher_licence='...'"
        )


def _check_alone(entry: WeightEntry) -> None:
    """Refuse a second file for what another one serves: only one would be found.

    Raises:
        UsageError: If there is another, for one scale or for several.
    """
    for old in manifest():
        same = (old.model, old.degradation) == (entry.model, entry.degradation)
        common = [f"x{scale}" for scale in old.scales if scale in entry.scales]
        if same and common:
            raise UsageError(
                f"{old.file} serves {entry.model} {', '.join(common)}: take it out of "
                f"the manifest before {entry.file} comes in"
            )


def _check_better(entry: WeightEntry) -> None:
    """Refuse to replace a file that measures better or serves other scales too.

    Raises:
        UsageError: If it does.
    """
    old = next((old for old in manifest() if old.file == entry.file), None)
    if old is None:
        _check_alone(entry)
        return
    lost = [f"x{scale}" for scale in old.scales if scale not in entry.scales]
    if lost:
        raise UsageError(
            f"{entry.file} stays: it serves {', '.join(lost)} too, the new weights not"
        )
    dataset, figures = next(iter(entry.psnr.items()))
    if known := old.psnr.get(dataset, {}):
        before = fmean(known.values())
        after = fmean(figures[scale] for scale in known)
        if before >= after:
            raise UsageError(
                f"{entry.file} stays: it has {before:.3f} dB on {dataset}, "
                f"the new weights {after:.3f} dB"
            )
    dropped = [name for name in old.psnr if name not in entry.psnr]
    if dropped:
        log.warning("the manifest's figures on %s go away", ", ".join(dropped))
