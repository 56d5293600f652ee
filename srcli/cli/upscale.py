"""The command `srcli upscale`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srcli.cli.console import progress_bar
from srcli.cli.options import read_overlap, read_tile, read_word
from srcli.cli.outcome import Style, choose_style, show_preview, show_results
from srcli.cli.signals import ending_cleanly
from srcli.errors import UsageError
from srcli.pretrained.purpose import DEGRADATIONS, ORDINARY, is_weight_file

if TYPE_CHECKING:
    from srcli.inference.naming import Existing, Naming
    from srcli.inference.sizes import Goal
    from srcli.inference.sources import Source
    from srcli.inference.upscaler import Upscaler

FORMAT_NAMES = ("auto", "png", "jpg", "webp", "tiff", "bmp", "avif")

_RAY = ("ray", "pyarrow")  # what --engine ray needs
_ALIASES = {"jpeg": "jpg", "tif": "tiff"}


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders, quoted patterns such as '*.png', URLs, or - for "
            "stdin.",
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            show_default="beside the input",
            help="A file, a folder, or - for stdout.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A name of `srcli models`, or bicubic.",
        ),
    ] = "mrnet",
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-x",
            metavar="FACTOR",
            show_default="4; 3 with --degradation bd or dn",
            help="Enlargement, 1 to 8.",
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
            metavar="FORMAT",
            help="png, jpg, webp, tiff, bmp, avif, or auto: the input's own, or PNG "
            "where that cannot hold the result.",
        ),
    ] = "auto",
    quality: Annotated[
        int,
        typer.Option("--quality", min=1, max=100, help="Of JPEG, WebP and AVIF."),
    ] = 95,
    suffix: Annotated[
        str | None,
        typer.Option(
            "--suffix",
            show_default="_MODEL_xFACTOR, _MODEL_KIND_xFACTOR for bd and dn",
            help="Added to file names.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that exist.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave results that exist.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps."
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option("--precision", metavar="TYPE", help="auto, fp32, bf16 or fp16."),
    ] = "auto",
    tile: Annotated[
        str,
        typer.Option(
            "--tile",
            metavar="SIZE",
            help="auto, the side of a tile in pixels, or 0 for no tiles.",
        ),
    ] = "auto",
    tile_overlap: Annotated[
        str,
        typer.Option(
            "--tile-overlap",
            metavar="SIZE",
            help="auto, exact, or the context around a tile in pixels.",
        ),
    ] = "auto",
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Average 8 flips and turns: better, slower."),
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Use this model instead: .safetensors, .pth, .pt or .ckpt "
            "(docs/usage.md).",
        ),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(
            "--frame",
            min=1,
            metavar="NUMBER",
            help="Which frame or page of a file with several, from 1.",
        ),
    ] = None,
    degradation: Annotated[
        str | None,
        typer.Option(
            "--degradation",
            metavar="KIND",
            show_default="bi, or what --weights is for",
            help="What the inputs suffered: bi (shrunk), bd (blurred too) or dn (noisy "
            "too).",
        ),
    ] = None,
    keep_metadata: Annotated[
        bool,
        typer.Option(
            "--keep-metadata/--strip-metadata",
            help="Carry over profile, EXIF, XMP, IPTC, resolution; or none, in sRGB.",
        ),
    ] = True,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Put a page beside the result: bicubic against it."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show what would be written and what it takes, and stop."
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="local, or ray: many workers, here or on a cluster (docs/scale.md).",
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            metavar="ADDRESS",
            show_default="a Ray of its own",
            help="The Ray cluster to join: HOST:PORT, or auto.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="NUMBER",
            show_default="all that there is room for",
            help="With ray: how many enlarge at once, with a core or a GPU each.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of names.")
    ] = False,
    json_lines: Annotated[
        bool,
        typer.Option(
            "--json-lines", help="Print each result as a line of JSON once it is there."
        ),
    ] = False,
) -> None:
    """Enlarge pictures, keeping their colours, transparency and metadata."""
    from srcli.inference.naming import Naming
    from srcli.inference.sources import expand_inputs

    tile_size, overlap = read_tile(tile), read_overlap(tile_overlap)
    if degradation is not None:
        degradation = read_word("degradation", degradation, DEGRADATIONS)
    if weights is None and is_weight_file(model):
        weights = Path(model)
    default = partial(_default_scale, model, weights, degradation)
    goal = _read_goal(scale, width, height, default)
    naming = Naming(
        model=_name_results(model, weights, degradation),
        goal=goal,
        output=output,
        format=read_word("format", _ALIASES.get(format, format), FORMAT_NAMES),
        suffix=suffix,
        existing=_choose_existing(overwrite, skip_existing),
        frame=frame,
        compare=compare,
        quality=quality,
        keep_metadata=keep_metadata,
    )
    style = choose_style(as_json, json_lines)
    on_ray = _is_on_ray(engine, ray_address, workers)
    upscaler: dict[str, Any] = {
        "model": model,
        "scale": goal.scale,
        "width": goal.width,
        "height": goal.height,
        "precision": precision,
        "tile": tile_size,
        "overlap": overlap,
        "ensemble": ensemble,
        "degradation": degradation,
    }
    sources = expand_inputs(inputs, recursive=recursive)
    if on_ray and not dry_run:
        from srcli.bulk.engine import Cluster, enlarge_sources

        cluster = Cluster(address=ray_address, workers=workers, device=device)
        with ending_cleanly(), progress_bar() as progress:
            results = enlarge_sources(
                sources, naming, cluster, upscaler, weights, progress
            )
            show_results(results, style, is_streaming=True)
        return
    _upscale_here(
        sources,
        naming,
        style,
        dry_run,
        **upscaler,
        weights=weights,
        device=device,
    )


def _upscale_here(
    sources: Sequence[Source],
    naming: Naming,
    style: Style,
    dry_run: bool,
    **upscaler: Any,  # noqa: ANN401 - the fields of `Upscaler`
) -> None:
    """Enlarge pictures in this process, or show what that would take."""
    from srcli.inference.batch import run_batch
    from srcli.inference.jobs import plan_jobs
    from srcli.inference.preview import preview_batch

    jobs = plan_jobs(sources, naming)
    if any(job.is_open and job.output is None for job in jobs):
        _check_stdout(style)
    ready: Upscaler | None = None
    if any(job.is_open for job in jobs):
        from srcli.inference.upscaler import Upscaler

        # A wrong model or device is an error before anything is touched.
        ready = Upscaler(**upscaler)
    if dry_run or ready is None:
        results, cost = preview_batch(jobs, ready)
        show_preview(results, cost, style, ready.stats.device if ready else "cpu")
        return
    with ending_cleanly(), progress_bar() as progress:
        show_results(run_batch(jobs, ready, progress), style)


def _is_on_ray(engine: str, address: str | None, workers: int | None) -> bool:
    """Whether Ray does the work.

    Raises:
        UsageError: If the options contradict each other, or Ray is not installed.
    """
    if read_word("engine", engine, ("local", "ray")) == "ray":
        if any(find_spec(name) is None for name in _RAY):
            raise UsageError("--engine ray needs Ray Data: pip install 'srcli[ray]'")
        return True
    for option, value in (("--ray-address", address), ("--workers", workers)):
        if value is not None:
            raise UsageError(f"{option} is for --engine ray: add that")
    return False


def _check_stdout(style: Style) -> None:
    """Refuse to mix a picture into other output, or to print it on a terminal."""
    if style != "names":
        raise UsageError("JSON and a picture cannot share stdout: choose -o FILE")
    if sys.stdout.isatty():
        raise UsageError("stdout is a terminal: choose -o FILE, or pipe it on")


def _read_goal(
    scale: float | None,
    width: int | None,
    height: int | None,
    default: Callable[[], float],
) -> Goal:
    """The size asked for, or else the default factor."""
    from srcli.inference.sizes import Goal

    if width is None and height is None:
        return Goal(default() if scale is None else scale)
    if scale is not None:
        raise UsageError("--scale contradicts --width and --height: give either")
    return Goal(None, width, height)


def _default_scale(model: str, weights: Path | None, degradation: str | None) -> float:
    """The factor where none is given."""
    from srcli.inference.sizes import DEFAULT_SCALE

    if weights is None and degradation in (None, ORDINARY):
        return DEFAULT_SCALE
    from srcli.inference.choice import choose  # imports torch

    return choose(model, weights, degradation).default_scale


def _name_results(model: str, weights: Path | None, degradation: str | None) -> str:
    """What the results are named after: the weights, if they are not the usual ones."""
    if weights is not None:
        return weights.stem
    name = model.lower()
    return name if degradation in (None, ORDINARY) else f"{name}_{degradation}"


def _choose_existing(overwrite: bool, skip_existing: bool) -> Existing:
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing contradict each other")
    return "overwrite" if overwrite else "skip" if skip_existing else "refuse"
