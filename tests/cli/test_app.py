"""The program itself: errors become one line and their exit code."""

import io
import json
import logging
import os

import pytest
import typer
from rich.console import Console
from rich.progress import Progress as RichProgress

import srcli
from srcli.cli import app as app_module
from srcli.cli import console
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


def test_a_message_of_several_lines_is_shown_on_one(failing):
    result = failing(InputError("damaged:\n  because\nof this"))
    assert result.stderr.splitlines() == ["error: damaged:   because of this"]


def test_quiet_still_shows_errors_and_verbose_the_traceback(failing):
    assert "no such file" in failing(InputError("no such file"), "-q").stderr
    assert "Traceback" in failing(InputError("no such file"), "-v").stderr


def test_defects_are_not_swallowed(failing):
    result = failing(ZeroDivisionError("ours"))
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_json_is_plain_on_any_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    document = {"name": "größe \udcff", "size": 3, "none": None}
    console.print_json(document)
    assert json.loads(capsys.readouterr().out) == document


def test_a_task_of_unknown_length_forgets_the_last_one():
    with RichProgress(console=Console(file=io.StringIO())) as bars:
        bar = console._Bar(bars)
        bar.start("known", 10)
        bar.advance(4)
        bar.start("unknown", None)
        (task,) = bars.tasks
        assert (task.description, task.total, task.completed) == ("unknown", None, 0)


def test_version(run):
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"srcli {srcli.__version__}\n")


def test_unknown_option_and_command_are_usage_errors(run):
    assert run("upscale", "--wrong", "x.png").exit_code == 2
    assert run("downscale").exit_code == 2


def test_unknown_names_suggest_the_nearest():
    message = str(unknown("model", "MRnett", ["drcn", "mrnet"]))
    assert message == "unknown model 'MRnett': did you mean mrnet? known: drcn, mrnet"


@pytest.mark.parametrize(
    ("set_by_user", "spins"),
    [
        ({}, "10000"),
        ({"PATH": "/bin"}, "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_NUM_THREADS": "1"}, None),
        ({"OMP_WAIT_POLICY": "active"}, None),
        ({"GOMP_CPU_AFFINITY": "0-1"}, None),
    ],
)
def test_threads_that_wait_spin_only_shortly_unless_the_user_says_so(
    monkeypatch, set_by_user, spins
):
    monkeypatch.setattr("os.environ", dict(set_by_user))
    monkeypatch.setattr(app_module, "app", lambda *_, **__: None)
    app_module.main()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_arguments_on_windows_are_left_to_us(monkeypatch):
    """Its shells expand nothing; of "photo[1].png" Click would make another file."""
    typed = ["~", "~/a", "~\\a\\", "~$a", "a~", "photo[1].png", "*.png", "%TEMP%"]
    monkeypatch.setattr(app_module.sys, "argv", ["srcli", *typed])
    monkeypatch.setenv("HOME", "/home/me")
    assert app_module._read_arguments() == typed
    monkeypatch.setattr(app_module.os, "name", "nt")
    read = app_module._read_arguments()
    monkeypatch.undo()
    assert read == ["/home/me", "/home/me/a", "/home/me\\a\\", *typed[3:]]
