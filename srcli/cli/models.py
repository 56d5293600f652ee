"""The command `srcli models`: what is bundled and installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.box import HORIZONTALS
from rich.table import Table
from rich.text import Text
from typer import Argument

from srcli.cli import options
from srcli.cli.console import out, print_json
from srcli.cli.options import flag
from srcli.errors import UsageError
from srcli.models import MODELS, variant, variant_names
from srcli.pretrained import catalog
from srcli.pretrained.catalog import DEGRADATIONS, ORDINARY, WeightEntry, name_task
from srcli.storage import show_path
from srcli.units import format_bytes

SHOWN_SET = "set5"  # tables have room for one; --json gives all


def models(
    file: Annotated[
        Path | None,
        Argument(
            metavar="FILE",
            show_default="all that srcli has",
            help="Say what this weight file holds: ours, or another's network.",
        ),
    ] = None,
    everything: Annotated[
        bool, flag("Also the variants that the papers study.", "--all")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List the networks: size, weights, and measured PSNR beside the paper's.

    With FILE, say what that weight file holds instead.
    """
    if file is not None:
        if everything:
            raise UsageError("--all lists networks: leave it or the file out")
        record = _describe_file(file)
        if as_json:
            print_json(record)
        else:
            out.print(_list_facts(record))
        return
    trained = {entry.model for entry in catalog.manifest()}
    described = [
        _describe(name)
        for name in variant_names()
        if everything or name in MODELS or name in trained
    ]
    if as_json:
        print_json({"models": described})
        return
    out.print(_list_networks(described))
    missing = [each["name"] for each in described if not _name_weights(each)]
    if missing:
        text = (
            f"Not bundled yet: {', '.join(missing)}; `srcli train -m NAME` trains it."
        )
        out.print(text, markup=False, highlight=False)


def compare(entry: WeightEntry) -> dict[str, dict[str, dict[str, float | None]]]:
    """PSNR in dB by data set and scale, ours and the paper's (None: not printed)."""
    from srcli.evaluation.published import lookup

    def find(dataset: str, scale: str) -> float | None:
        paper = lookup(entry.model, dataset, int(scale), entry.degradation)
        return paper.psnr if paper else None

    return {
        dataset: {
            s: {"ours": psnr, "paper": find(dataset, s)} for s, psnr in row.items()
        }
        for dataset, row in entry.psnr.items()
    }


def _describe(name: str) -> dict[str, Any]:
    """The record of a network or variant."""
    from srcli.models.counting import count_macs, count_parameters, outline

    model_class, config = variant(name)
    scales = config.scales if model_class.multi_scale else (2, 3, 4)
    entries = [entry for entry in catalog.manifest() if entry.model == name]
    trained_for = {
        kind: _describe_weights([e for e in entries if e.degradation == kind])
        for kind in DEGRADATIONS
        if kind == ORDINARY or any(e.degradation == kind for e in entries)
    }
    return {
        "name": name,
        "arch": model_class.arch,
        "parameters": count_parameters(outline(model_class, config)),
        "macs_720p": {
            str(scale): count_macs(outline(model_class, variant(name, scale)[1]), scale)
            for scale in scales
        },
        **trained_for[ORDINARY],
        "trained_for": trained_for,
        "degradations": sorted({entry.degradation for entry in entries}),
        "data": sorted({entry.data for entry in entries}),
        "data_licence": sorted({entry.data_licence for entry in entries}),
        "teachers": [teacher for entry in entries for teacher in entry.teachers],
    }


def _describe_weights(entries: Sequence[WeightEntry]) -> dict[str, Any]:
    """Where the weights for one degradation are, and what they measure."""
    bundled, installed = set[int](), set[int]()
    psnr: dict[str, Any] = {}
    for entry in entries:
        if catalog.is_bundled(entry):
            bundled |= set(entry.scales)
        elif catalog.locate(entry) is not None:
            installed |= set(entry.scales)
        for dataset, row in compare(entry).items():
            psnr.setdefault(dataset, {}).update(row)
    return {"bundled": sorted(bundled), "installed": sorted(installed), "psnr": psnr}


