"""The command `srcli download`: weights and data sets, checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from typer import Argument

from srcli.cli import options
from srcli.cli.console import out, print_json, print_line, progress_bar
from srcli.cli.models import SHOWN_SET, compare
from srcli.cli.options import flag, option
from srcli.errors import PartialFailureError, SrcliError, UsageError
from srcli.pretrained import catalog
from srcli.storage import show_message, show_path
from srcli.units import format_bytes

if TYPE_CHECKING:
    from srcli.pretrained.install import Item

log = logging.getLogger(__name__)


def download(
    names: Annotated[
        list[str] | None,
        Argument(metavar="NAME", help="Models or data sets, as --list shows them."),
    ] = None,
    everything: Annotated[
        bool, flag("Download all weights and all data sets.", "--all")
    ] = False,
    listing: Annotated[
        bool, flag("Show what there is, its size and its terms.", "--list")
    ] = False,
    data_dir: Annotated[
        Path | None,
        option(
            "FOLDER",
            "Where data sets go.",
            show_default="$SRCLI_DATA_DIR, else the user's cache",
        ),
    ] = None,
    keep_archive: Annotated[
        bool, flag("Keep archives after unpacking.", "--keep-archive")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Download weights and data sets; broken downloads go on where they stopped."""
    from srcli.pretrained.datasets import data_folders
    from srcli.pretrained.install import list_items, select_items

    folder = data_folders(data_dir)[0]
    if listing:
        rows = [
            _describe(item, folder)
            for item in (select_items(names) if names else list_items())
        ]
        if as_json:
            print_json({"data_dir": show_path(folder), "items": rows})
        else:
            _show_table(rows)
            print_line(f"data sets go to {show_path(folder)}")
        return
    if bool(names) == everything:
        raise UsageError(
            "name models or data sets to download, or give --all instead; "
            "`srcli download --list` shows what there is"
        )
    items = select_items(names or ())
    if everything:
        items = list_items()
        asked = [item for item in items if item.ask and not item.find(folder)]
        for item in asked:
            log.info("%s is left out: ask for it at %s", item.name, item.ask)
        items = tuple(item for item in items if item not in asked)
    _download(items, folder, keep_archive, as_json)


def _download(
    items: tuple[Item, ...], folder: Path, keep_archive: bool, as_json: bool
) -> None:
    """Install the items, one after the other, and show what became of each."""
    from srcli.pretrained.install import install

    results, errors = [], []
    with progress_bar() as progress:
        for item in items:
            status, paths, error = "failed", list[str](), None
            try:
                status = install(
                    item, folder, keep_archive=keep_archive, progress=progress
                )
                paths = [show_path(path) for path in item.find(folder)]
                if not as_json:
                    print_line("\n  ".join([f"{item.name}: {status}", *paths]))
            except SrcliError as failure:
                errors.append(failure)
                error = show_message(str(failure))
                if len(items) > 1:
                    log.error("%s", failure)
            result = {"name": item.name, "kind": item.kind, "status": status}
            results.append({**result, "paths": paths, "error": error})
    if as_json:
        print_json({"results": results})
    if len(items) == 1 and errors:
        raise errors[0]
    if errors:
        kinds = {type(error) for error in errors}
        are_alike = len(errors) == len(items) and len(kinds) == 1
        kind = kinds.pop() if are_alike else PartialFailureError
        raise kind(f"{len(errors)} of {len(items)} downloads failed")


def _describe(item: Item, folder: Path) -> dict[str, Any]:
    """One item of the list, as JSON has it."""
    from srcli.pretrained.install import ModelWeights

    paths = [show_path(path) for path in item.find(folder)]
    entries = item.entries if isinstance(item, ModelWeights) else ()
    return {
        "name": item.name,
        "kind": item.kind,
        "bytes": item.size,
        "terms": item.terms,
        "urls": list(item.urls),
        "part_of": item.part_of or None,
        "ask": item.ask or None,
        "installed": bool(paths),
        "paths": paths,
        "files": [
            {
                "file": entry.file,
                "bytes": entry.bytes,
                "scales": list(entry.scales),
                "degradation": entry.degradation,
                "installed": catalog.locate(entry) is not None,
                "psnr": compare(entry),
            }
            for entry in entries
        ],
    }


def _show_table(rows: list[dict[str, Any]]) -> None:
    """The items for people; below a model its files, with what they measure."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "size", "state", "terms of use"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for row in rows:
        where = f"in {row['part_of']}" if row["part_of"] else ""
        state = (
            "installed" if row["installed"] else (row["ask"] and "on request") or where
        )
        size = format_bytes(row["bytes"])
        table.add_row(row["name"], row["kind"], size, state, row["terms"])
        for file in row["files"]:
            figures = file["psnr"].get(SHOWN_SET, {}).values()
            ours = " ".join(f"{each['ours']:.2f}" for each in figures)
            paper = " ".join(f"{each['paper'] or float('nan'):.2f}" for each in figures)
            table.add_row(
                "",
                catalog.name_task(file["scales"], file["degradation"]),
                format_bytes(file["bytes"]),
                "installed" if file["installed"] else "",
                f"Set5 {ours} dB (paper {paper})".replace("nan", "-") if ours else "",
            )
    out.print(table)
