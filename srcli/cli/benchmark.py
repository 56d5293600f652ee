"""`srcli benchmark`: the papers' tables, with our numbers beside theirs."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Annotated

from srcli.cli import options
from srcli.cli.console import out, print_json, progress_bar
from srcli.cli.options import flag, option, read_scales, split_names

log = logging.getLogger(__name__)

_into = partial(option, rich_help_panel="Files to write")


def benchmark(
    dataset: Annotated[
        list[str] | None,
        option(
            "DATASET",
            "set5, set14, b100, urban100, manga109, div2k-valid, or a folder of HR "
            "pictures; repeat for several.",
            "--dataset",
            "-d",
            show_default="set5",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        option(
            "MODEL",
            "Network, bicubic, or all (every network with weights here); repeat for "
            "several. Bicubic is always shown.",
            "--model",
            "-m",
            show_default="mrnet",
        ),
    ] = None,
    scale: Annotated[
        list[str] | None, options.scales(show_default="2,3,4; 3 with --degradation")
    ] = None,
    degradation: Annotated[
        str | None,
        option(
            "KIND",
            "How LR pictures are made: bi, bd, dn or bd-bicubic.",
            show_default="bi, or what --weights is for",
        ),
    ] = None,
    protocol: Annotated[
        str, option("NAME", "auto (the network's own), y or rgb; bicubic: y.")
    ] = "auto",
    data_dir: options.DataDir = None,
    weights: Annotated[
        Path | None,
        option(
            "FILE",
            "Measure this file instead of ours; another's network, .pth, .pt, .ckpt "
            "or .safetensors, beside ours.",
        ),
    ] = None,
    ifc: Annotated[bool, flag("Measure information fidelity too.", "--ifc")] = False,
    stages: Annotated[
        bool,
        flag("Show what each stage adds: table, reports, JSON.", "--stages"),
    ] = False,
    gray_as_rgb: Annotated[
        bool, flag("Convert grey pictures as if they were RGB.", "--gray-as-rgb")
    ] = False,
    seed: Annotated[int, option("N", "Of the noise of --degradation dn.", min=0)] = 0,
    per_image: Annotated[
        bool, flag("Show every picture: table, JSON and CSV.", "--per-image")
    ] = False,
    csv: Annotated[Path | None, _into("FILE", "The table as CSV.")] = None,
    markdown: Annotated[Path | None, _into("FILE", "The table as Markdown.")] = None,
    latex: Annotated[Path | None, _into("FILE", "The table as LaTeX.")] = None,
    report: Annotated[
        Path | None,
        _into(
            "FILE",
            "A web page, .html, with the table and the crops where each network gains "
            "most and least.",
        ),
    ] = None,
    save_images: Annotated[
        Path | None, _into("FOLDER", "The measured pictures.")
    ] = None,
    overwrite: Annotated[
        bool, _into("", "Replace existing reports and pictures.", "--overwrite")
    ] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = "auto",
    tile_overlap: options.TileOverlap = "auto",
    ensemble: options.Ensemble = False,
    as_json: options.Json = False,
) -> None:
    """Measure networks on data sets, beside bicubic and the papers' numbers.

    PSNR and SSIM are averaged over the pictures, of the luma or of RGB, as --protocol
    says: by default as in each network's paper.
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
