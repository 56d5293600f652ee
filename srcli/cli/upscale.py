"""The command `srcli upscale`."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from typer import Argument

from srcli.cli import options
from srcli.cli.console import print_json, print_line, progress_bar
from srcli.cli.options import flag, option, read_word
from srcli.errors import UsageError
from srcli.pretrained.catalog import DEGRADATIONS, ORDINARY, is_weight_file
from srcli.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from srcli.inference.cost import Cost
    from srcli.inference.jobs import Result, Tally
    from srcli.inference.naming import Naming
    from srcli.inference.sizes import Goal
    from srcli.inference.sources import Source
    from srcli.inference.upscaler import Upscaler

log = logging.getLogger(__name__)

Style: TypeAlias = Literal["names", "json", "lines"]

FORMAT_NAMES = ("auto", "png", "jpg", "webp", "tiff", "bmp", "avif")
_ALIASES = {"jpeg": "jpg", "tif": "tiff"}

_of_file = partial(option, rich_help_panel="Files")
_of_ray = partial(option, rich_help_panel="Many workers")


def upscale(
    inputs: Annotated[
        list[str],
        Argument(
            metavar="INPUT",
            help="Pictures, folders, quoted patterns such as '*.png', URLs, or - for "
            "stdin.",
        ),
    ],
    output: Annotated[
        str | None,
        _of_file(
            "OUT",
            "A file, a folder, or - for stdout.",
            "--output",
            "-o",
            show_default="beside the input",
        ),
    ] = None,
    model: Annotated[
        str, option("MODEL", "One of `srcli models`, or bicubic.", "--model", "-m")
    ] = "mrnet",
    scale: Annotated[
        float | None,
        option(
            "FACTOR",
            "Enlargement, 1 to 8.",
            "--scale",
            "-x",
            show_default="4; 3 with --degradation bd or dn",
        ),
    ] = None,
    width: Annotated[int | None, option("PX", "Width of the result.", min=1)] = None,
    height: Annotated[int | None, option("PX", "Height of the result.", min=1)] = None,
    recursive: Annotated[
        bool, flag("Enter folders in folders.", "--recursive", "-r")
    ] = False,
    format: Annotated[
        str,
        _of_file(
            "FORMAT",
            "png, jpg, webp, tiff, bmp, avif, or auto: the input's own, or PNG where "
            "that cannot hold the result.",
        ),
    ] = "auto",
    quality: Annotated[int, _of_file("N", "Of JPEG, WebP, AVIF.", min=1, max=100)] = 95,
    suffix: Annotated[
        str | None,
        _of_file(
            "TEXT",
            "Added to file names.",
            show_default="_MODEL_xFACTOR; _MODEL_KIND_xFACTOR for bd, dn",
        ),
    ] = None,
    overwrite: Annotated[
        bool, _of_file("", "Replace results that exist.", "--overwrite")
    ] = False,
    skip_existing: Annotated[
        bool, _of_file("", "Leave results that exist.", "--skip-existing")
    ] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    tile: options.Tile = "auto",
    tile_overlap: options.TileOverlap = "auto",
    ensemble: options.Ensemble = False,
    weights: Annotated[
        Path | None,
        option(
            "FILE",
            "Use this model instead: .safetensors, .pth, .pt or .ckpt (docs/usage.md).",
        ),
    ] = None,
    frame: Annotated[
        int | None,
        option("N", "Which frame or page of a file with several, from 1.", min=1),
    ] = None,
    degradation: Annotated[
        str | None,
        option(
            "KIND",
            "What the inputs suffered: bi (shrunk), bd (blurred too) or dn (noisy "
            "too).",
            show_default="bi, or what --weights is for",
        ),
    ] = None,
    keep_metadata: Annotated[
        bool,
        flag(
            "Carry over profile, EXIF, XMP, IPTC, resolution; or none, in sRGB.",
            "--keep-metadata/--strip-metadata",
            rich_help_panel="Metadata",
        ),
    ] = True,
    compare: Annotated[
        bool, flag("Put a page beside the result: bicubic against it.", "--compare")
    ] = False,
    dry_run: Annotated[
        bool, flag("Show what would be written and what it takes.", "--dry-run")
    ] = False,
    engine: Annotated[
        str,
        _of_ray(
            "ENGINE",
            "local, or ray: many workers, here or on a cluster (docs/scale.md).",
        ),
    ] = "local",
    ray_address: Annotated[
        str | None,
        _of_ray(
            "ADDRESS",
            "The Ray cluster to join: HOST:PORT, or auto.",
            show_default="a Ray of its own",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        _of_ray(
            "N",
            "How many enlarge at once, with a core or a GPU each.",
            min=1,
            show_default="all that there is room for",
        ),
    ] = None,
    as_json: options.Json = False,
    json_lines: Annotated[
        bool, flag("Print each result as JSON once it is there.", "--json-lines")
    ] = False,
) -> None:
    """Enlarge pictures, keeping their colours, transparency and metadata."""
    from srcli.inference.naming import Naming
    from srcli.inference.sources import expand_inputs

    if as_json and json_lines:
        raise UsageError("--json and --json-lines contradict each other: give either")
    style: Style = "json" if as_json else "lines" if json_lines else "names"
    if degradation is not None:
        degradation = read_word("degradation", degradation, DEGRADATIONS)
    if weights is None and is_weight_file(model):
        weights = Path(model)
    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing contradict each other")
    goal = _read_goal(scale, width, height, model, weights, degradation)
    # Results are named after the weights, where these are not the usual ones.
    special = "" if degradation in (None, ORDINARY) else f"_{degradation}"
    naming = Naming(
        model=f"{model.lower()}{special}" if weights is None else weights.stem,
        goal=goal,
        output=output,
        format=read_word("format", _ALIASES.get(format, format), FORMAT_NAMES),
        suffix=suffix,
        existing="overwrite" if overwrite else "skip" if skip_existing else "refuse",
        frame=frame,
        compare=compare,
        quality=quality,
        keep_metadata=keep_metadata,
    )
    on_ray = _is_on_ray(engine, ray_address, workers)
    upscaler: dict[str, Any] = {
        "model": model,
        "scale": goal.scale,
        "width": width,
        "height": height,
        "precision": precision,
        "tile": tile,
        "overlap": tile_overlap,
        "ensemble": ensemble,
        "degradation": degradation,
        "weights": weights,
        "device": device,
    }
    sources = expand_inputs(inputs, recursive=recursive)
    if not on_ray or dry_run:
        _upscale_here(sources, naming, style, dry_run, upscaler)
        return
    from srcli.bulk.engine import enlarge_sources

    started = time.monotonic()
    with _ending_cleanly(), progress_bar() as progress:
        results = enlarge_sources(
            sources,
            naming,
            upscaler,
            address=ray_address,
            workers=workers,
            progress=progress,
        )
        tally = _show(results, style)
    seconds, megapixels = time.monotonic() - started, tally.pixels / 1e6
    log.info(
        "%s, %.1f megapixels in %s: %.1f pictures, %.2f megapixels a second",
        format_count(tally.total, "picture"), megapixels, format_duration(seconds),
        tally.total / seconds, megapixels / seconds,
    )  # fmt: skip
    tally.raise_failures()


def _upscale_here(
    sources: Sequence[Source],
    naming: Naming,
    style: Style,
    dry_run: bool,
    upscaler: dict[str, Any],
) -> None:
    """Enlarge pictures in this process, or show what that would take."""
    from srcli.inference.batch import run_batch
    from srcli.inference.jobs import plan_jobs
    from srcli.inference.preview import preview_batch

    jobs = plan_jobs(sources, naming)
    if any(job.is_open and job.output is None for job in jobs):
        if style != "names":
            raise UsageError("JSON and a picture cannot share stdout: choose -o FILE")
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal: choose -o FILE, or pipe it on")
    ready: Upscaler | None = None
    if any(job.is_open for job in jobs):
        from srcli.inference.upscaler import Upscaler

        # A wrong model or device is an error before anything is touched.
        ready = Upscaler(**upscaler)
    if ready is not None and not dry_run:
        with _ending_cleanly(), progress_bar() as progress:
            tally = _show(run_batch(jobs, ready, progress), style)
    else:
        results, cost = preview_batch(jobs, ready)
        tally = _show((each for each in results), style, cost if ready else None)
        planned = [result.job for result in results if result.status == "planned"]
        if planned:
            log.info(
                "%s, %.1f megapixels: about %s on %s, %s of memory, %s of files",
                format_count(len(planned), "picture"),
                sum(job.width * job.height for job in planned) / 1e6,
                format_duration(cost.seconds), ready.stats.device if ready else "cpu",
                format_bytes(cost.memory), format_bytes(cost.bytes),
            )  # fmt: skip
    tally.raise_failures()


def _show(
    results: Generator[Result, None, None], style: Style, cost: Cost | None = None
) -> Tally:
    """Show what becomes of each picture, also when interrupted, and count it."""
    from srcli.inference.jobs import Tally

    tally, records = Tally(), []
    try:
        with closing(results):
            for result in results:
                tally.add(result)
                if style == "json":
                    records.append(result.as_dict())
                elif style == "lines":
                    print_json(result.as_dict(), indent=None)
                elif result.status in ("done", "planned") and result.job.output:
                    print_line(str(result.output))
    finally:
        if style == "json":
            total = {} if cost is None else {"estimate": cost.as_dict()}
            print_json({"results": records, **total})
    return tally


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Have SIGTERM, SIGHUP and Ctrl-Break end the work as Ctrl-C does: nothing half."""
    before = {}
    # Windows lacks SIGHUP and has SIGBREAK instead.
    names = ("SIGTERM", "SIGHUP", "SIGBREAK")
    with suppress(ValueError):  # only the main thread can catch signals
        for number in (getattr(signal, n) for n in names if hasattr(signal, n)):
            # A program started by nohup ignores SIGHUP, and shall go on so.
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def _is_on_ray(engine: str, address: str | None, workers: int | None) -> bool:
    """Whether Ray does the work.

    Raises:
        UsageError: If the options contradict each other, or Ray is not installed.
    """
    if read_word("engine", engine, ("local", "ray")) == "ray":
        if find_spec("ray") is None or find_spec("pyarrow") is None:
            raise UsageError("--engine ray needs Ray Data: pip install 'srcli[ray]'")
        return True
    for name, value in (("--ray-address", address), ("--workers", workers)):
        if value is not None:
            raise UsageError(f"{name} is for --engine ray: add that")
    return False


def _read_goal(
    scale: float | None,
    width: int | None,
    height: int | None,
    model: str,
    weights: Path | None,
    degradation: str | None,
) -> Goal:
    """The size asked for, or else the default factor of the weights."""
    from srcli.inference.sizes import DEFAULT_SCALE, Goal

    if width is not None or height is not None:
        if scale is not None:
            raise UsageError("--scale contradicts --width and --height: give either")
    elif scale is None:
        scale = DEFAULT_SCALE
        if weights is not None or degradation not in (None, ORDINARY):
            from srcli.inference.choice import choose  # imports torch

            scale = choose(model, weights, degradation).default_scale
    return Goal(scale, width, height)
