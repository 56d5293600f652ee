"""`srcli models`: what is bundled and installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from srcli.pretrained.catalog import WeightEntry

_SHOWN_SET = "set5"  # the table has room for one; --json gives all


def models(
    everything: Annotated[
        bool, typer.Option("--all", help="Also the variants that the papers study.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks: size, weights, and measured PSNR beside the paper's."""
    from srcli.cli.console import out, print_json
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
    missing = [m["name"] for m in described if not m["bundled"] + m["installed"]]
    if missing:
        text = (
            f"Not bundled yet: {', '.join(missing)}; `srcli train -m NAME` trains it."
        )
        out.print(text, markup=False, highlight=False)


def _describe(name: str, entries: Sequence[WeightEntry]) -> dict[str, Any]:
    """The record of a network or variant whose weight files are `entries`."""
    from srcli.models import variant
    from srcli.models.base import count_macs, count_parameters, outline
    from srcli.pretrained.catalog import is_bundled, locate

    model_class, config = variant(name)
    scales = config.scales if model_class.multi_scale else (2, 3, 4)
    bundled = [entry for entry in entries if is_bundled(entry)]
    installed = [e for e in entries if e not in bundled and locate(e) is not None]
    return {
        "name": name,
        "arch": model_class.arch,
        "parameters": count_parameters(outline(model_class, config)),
        "macs_720p": {
            str(scale): count_macs(outline(model_class, variant(name, scale)[1]), scale)
            for scale in scales
        },
        "bundled": sorted({scale for entry in bundled for scale in entry.scales}),
        "installed": sorted({scale for entry in installed for scale in entry.scales}),
        "degradations": sorted({entry.degradation for entry in entries}),
        "data": sorted({entry.data for entry in entries}),
        "data_licence": sorted({entry.data_licence for entry in entries}),
        "psnr": _measured(name, entries),
    }


def _measured(name: str, entries: Sequence[WeightEntry]) -> dict[str, dict[str, Any]]:
    """PSNR in dB by data set and scale, ours and the paper's (None: not printed)."""
    from srcli.evaluation.published import lookup

    psnr: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.degradation != "bi":
            continue
        for dataset, by_scale in entry.psnr.items():
            for scale, value in by_scale.items():
                paper = lookup(name, dataset, int(scale))
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
    table.add_column("paper, dB", justify="right")
    for record in described:
        psnr = sorted(record["psnr"].get(_SHOWN_SET, {}).items())
        table.add_row(
            record["name"],
            f"{record['parameters']:,}",
            "\n".join(f"x{s} {m / 1e9:,.1f}" for s, m in record["macs_720p"].items()),
            _weights_text(record),
            "\n".join(f"x{scale} {v['ours']:.2f}" for scale, v in psnr) or "-",
            "\n".join(f"{v['paper']:.2f}" if v["paper"] else "-" for _, v in psnr)
            or "-",
        )
    return table


def _weights_text(record: dict[str, Any]) -> str:
    lines = [
        f"{where}: {' '.join(f'x{scale}' for scale in record[where])}"
        for where in ("bundled", "installed")
        if record[where]
    ]
    return "\n".join(lines) or "none yet"
