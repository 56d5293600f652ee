"""The command `srcli download`: weights and data sets, checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.errors import PartialFailureError, SrcliError, UsageError
from srcli.pretrained.catalog import name_task
from srcli.storage import show_message, show_path

if TYPE_CHECKING:
    from srcli.pretrained.catalog import WeightEntry
    from srcli.pretrained.install import Item
    from srcli.progress import Progress

log = logging.getLogger(__name__)

_SHOWN_SET = "set5"  # the table has room for one; --json gives all


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Models or data sets, as --list shows them."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Download all weights and all data sets.")
    ] = False,
    listing: Annotated[
        bool,
        typer.Option("--list", help="Show what there is, its size and its terms."),
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for data sets; else $SRCLI_DATA_DIR, else the user's cache."
        ),
    ] = None,
    keep_archive: Annotated[
        bool, typer.Option("--keep-archive", help="Keep archives after unpacking.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON document to stdout.")
    ] = False,
) -> None:
    """Download weights and data sets; broken downloads go on where they stopped."""
    from srcli.cli.console import progress_bar
    from srcli.pretrained.datasets import data_folders
    from srcli.pretrained.install import list_items, select_items

    folder = data_folders(data_dir)[0]
    if listing:
        _show_list(select_items(names) if names else list_items(), folder, as_json)
        return
    if bool(names) == everything:
        raise UsageError(
            "name models or data sets to download, or give --all instead; "
            "`srcli download --list` shows what there is"
        )
    items = select_items(names) if names else _choose_all(list_items(), folder)
    results = []
    errors: list[SrcliError] = []
    with progress_bar() as progress:
        for item in items:
            result, error = _install(item, folder, keep_archive, progress)
            results.append(result)
            if error is not None:
                errors.append(error)
    _show_results(results, as_json)
    _raise_failures(errors, len(items))


def _choose_all(items: tuple[Item, ...], folder: Path) -> tuple[Item, ...]:
    """Every item that can be downloaded; those given out on request are left out."""
    asked = [item for item in items if item.ask and not item.find(folder)]
    for item in asked:
        log.info("%s is left out: ask for it at %s", item.name, item.ask)
    return tuple(item for item in items if item not in asked)


def _install(
    item: Item, folder: Path, keep_archive: bool, progress: Progress
) -> tuple[dict[str, Any], SrcliError | None]:
    """One item's result for the user, and the error where there was one."""
    from srcli.pretrained.install import install

    result: dict[str, Any] = {"name": item.name, "kind": item.kind}
    try:
        status = install(item, folder, keep_archive=keep_archive, progress=progress)
    except SrcliError as error:
        failed = {"status": "failed", "paths": [], "error": show_message(str(error))}
        return result | failed, error
    paths = [show_path(path) for path in item.find(folder)]
    return result | {"status": status, "paths": paths, "error": None}, None


def _raise_failures(errors: list[SrcliError], count: int) -> None:
    """End with the error itself where it was the only task, else with their number."""
    if not errors:
        return
    if count == 1:
        raise errors[0]
    for error in errors:
        log.error("%s", error)
    summary = f"{len(errors)} of {count} downloads failed"
    kinds = {type(error) for error in errors}
    if len(errors) == count and len(kinds) == 1:
        raise kinds.pop()(summary)
    raise PartialFailureError(summary)


def _show_results(results: list[dict[str, Any]], as_json: bool) -> None:
    from srcli.cli.console import out, print_json

    if as_json:
        print_json({"results": results})
        return
    for result in results:
        if result["error"]:
            continue  # said on stderr
        where = "".join(f"\n  {path}" for path in result["paths"])
        out.out(f"{result['name']}: {result['status']}{where}", highlight=False)


def _show_list(items: tuple[Item, ...], folder: Path, as_json: bool) -> None:
    from srcli.cli.console import print_json

    rows = [_describe(item, folder) for item in items]
    if as_json:
        print_json({"data_dir": show_path(folder), "items": rows})
    else:
        _show_table(rows, folder)


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
        "files": [_describe_file(entry) for entry in entries],
    }


def _describe_file(entry: WeightEntry) -> dict[str, Any]:
    """One weight file: what it is for, and PSNR in dB by data set and scale."""
    from srcli.evaluation.published import lookup
    from srcli.pretrained.catalog import locate

    def compare(dataset: str, scale: str, ours: float) -> dict[str, float | None]:
        paper = lookup(entry.model, dataset, int(scale), entry.degradation)
        return {"ours": ours, "paper": paper.psnr if paper else None}

    return {
        "file": entry.file,
        "bytes": entry.bytes,
        "scales": list(entry.scales),
        "degradation": entry.degradation,
        "installed": locate(entry) is not None,
        "psnr": {
            dataset: {scale: compare(dataset, scale, v) for scale, v in row.items()}
            for dataset, row in entry.psnr.items()
        },
    }


def _show_table(rows: list[dict[str, Any]], folder: Path) -> None:
    from rich.table import Table

    from srcli.cli.console import out
    from srcli.pretrained.datasets import format_size

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "kind", "size", "state", "terms of use"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for row in rows:
        size = format_size(row["bytes"])
        table.add_row(row["name"], row["kind"], size, _name_state(row), row["terms"])
        for file in row["files"]:
            state = "installed" if file["installed"] else ""
            size = format_size(file["bytes"])
            task = name_task(file["scales"], file["degradation"])
            table.add_row("", task, size, state, _name_figures(file))
    out.print(table)
    out.out(f"data sets go to {show_path(folder)}", highlight=False)


def _name_figures(file: dict[str, Any]) -> str:
    """What it measures: "Set5 30.12 dB (paper 31.20)", at its scales in turn."""
    figures = file["psnr"].get(_SHOWN_SET, {}).values()
    if not figures:
        return ""
    ours = " ".join(f"{each['ours']:.2f}" for each in figures)
    papers = " ".join(f"{p:.2f}" if (p := each["paper"]) else "-" for each in figures)
    return f"Set5 {ours} dB (paper {papers})"


def _name_state(row: dict[str, Any]) -> str:
    """Whether it is installed, or else how it can be had where that is not obvious."""
    if row["installed"]:
        return "installed"
    if row["ask"]:
        return "on request"
    return f"in {row['part_of']}" if row["part_of"] else ""
