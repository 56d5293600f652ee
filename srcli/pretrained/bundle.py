"""The maintainers' command that takes an export into the package, in a checkout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from srcli.errors import InputError, SrcliError, UsageError, WeightsError
from srcli.pretrained import catalog
from srcli.pretrained.catalog import EXPORT_FOLDER, UNSTATED, WeightEntry, name_task
from srcli.pretrained.weight_file import describe_file
from srcli.storage import show_message
from srcli.writing import write_whole


def bundle_export(place: Path) -> str:
    """Put an export's file beside the code and its entry into the manifest.

    Args:
        place: The folder of the run or of its export, or a file of the export.

    Returns:
        A line to show: the file, its mean PSNR and that of the file it replaces.

    Raises:
        SrcliError: If there is no whole export, its entry says too little, a bundled
            file is as good, or something cannot be written.
    """
    entry, weights = _read_export(place)
    old = _find_old(entry)
    line = _compare(entry, old)
    entries = [other for other in catalog.manifest() if other is not old] + [entry]
    entries.sort(key=lambda each: each.file)
    text = json.dumps({"weights": [asdict(each) for each in entries]}, indent=2)
    # Both are complete before the first of them takes its place.
    with (
        write_whole(catalog.manifest_path()) as listed,
        write_whole(catalog.bundled_folder() / entry.file) as part,
    ):
        listed.write_text(text + "\n", "utf-8")
        part.write_bytes(weights.read_bytes())
    catalog.manifest.cache_clear()
    return line


def _read_export(place: Path) -> tuple[WeightEntry, Path]:
    """The manifest entry that an export wrote, and its weights, which are its own."""
    folder = place / EXPORT_FOLDER if (place / EXPORT_FOLDER).is_dir() else place
    found = [place] if place.is_file() else folder.glob("*.safetensors")
    listings = [p for path in found if (p := path.with_suffix(".json")).is_file()]
    if len(listings) != 1:
        raise InputError(
            f"{len(listings) or 'no'} exports in {place}: name a file of one; "
            "`srcli train -m MODEL --out RUN --export` makes one"
        )
    try:
        entry = catalog.make_entry(json.loads(listings[0].read_text("utf-8")))
        weights = listings[0].with_name(entry.file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{listings[0]} is no manifest entry ({error}): export the run again"
        ) from error
    facts = describe_file(weights)
    if any(getattr(entry, name) != value for name, value in facts.items()):
        raise WeightsError(f"{weights} is not what its entry says: export it again")
    if not entry.psnr:
        raise UsageError(f"{weights} has no figures: export it with a data set")
    licences = [teacher["licence"] for teacher in entry.teachers]
    if UNSTATED in (entry.data, entry.data_licence, *licences):
        raise UsageError(
            f"{weights} does not say on whose pictures or terms it was trained: export "
            "it with --set data='...', data_licence='...' or teacher_licence='...'"
        )
    return entry, weights


def _find_old(entry: WeightEntry) -> WeightEntry | None:
    """The entry that is replaced: of two for one scale only one would be found."""
    for old in catalog.manifest():
        same = (old.model, old.degradation) == (entry.model, entry.degradation)
        if same and set(old.scales) & set(entry.scales):
            if old.file == entry.file and set(old.scales) <= set(entry.scales):
                return old
            tasks = [name_task(each.scales, each.degradation) for each in (old, entry)]
            raise UsageError(
                f"{old.file} stays: it serves {tasks[0]}, the new weights {tasks[1]}"
            )
    return None


def _compare(new: WeightEntry, old: WeightEntry | None) -> str:
    """A line on what comes in and what goes, which must have done worse."""
    known = new.psnr if old is None else old.psnr
    sets = [name for name in known if name in new.psnr]
    if not sets:
        raise UsageError(f"{new.file} stays: no new figures on {', '.join(known)}")
    both = [(name, scale) for name in sets for scale in known[name]]
    before, after = (fmean(psnr[n][s] for n, s in both) for psnr in (known, new.psnr))
    where = ", ".join(sets)
    if old is None:
        return f"{new.file}: {after:.3f} dB on {where}, before nothing"
    if before >= after:
        raise UsageError(
            f"{new.file} stays: it has {before:.3f} dB on {where}, "
            f"the new weights {after:.3f} dB"
        )
    gone = "".join(f"; {name} not measured" for name in known if name not in sets)
    return f"{new.file}: {after:.3f} dB on {where}, before {before:.3f} dB{gone}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Bundle the export that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m srcli.pretrained.bundle",
        description="Put an export beside the code and into weights_manifest.json, if "
        "it does better than the file of its name: by the mean PSNR of all data sets "
        "and scales that both were measured on.",
    )
    where = "folder of a run or of its export, or a file of the export"
    parser.add_argument("place", metavar="RUN_OR_EXPORT", type=Path, help=where)
    try:
        line = bundle_export(parser.parse_args(arguments).place)
        sys.stdout.write(f"{show_message(line)}\n")
    except SrcliError as error:
        parser.exit(error.exit_code, f"error: {show_message(str(error))}\n")


if __name__ == "__main__":
    main()
