"""`srcli benchmark`: the papers' tables, with our numbers beside theirs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from srcli.cli.options import read_overlap, read_scales, read_tile, split_names

if TYPE_CHECKING:
    from srcli.evaluation.measurement import BenchmarkRequest

log = logging.getLogger(__name__)

MODELS_HELP = (
    "Network, bicubic, or all (every network with weights here); repeat for several."
    " Bicubic is always shown."
)
SCALES_HELP = "Enlargement; repeat or join with commas for several."
DATASETS_HELP = (
    "set5, set14, b100, urban100, manga109, div2k-valid, or a folder of HR pictures;"
    " repeat for several."
)
REPORT_HELP = (
    "Write a web page, .html, with the table and the crops where each network gains"
    " most and least."
)
DATA_DIR_DEFAULT = "$SRCLI_DATA_DIR, the cache, the current folder"


class Files(NamedTuple):
    """Where the reports go; None for those that are not asked for."""

    csv: Path | None
    markdown: Path | None
    latex: Path | None
    page: Path | None


def benchmark(
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            "-d",
            help=DATASETS_HELP,
            metavar="DATASET",
            show_default="set5",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help=MODELS_HELP, metavar="MODEL", show_default="mrnet"
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            "--scale",
            "-x",
            help=SCALES_HELP,
            metavar="SCALE",
            show_default="2,3,4; 3 with --degradation",
        ),
    ] = None,
    degradation: Annotated[
        str | None,
        typer.Option(
            help="How LR pictures are made: bi, bd, dn or bd-bicubic.",
            metavar="KIND",
            show_default="bi, or what --weights is for",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(help="auto (the network's own), y or rgb; bicubic: y."),
    ] = "auto",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds the named data sets.",
            metavar="FOLDER",
            show_default=DATA_DIR_DEFAULT,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Measure this file instead of ours; another's network, .pth, .pt, "
            ".ckpt or .safetensors, beside ours.",
            metavar="FILE",
        ),
    ] = None,
    ifc: Annotated[
        bool, typer.Option("--ifc", help="Measure the information fidelity too.")
    ] = False,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages",
            help="Show what each stage of a network adds: table, reports, JSON.",
        ),
    ] = False,
    gray_as_rgb: Annotated[
        bool,
        typer.Option(
            "--gray-as-rgb", help="Convert grey pictures as if they were RGB."
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the noise of --degradation dn.")
    ] = 0,
    per_image: Annotated[
        bool,
        typer.Option("--per-image", help="Show every picture: table, JSON and CSV."),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table as CSV.", metavar="FILE")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the table as Markdown.", metavar="FILE")
    ] = None,
    latex: Annotated[
        Path | None, typer.Option(help="Write the table as LaTeX.", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help=REPORT_HELP, metavar="FILE.html")
    ] = None,
    save_images: Annotated[
        Path | None,
        typer.Option(help="Save the measured pictures here.", metavar="FOLDER"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing reports and pictures.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")
    ] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    tile: Annotated[
        str, typer.Option(help="Side of a tile in LR pixels, auto, or 0 for none.")
    ] = "auto",
    tile_overlap: Annotated[
        str, typer.Option(help="Context of a tile in LR pixels, auto or exact.")
    ] = "auto",
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Mean of the 8 flips and turns.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document.")
    ] = False,
) -> None:
    """Measure networks on data sets, beside bicubic and the papers' numbers.

    PSNR and SSIM are those of the luma, averaged over the pictures, as in the papers.
    """
    scales = read_scales(scale) or None

    from srcli.evaluation.contenders import Engine, Selection, choose_degradation
    from srcli.evaluation.measurement import BenchmarkRequest
    from srcli.evaluation.showcase import check_page
    from srcli.evaluation.tables import check_reports

    check_page(report)
    files = Files(csv, markdown, latex, report)
    check_reports(files, overwrite)
    request = BenchmarkRequest(
        datasets=split_names(dataset) or ("set5",),
        selection=Selection(
            models=tuple(name.lower() for name in split_names(model)) or None,
            scales=scales,
            degradation=choose_degradation(
                None if degradation is None else degradation.lower(), weights
            ),
            protocol=protocol.lower(),
            weights=weights,
        ),
        engine=Engine(
            device=device,
            precision=precision,
            tile=read_tile(tile),
            overlap=read_overlap(tile_overlap),
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
    _run(request, files, per_image=per_image, as_json=as_json)


def _run(
    request: BenchmarkRequest, files: Files, *, per_image: bool, as_json: bool
) -> None:
    """Measure, print the result, write the reports."""
    from srcli.cli.console import out, print_json, progress_bar
    from srcli.evaluation import tables as report
    from srcli.evaluation.measurement import run_benchmark
    from srcli.evaluation.showcase import write_benchmark
    from srcli.evaluation.tables import format_line, print_tables

    with progress_bar() as progress:
        rows = run_benchmark(
            request, progress, on_row=lambda row: log.info("%s", format_line(row))
        )
    command = report.format_command(request)
    # The result comes first: a report that fails then loses nothing.
    if as_json:
        print_json(report.build_document(rows, command, per_image=per_image))
    else:
        print_tables(out, rows, per_image=per_image)
    if files.csv is not None:
        report.write_report(report.format_csv(rows, per_image=per_image), files.csv)
    if files.markdown is not None:
        report.write_report(report.format_markdown(rows, command), files.markdown)
    if files.latex is not None:
        report.write_report(report.format_latex(rows, command), files.latex)
    if files.page is not None:
        write_benchmark(rows, command, files.page)
