"""`srcli benchmark`: the papers' tables, with our numbers beside theirs."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from srcli.cli import options
from srcli.cli.console import out, print_json, progress_bar
from srcli.cli.options import Flag, read_scales, split_names

log = logging.getLogger(__name__)

_into = partial(Option, metavar="FILE", rich_help_panel="Files to write")


def benchmark(
    dataset: Annotated[
        list[str] | None,
        Option(
            "--dataset",
            "-d",
            metavar="DATASET",
            show_default="set5",
            help="set5, set14, b100, urban100, manga109, div2k-valid, or a folder of "
            "HR pictures; repeat for several.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        Option(
            "--model",
            "-m",
            metavar="MODEL",
            show_default="mrnet",
            help="Network, bicubic, or all (every network with weights here); repeat "
            "for several. Bicubic is always shown.",
        ),
    ] = None,
    scale: Annotated[
        list[str] | None, options.scales(show_default="2,3,4; 3 with --degradation")
    ] = None,
    degradation: Annotated[
        str | None,
        Option(
            metavar="KIND",
            show_default="bi, or what --weights is for",
            help="How LR pictures are made: bi, bd, dn or bd-bicubic.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        Option(metavar="NAME", help="auto (the network's own), y or rgb; bicubic: y."),
    ] = "auto",
    data_dir: options.DataDir = None,
    weights: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Measure this file instead of ours; another's network, .pth, .pt, "
            ".ckpt or .safetensors, beside ours.",
        ),
    ] = None,
    ifc: Annotated[
        bool, Flag("--ifc", help="Measure the information fidelity too.")
    ] = False,
    stages: Annotated[
        bool,
        Flag(
            "--stages",
            help="Show what each stage of a network adds: table, reports, JSON.",
        ),
    ] = False,
    gray_as_rgb: Annotated[
        bool,
        Flag("--gray-as-rgb", help="Convert grey pictures as if they were RGB."),
    ] = False,
    seed: Annotated[
        int, Option(min=0, metavar="N", help="Of the noise of --degradation dn.")
    ] = 0,
    per_image: Annotated[
        bool, Flag("--per-image", help="Show every picture: table, JSON and CSV.")
    ] = False,
    csv: Annotated[Path | None, _into(help="The table as CSV.")] = None,
    markdown: Annotated[Path | None, _into(help="The table as Markdown.")] = None,
    latex: Annotated[Path | None, _into(help="The table as LaTeX.")] = None,
    report: Annotated[
        Path | None,
        _into(
            help="A web page, .html, with the table and the crops where each network "
            "gains most and least."
        ),
    ] = None,
    save_images: Annotated[
        Path | None, _into(metavar="FOLDER", help="The measured pictures.")
    ] = None,
    overwrite: Annotated[
        bool,
        _into("--overwrite", metavar="", help="Replace existing reports and pictures."),
    ] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = "auto",
    tile_overlap: options.TileOverlap = "auto",
    ensemble: options.Ensemble = False,
    as_json: options.Json = False,
) -> None:
    """Measure networks on data sets, beside bicubic and the papers' numbers.

    PSNR and SSIM are those of the luma, averaged over the pictures, as in the papers.
    """
    from srcli.evaluation import tables
    from srcli.evaluation.contenders import Engine, Selection, choose_degradation
    from srcli.evaluation.measurement import BenchmarkRequest, run_benchmark
    from srcli.evaluation.showcase import check_page, write_benchmark

    check_page(report)
    tables.check_reports((csv, markdown, latex, report), overwrite)
    request = BenchmarkRequest(
        datasets=split_names(dataset) or ("set5",),
        selection=Selection(
            models=tuple(name.lower() for name in split_names(model)) or None,
            scales=read_scales(scale) or None,
            degradation=choose_degradation(
                None if degradation is None else degradation.lower(), weights
            ),
            protocol=protocol.lower(),
            weights=weights,
        ),
        engine=Engine(
            device=device,
            precision=precision,
            tile=tile,
            overlap=tile_overlap,
            ensemble=ensemble,
        ),
        data_dir=data_dir,
        ifc=ifc,
        stages=stages,
        crops=report is not None,
        gray_as_rgb=gray_as_rgb,
        seed=seed,
        save_images=save_images,
        overwrite=overwrite,
    )
    with progress_bar() as progress:
        rows = run_benchmark(
            request,
            progress,
            on_row=lambda row: log.info("%s", tables.format_line(row)),
        )
    command = tables.format_command(request)
    # The result comes first: a report that fails then loses nothing.
    if as_json:
        print_json(tables.build_document(rows, command, per_image=per_image))
    else:
        tables.print_tables(out, rows, per_image=per_image)
    if csv is not None:
        tables.write_report(tables.format_csv(rows, per_image=per_image), csv)
    if markdown is not None:
        tables.write_report(tables.format_markdown(rows, command), markdown)
    if latex is not None:
        tables.write_report(tables.format_latex(rows, command), latex)
    if report is not None:
        write_benchmark(rows, command, report)
