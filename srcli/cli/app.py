"""The `srcli` program: its commands, and the one place where errors become exits."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from srcli import __version__
from srcli.cli import benchmark, download, models, train, upscale
from srcli.cli.signals import Terminated
from srcli.errors import ExitCode, SrcliError

log = logging.getLogger("srcli")

_SPINS = "10000"  # turns of a loop; measured, docs/performance.md


class _Group(TyperGroup):
    """Turns every expected failure into one line on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer hides Click's type
        try:
            return super().invoke(ctx)
        except SrcliError as error:
            log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            raise typer.Exit(error.exit_code) from error
        except Terminated as error:
            log.error("ended by %s", error)
            raise typer.Exit(ExitCode.TERMINATED) from None
        except KeyboardInterrupt:
            log.error("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srcli {__version__}")
        raise typer.Exit


@app.callback()
def root(
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show errors only.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show details and tracebacks.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - the callback prints it
        bool,
        typer.Option(
            "--version",
            help="Show the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Enlarge pictures with recursive super-resolution networks, and measure them."""
    from srcli.cli.console import configure

    configure(verbose=verbose, quiet=quiet)


for command in (
    upscale.upscale,
    benchmark.benchmark,
    train.train,
    download.download,
    models.models,
):
    app.command()(command)


def _calm_threads() -> None:
    """Have threads that wait for each other give their cores to others before long.

    GNU's OpenMP, which PyTorch brings, lets them spin for so long that two programs
    at once take far more than twice the time (docs/performance.md). It reads its
    environment once, when it is loaded. Whoever has set any of it is left alone.
    """
    if not any(name.startswith(("OMP_", "GOMP_")) for name in os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def _escape_unknown_letters() -> None:
    """Have output whose code page lacks a letter of a name show its number instead."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _read_arguments(*, windows: bool = os.name == "nt") -> list[str]:
    """What was typed; on Windows, whose shells leave ~ as it is, with the home folder.

    Patterns stay what they are: `srcli upscale` expands its own. Click would, on
    Windows, take a file "photo[1].png" for one, and enlarge "photo1.png".
    """
    homes = ("~", "~/", "~\\") if windows else ()
    return [
        f"{Path.home()}{text[1:]}" if text[:2] in homes else text
        for text in sys.argv[1:]
    ]


def main() -> None:
    """Run the program (console script)."""
    _calm_threads()
    _escape_unknown_letters()
    app(_read_arguments(), prog_name="srcli")
