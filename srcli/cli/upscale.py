"""The command `srcli upscale`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from srcli.errors import UsageError, unknown

if TYPE_CHECKING:
    from srcli.inference.batch import Result

DEFAULT_SCALE = 4.0
FORMAT_NAMES = ("auto", "png", "jpg", "webp", "tiff", "bmp", "avif")
DEGRADATIONS = ("bi", "bd", "dn")
SMALLEST_TILE = 16  # px; below, a tile is nearly all overlap

_ALIASES = {"jpeg": "jpg", "tif": "tiff"}


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, folders, quoted patterns such as '*.png', or - for stdin.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A file, a folder, or - for stdout. [default: beside the input]",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="A name of `srcli models`, or bicubic."
        ),
    ] = "mrnet",
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-x",
            metavar="FACTOR",
            help="Enlargement, 1 to 8. [default: 4]",
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option("--width", min=1, help="Width of the result in pixels."),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option("--height", min=1, help="Height of the result in pixels."),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Enter folders in folders.")
    ] = False,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="|".join(FORMAT_NAMES),
            help="Of the results; auto is the input's own, or PNG if that cannot be.",
        ),
    ] = "auto",
    quality: Annotated[
        int,
        typer.Option("--quality", min=1, max=100, help="Of JPEG, WebP and AVIF."),
    ] = 95,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix", help="Added to file names. [default: _MODEL_xFACTOR]"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results that exist.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda|cuda:N|mps")
    ] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", metavar="auto|fp32|bf16|fp16")
    ] = "auto",
    tile: Annotated[
        str,
        typer.Option(
            "--tile", metavar="auto|N|0", help="Side of a tile; 0 is no tiles."
        ),
    ] = "auto",
    tile_overlap: Annotated[
        str,
        typer.Option(
            "--tile-overlap", metavar="auto|exact|N", help="Context around a tile."
        ),
    ] = "auto",
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Average 8 flips and turns: better, slower."),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="Use these weights instead."),
    ] = None,
    degradation: Annotated[
        str,
        typer.Option(
            "--degradation",
            metavar="|".join(DEGRADATIONS),
            help="What the inputs suffered: shrunk; blurred too; noisy too.",
        ),
    ] = "bi",
    keep_metadata: Annotated[
        bool,
        typer.Option(
            "--keep-metadata/--strip-metadata",
            help="Carry over EXIF, XMP and resolution; the colour profile always stays.",
        ),
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, and stop.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of names.")
    ] = False,
) -> None:
    """Enlarge pictures, keeping their colours, transparency and metadata."""
    from srcli.inference.batch import FileOptions, Result, raise_failures, run_batch
    from srcli.inference.jobs import Naming, expand_inputs, plan_jobs, prepare_folders
    from srcli.inference.sizes import Goal
    from srcli.inference.tiling import check_tiling

    if scale is not None and (width is not None or height is not None):
        raise UsageError("--scale and --width or --height contradict each other")
    goal = Goal(scale or DEFAULT_SCALE if scale != 0 else 0, width, height)
    tile_size = _read_number("tile", tile, ("auto",))
    overlap = _read_number("tile-overlap", tile_overlap, ("auto", "exact"))
