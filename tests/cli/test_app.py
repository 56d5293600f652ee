"""The program itself: errors become one line and their exit code."""

import logging

import pytest
import typer

import srcli
from srcli.cli import app as app_module
from srcli.errors import (
    DeviceError,
    InputError,
    OutputError,
    PartialFailureError,
    SrcliError,
    UsageError,
    WeightsError,
    unknown,
)


@pytest.fixture
def failing(monkeypatch):
    """A function that runs a program whose only command raises `error`."""
    from typer.testing import CliRunner

    def invoke(error, *options):
        app = typer.Typer(cls=app_module._Group)
        app.callback()(app_module.root)

        @app.command()
        def fail() -> None:
            raise error

        return CliRunner().invoke(app, [*options, "fail"])

    yield invoke
    logging.getLogger("srcli").handlers.clear()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SrcliError("a defect"), 1),
        (UsageError("no such option"), 2),
        (InputError("no such file"), 3),
        (OutputError("cannot write"), 4),
        (WeightsError("no weights"), 5),
        (DeviceError("no device"), 6),
        (PartialFailureError("2 of 3 failed"), 7),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(failing, error, code):
    result = failing(error)
    assert result.exit_code == code
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert str(error) in result.stderr


def test_long_messages_are_not_wrapped(failing):
    result = failing(InputError("x" * 300))
    assert "x" * 300 in result.stderr


def test_quiet_still_shows_errors_and_verbose_the_traceback(failing):
    assert "no such file" in failing(InputError("no such file"), "-q").stderr
    assert "Traceback" in failing(InputError("no such file"), "-v").stderr


def test_defects_are_not_swallowed(failing):
    result = failing(ZeroDivisionError("ours"))
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_version(run):
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"srcli {srcli.__version__}\n")


def test_unknown_option_and_command_are_usage_errors(run):
    assert run("upscale", "--wrong", "x.png").exit_code == 2
    assert run("downscale").exit_code == 2


def test_unknown_names_suggest_the_nearest():
    message = str(unknown("model", "MRnett", ["drcn", "mrnet"]))
    assert message == "unknown model 'MRnett': did you mean mrnet? known: drcn, mrnet"
