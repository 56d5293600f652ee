"""The program itself: errors become one line and their exit code."""

import io
import json
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
def fail(run):
    """A function that runs a program whose only command raises `error`."""

    def invoke(error, *options):
        app = typer.Typer(cls=app_module._Group)
        app.callback()(app_module.root)

        @app.command()
        def fail() -> None:
            raise error

        return run(*options, "fail", app=app)

    return invoke


def test_each_error_has_its_exit_code_and_one_line(fail):
    for error, code in {
        SrcliError("a defect"): 1,
        UsageError("no such option"): 2,
        InputError("no such file"): 3,
        OutputError("cannot write"): 4,
        WeightsError("no weights"): 5,
        DeviceError("no device"): 6,
        PartialFailureError("2 of 3 failed"): 7,
        KeyboardInterrupt(): 130,
        KeyboardInterrupt("SIGTERM"): 143,
        InputError("x" * 300): 3,
        InputError("damaged:\n  because\nof this"): 3,
    }.items():
        result = fail(error, "-q")
        assert (result.exit_code, result.stdout) == (code, "")
        assert len(result.stderr.splitlines()) == 1
        assert str(error).replace("\n", " ") in result.stderr


def test_tracebacks_are_shown_if_asked_for_and_defects_not_swallowed(fail):
    assert "Traceback" in fail(InputError("no such file"), "-v").stderr
    result = fail(ZeroDivisionError("ours"))
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


def test_levels_may_follow_the_command(run, tmp_path):
    missing = str(tmp_path / "missing.png")
    assert "Traceback" in run("upscale", missing, "-v").stderr
    assert "Traceback" in run("-q", "upscale", "--verbose", missing).stderr
    assert "Traceback" not in run("-v", "upscale", "-q", missing).stderr
    shown = run("upscale", "--help").stdout
    assert "--quiet" not in shown
    assert "--verbose" not in shown


def test_usage(run):
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"srcli {srcli.__version__}\n")
    assert run("upscale", "--wrong", "x.png").exit_code == 2
    assert run("downscale").exit_code == 2
    message = str(unknown("model", "MRnett", ["drcn", "mrnet"]))
    assert message == "unknown model 'MRnett': did you mean mrnet? known: drcn, mrnet"


def test_json_is_plain_on_any_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    document = {"name": "gr\xf6\xdfe \udcff", "size": 3, "none": None}
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


def test_results_are_lines_of_stdout_while_a_bar_is_drawn(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(console, "err", Console(file=terminal, force_terminal=True))
    name = "a" * 200  # longer than the terminal is wide
    with console.progress_bar() as bar:
        bar.start("upscaling", 3)
        console.print_line(name)
        bar.advance()
        console.print_json({"b": 1}, indent=None)
    lines = terminal.getvalue().split("\n")
    erased = "\x1b[2K"
    for expected in (name, '{"b": 1}'):
        (line,) = [line for line in lines if expected in line]
        assert line.rpartition(erased)[2] == expected


def test_results_go_to_stdout_where_only_the_bar_has_a_terminal(monkeypatch):
    stdout, stderr = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr(console, "err", Console(file=stderr, force_terminal=True))
    with console.progress_bar() as bar:
        bar.start("upscaling", 3)
        console.print_line("a.png")
    assert stdout.getvalue() == "a.png\n"


@pytest.mark.parametrize(
    ("set_by_user", "spins"),
    [
        ({"PATH": "/bin"}, "10000"),
        ({"GOMP_SPINCOUNT": "5"}, "5"),
        ({"OMP_NUM_THREADS": "1"}, None),
    ],
)
def test_threads_that_wait_spin_only_shortly_unless_the_user_says_so(
    monkeypatch, set_by_user, spins
):
    monkeypatch.setattr("os.environ", set_by_user)
    monkeypatch.setattr(app_module, "app", lambda *_, **__: None)
    app_module.main()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_letters_that_a_code_page_lacks_are_shown_by_number(monkeypatch):
    """As where the output of a Windows console is sent on."""
    stdout = io.TextIOWrapper(io.BytesIO(), "cp1252")
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setattr(
        app_module, "app", lambda *_, **__: console.print_line("gr\xf6\xdfe \u5199")
    )
    app_module.main()
    stdout.flush()
    assert stdout.buffer.getvalue() == b"gr\xf6\xdfe \\u5199\n"


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