def _list_networks(described: Sequence[dict[str, Any]]) -> Table:
    """The records of networks, for people."""
    table = Table(title="Networks", title_justify="left", box=HORIZONTALS)
    table.pad_edge, table.collapse_padding, table.show_lines = False, True, True
    for heading in (
        "model",
        "parameters",
        "GMACs, 720p",
        "weights",
        "Set5, dB",
        "paper",
    ):
        is_text = heading in ("model", "weights")
        table.add_column(heading, justify="left" if is_text else "right")
    for record in described:
        figures = [
            (name_task([int(scale)], kind), each["ours"], each["paper"])
            for kind, part in record["trained_for"].items()
            for scale, each in sorted(part["psnr"].get(SHOWN_SET, {}).items())
        ]
        table.add_row(
            record["name"],
            f"{record['parameters']:,}",
            "\n".join(f"x{s} {m / 1e9:,.1f}" for s, m in record["macs_720p"].items()),
            _name_weights(record) or "none yet",
            "\n".join(f"{task} {ours:.2f}" for task, ours, _ in figures) or "-",
            "\n".join(f"{paper:.2f}" if paper else "-" for *_, paper in figures) or "-",
        )
    return table


def _name_weights(record: dict[str, Any]) -> str:
    """Lines such as "bundled: x2 x3 x4" and "bundled: x3 dn"."""
    return "\n".join(
        f"{where}: {name_task(part[where], kind)}"
        for kind, part in record["trained_for"].items()
        for where in ("bundled", "installed")
        if part[where]
    )


def _describe_file(path: Path) -> dict[str, Any]:
    """What a weight file holds, as a JSON document."""
    from srcli.models.counting import count_macs, count_parameters
    from srcli.pretrained.community import CommunityNetwork
    from srcli.pretrained.loading import read_file
    from srcli.pretrained.weight_file import read_licence, read_metadata, sha256_of

    network = read_file(path)
    scales = network.config.scales
    record: dict[str, Any] = {
        "file": show_path(path),
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "network": network.arch,
        "is_own": not isinstance(network, CommunityNetwork),
        "scales": list(scales),
        "color": network.color,
        "parameters": count_parameters(network),
        "precisions": list(network.precisions),
        "tile_overlap": {str(scale): network.tile_overlap(scale) for scale in scales},
        "licence": read_licence(path),
    }
    if isinstance(network, CommunityNetwork):
        counts = {str(scales[0]): network.count_macs()}
        more = {"tags": list(network.tags), "size_multiple": network.size_multiple}
    else:
        counts = {str(scale): count_macs(network, scale) for scale in scales}
        more = {"metadata": read_metadata(path)}
    return {**record, "macs_720p": counts, **more}


def _list_facts(record: dict[str, Any]) -> Table:
    """The record of a weight file, for people."""
    # File names may hold what Rich takes for markup.
    table = Table(title=Text(record["file"]), title_justify="left", box=None)
    table.show_header = table.pad_edge = False
    table.add_column()
    table.add_column(overflow="fold")
    told = record.get("metadata", {})
    macs, overlap = record["macs_720p"].items(), record["tile_overlap"].items()
    teachers = json.loads(told.get("teachers", "[]"))
    rows = {
        "network": " ".join([record["network"], *record.get("tags", ())]),
        "enlarges by": ", ".join(f"x{scale}" for scale in record["scales"]),
        "works on": {"y": "luma, colours by bicubic", "rgb": "RGB"}[record["color"]],
        "parameters": f"{record['parameters']:,}",
        "GMACs, 720p": ", ".join(f"x{scale} {n / 1e9:,.1f}" for scale, n in macs),
        "precisions": ", ".join(record["precisions"]),
        "tile overlap": ", ".join(f"x{scale} {pixels} px" for scale, pixels in overlap),
        "steps": told.get("steps"),
        "trained on": told.get("data"),
        "teachers": ", ".join(
            f"{each['file']} ({each['licence']})" for each in teachers
        ),
        "licence": record["licence"],
        "size": format_bytes(record["bytes"]),
        "SHA-256": record["sha256"],
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, Text(text))
    return table
