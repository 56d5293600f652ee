"""`srcli models`: what is bundled and installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.errors import UsageError
from srcli.pretrained.catalog import ORDINARY, name_task
from srcli.storage import show_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from srcli.pretrained.catalog import WeightEntry

_SHOWN_SET = "set5"  # the table has room for one; --json gives all


def models(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            show_default="all that srcli has",
            help="Say what this weight file holds: ours, or another's network.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the variants that the papers study.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks: size, weights, and measured PSNR beside the paper's.

    With FILE, say what that weight file holds instead.
    """
    from srcli.cli.console import out, print_json

    if file is not None:
        if everything:
            raise UsageError("--all lists networks: leave it or the file out")
        record = _describe_file(file)
        if as_json:
            print_json(record)
        else:
            out.print(_list_facts(record))
        return
    from srcli.models import MODELS, variant_names
    from srcli.pretrained.catalog import manifest

    trained = {entry.model for entry in manifest()}
    described = [
        _describe(name, [entry for entry in manifest() if entry.model == name])
        for name in variant_names()
        if everything or name in MODELS or name in trained
    ]
    if as_json:
        print_json({"models": described})
        return
    out.print(_table(described))
    missing = [record["name"] for record in described if not _has_weights(record)]
    if missing:
        text = (
            f"Not bundled yet: {', '.join(missing)}; `srcli train -m NAME` trains it."
        )
        out.print(text, markup=False, highlight=False)


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
    from rich.table import Table
    from rich.text import Text

    from srcli.units import format_bytes

    # File names may hold what Rich takes for markup.
    table = Table(title=Text(record["file"]), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    told = record.get("metadata", {})
    rows = {
        "network": " ".join([record["network"], *record.get("tags", ())]),
        "enlarges by": ", ".join(f"x{scale}" for scale in record["scales"]),
        "works on": {"y": "luma, colours by bicubic", "rgb": "RGB"}[record["color"]],
        "parameters": f"{record['parameters']:,}",
        "GMACs, 720p": ", ".join(
            f"x{s} {m / 1e9:,.1f}" for s, m in record["macs_720p"].items()
        ),
        "precisions": ", ".join(record["precisions"]),
        "tile overlap": ", ".join(
            f"x{s} {pixels} px" for s, pixels in record["tile_overlap"].items()
        ),
        "steps": told.get("steps"),
        "trained on": told.get("data"),
        "teachers": ", ".join(
            f"{each['file']} ({each['licence']})"
            for each in json.loads(told.get("teachers", "[]"))
        ),
        "licence": record["licence"],
        "size": format_bytes(record["bytes"]),
        "SHA-256": record["sha256"],
    }
    for name, text in rows.items():
        if text:
            table.add_row(name, Text(text))
    return table


def _has_weights(record: dict[str, Any]) -> bool:
    return any(
        part["bundled"] or part["installed"] for part in record["trained_for"].values()
    )


def _describe(name: str, entries: Sequence[WeightEntry]) -> dict[str, Any]:
    """The record of a network or variant whose weight files are `entries`."""
    from srcli.models import variant
    from srcli.models.counting import count_macs, count_parameters, outline

    model_class, config = variant(name)
    scales = config.scales if model_class.multi_scale else (2, 3, 4)
    kinds = sorted({ORDINARY, *(entry.degradation for entry in entries)}, key=_rank)
    trained_for = {
        kind: _describe_kind(name, kind, [e for e in entries if e.degradation == kind])
        for kind in kinds
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


def _rank(kind: str) -> tuple[bool, str]:
    """Sorts the ordinary degradation first."""
    return kind != ORDINARY, kind


def _describe_kind(
    name: str, kind: str, entries: Sequence[WeightEntry]
) -> dict[str, Any]:
    """Where the weights for one degradation are, and what they measure."""
    from srcli.pretrained.catalog import is_bundled, locate

    bundled = [entry for entry in entries if is_bundled(entry)]
    installed = [e for e in entries if e not in bundled and locate(e) is not None]
    return {
        "bundled": sorted({scale for entry in bundled for scale in entry.scales}),
        "installed": sorted({scale for entry in installed for scale in entry.scales}),
        "psnr": _measured(name, kind, entries),
    }


def _measured(
    name: str, kind: str, entries: Sequence[WeightEntry]
) -> dict[str, dict[str, Any]]:
    """PSNR in dB by data set and scale, ours and the paper's (None: not printed)."""
    from srcli.evaluation.published import lookup

    psnr: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for dataset, by_scale in entry.psnr.items():
            for scale, value in by_scale.items():
                paper = lookup(name, dataset, int(scale), kind)
                psnr.setdefault(dataset, {})[scale] = {
                    "ours": value,
                    "paper": paper.psnr if paper else None,
                }
    return psnr


def _table(described: Sequence[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(title="Networks", title_justify="left", show_lines=True)
    table.add_column("model")
    table.add_column("parameters", justify="right")
    table.add_column("GMACs, 720p", justify="right")
    table.add_column("weights")
    table.add_column("Set5, dB", justify="right")
    table.add_column("paper", justify="right")
    for record in described:
        figures = _list_figures(record)
        table.add_row(
            record["name"],
            f"{record['parameters']:,}",
            "\n".join(f"x{s} {m / 1e9:,.1f}" for s, m in record["macs_720p"].items()),
            _weights_text(record),
            "\n".join(f"{task} {v['ours']:.2f}" for task, v in figures) or "-",
            "\n".join(f"{v['paper']:.2f}" if v["paper"] else "-" for _, v in figures)
            or "-",
        )
    return table


def _list_figures(record: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """What is measured on the set that is shown: "x3" or "x3 dn", and the figures."""
    return [
        (name_task([int(scale)], kind), figures)
        for kind, part in record["trained_for"].items()
        for scale, figures in sorted(part["psnr"].get(_SHOWN_SET, {}).items())
    ]


def _weights_text(record: dict[str, Any]) -> str:
    """Lines such as "bundled: x2 x3 x4" and "bundled: x3 dn"."""
    lines = [
        f"{where}: {name_task(part[where], kind)}"
        for kind, part in record["trained_for"].items()
        for where in ("bundled", "installed")
        if part[where]
    ]
    return "\n".join(lines) or "none yet"
