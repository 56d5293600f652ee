"""The `srcli` program: its commands, and the one place where errors become exits."""

from __future__ import annotations

import io
import logging
import os
import sys
from copy import copy
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from srcli import __version__
from srcli.cli import benchmark, download, models, train, upscale
from srcli.cli.console import configure
from srcli.cli.options import flag
from srcli.errors import ExitCode, SrcliError

log = logging.getLogger("srcli")

_SPINS = "10000"  # turns of a loop; measured, docs/performance.md
_LEVELS = ("quiet", "verbose")  # options of the program, and of each command


class _Group(TyperGroup):
    """Turns every expected failure into one line on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer hides Click's type
        try:
            return super().invoke(ctx)
        except SrcliError as error:
            log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:  # of a signal with its name, of Ctrl-C bare
            log.error("ended by %s" if error.args else "interrupted", *error.args)
            code = ExitCode.TERMINATED if error.args else ExitCode.INTERRUPTED
            raise typer.Exit(code) from None


class _Command(TyperCommand):
    """A command that takes -q and -v too, for those who type them behind it."""

    _late: tuple[Any, ...] = ()  # which its help does not list

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401
        if not self._late and ctx.parent is not None:
            own = [p for p in ctx.parent.command.params if p.name in _LEVELS]
            self._late = tuple(map(copy, own))
            for option in self._late:
                option.hidden, option.expose_value = True, False
                option.is_eager, option.callback = True, _set_level
        return [*super().get_params(ctx), *self._late]


def _set_level(_ctx: Any, option: Any, wanted: bool) -> None:  # noqa: ANN401
    if wanted:
        configure(**{level: level == option.name for level in _LEVELS})


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
    quiet: Annotated[bool, flag("Show errors only.", "--quiet", "-q")] = False,
    verbose: Annotated[
        bool, flag("Show details and tracebacks.", "--verbose", "-v")
    ] = False,
    _version: Annotated[
        bool,
        flag("Show the version.", "--version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Enlarge pictures with recursive super-resolution networks, and measure them."""
    configure(verbose=verbose, quiet=quiet)


for command in (
    upscale.upscale,
    benchmark.benchmark,
    train.train,
    download.download,
    models.models,
):
    app.command(cls=_Command)(command)


def _read_arguments() -> list[str]:
    """What was typed; on Windows, whose shells leave ~ as it is, with the home folder.

    Patterns stay what they are: `srcli upscale` expands its own. Click would, on
    Windows, take a file "photo[1].png" for one, and enlarge "photo1.png".
    """
    homes = ("~", "~/", "~\\") if os.name == "nt" else ()
    return [
        os.path.expanduser("~") + text[1:] if text[:2] in homes else text  # noqa: PTH111
        for text in sys.argv[1:]
    ]


def main() -> None:
    """Run the program (console script)."""
    # GNU's OpenMP, which PyTorch brings, lets threads that wait spin for so long that
    # two programs at once take far more than twice the time. It reads its environment
    # once, when it is loaded; whoever has set any of it is left alone.
    if not any(name.startswith(("OMP_", "GOMP_")) for name in os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPINS
    # Letters of a name that the output's code page lacks are shown by number.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")
    app(_read_arguments(), prog_name="srcli")
