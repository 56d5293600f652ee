"""Benchmarks: their figures fit together, and they say what they cannot do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from srcli.models.counting import count_macs
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = ("--set", "config.width=4", "--set", "config.blocks=1", "--set", "crop=8")


@pytest.fixture
def timing(monkeypatch):
    """The module that measures, on small matrices and pictures."""
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("timing")
    monkeypatch.setattr(module, "MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(module, "CONVOLUTIONS", (4,))
    monkeypatch.setattr(module, "PICTURE_SIDE", 64)
    return module


@pytest.fixture
def benchmark(timing, capsys):
    """A function that runs the script on the CPU: exit code, stdout, stderr."""
    path = FOLDER / "training.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_training", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*arguments):
        code = script.main([*arguments, "--device", "cpu", "--precision", "fp32"])
        return code, *capsys.readouterr()

    return run


def test_the_figures_fit_together(benchmark):
    code, out, _ = benchmark("--model", "mrnet", *TINY, "--steps", "3", "--json")
    document = json.loads(out)
    [row] = document["rows"]
    assert code == 0
    assert row["steps_timed"] == 3 * 3  # of x2, x3 and x4
    assert row["crops"] == "8 of 8x8 LR"
    assert row["crops_per_second"] == pytest.approx(8e3 / row["ms_per_step"])
    assert row["gflops"] == pytest.approx(
        row["gflop_per_step"] / row["ms_per_step"] * 1e3
    )
    assert row["share_of_matrix"] == pytest.approx(
        row["gflops"] / document["matrix_gflops"]
    )
    assert row["gflops"] > 0
    assert document["convolution_gflops"] > 0
    assert 0 < row["data_share"] < 1
    memory = row["peak_memory_bytes"]
    assert memory is None or memory > 50_000_000  # PyTorch alone takes more


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        # All predictions count where all are supervised, one where only the last is.
        ("rrrn", {"supervision": "mean"}),
        ("drcn", {"supervision": "recursive", "crop": 24, "crop_of": "hr"}),
        ("drrn", {"crop": 31, "crop_of": "hr", "batch": 9}),
    ],
)
def test_the_work_of_a_step_is_three_times_its_forward_pass(timing, model, fields):
    values = {"recursions": [], "config": {"width": 8}, "scale_mode": "all", **fields}
    recipe = load_recipe(model, "fast", values)
    network = make_network(recipe)
    macs = sum(
        count * count_macs(network, scale, side, side)
        for scale, count in recipe.divide_batch(recipe.scales).items()
        for side in [recipe.lr_crop(scale) * scale]
    )
    flop = timing.count_step_flop(network, recipe, recipe.scales)
    assert flop == pytest.approx(3 * 2 * macs, rel=1e-6)


def test_fewer_recursions_are_less_work(timing):
    whole, shallow = (
        load_recipe("drrn", "fast", {"recursions": limits, "scales": [2]})
        for limits in ([], [[0.0, 5]])
    )
    ratio = timing.count_step_flop(make_network(shallow), shallow, (2,)) / (
        timing.count_step_flop(make_network(whole), whole, (2,))
    )
    assert ratio == pytest.approx(5 / 25, abs=0.01)


def test_the_table_names_its_command_and_can_be_kept(benchmark, tmp_path):
    path = tmp_path / "table.md"
    arguments = ("--model", "mrnet", *TINY, "--set", "scales=[2]", "--steps", "1")
    code, out, _ = benchmark(*arguments, "--markdown", str(path))
    assert code == 0
    assert out.startswith("python benchmarks/training.py --model mrnet --set ")
    assert "8 of" in out
    rows = [line for line in path.read_text("utf-8").splitlines() if line[:1] == "|"]
    assert len(rows) == 3
    assert rows[2].startswith("| mrnet | 8 of 8x8 LR |")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "mrnt"), "did you mean mrnet"),
        (("--model", "mrnet", "--set", "crops=3"), "did you mean crop"),
    ],
)
def test_what_is_unknown_is_one_line(benchmark, arguments, message):
    code, out, err = benchmark(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def command(monkeypatch):
    """benchmarks/command.py as a module."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("command")


def test_whole_commands_are_measured(command, tmp_path, capsys):
    path = tmp_path / "table.md"
    arguments = ["--parts", "thumbnails", "sizes", "--model", "bicubic"]
    arguments += ["--thumbnails", "3", "--alone", "1", "--sizes", "0.01"]
    assert command.main([*arguments, "--markdown", str(path)]) == 0
    out = capsys.readouterr().out
    assert out == path.read_text("utf-8")
    rows = [line.split(" | ") for line in out.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows[2::3]] == ["| 3 of 64x64", "| 0.01 MP"]
    assert float(rows[2][4]) > 0
    assert rows[5][3] == "1.000"
    assert float(rows[5][4].removesuffix(" GB")) > 0.05  # PyTorch alone takes more


def test_a_command_that_fails_is_an_error(command, capfd):
    arguments = ("--parts", "command", "--megapixels", "0.01", "--model", "mrnt")
    assert command.main(arguments) != 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "did you mean mrnet" in err


@pytest.fixture
def inference(timing):
    """benchmarks/inference.py as a module."""
    return importlib.import_module("inference")


def test_ways_to_enlarge_are_compared(inference, tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--model", "drrn-b1u9", "--side", "8", "--rounds", "1"]
    assert inference.main([*arguments, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    [network] = json.loads(path.read_text("utf-8"))["networks"]
    ways = {way["way"]: way for way in network["ways"]}
    assert {"PyTorch eager fp32", "srcli fp32, torch alone"} <= set(ways)
    assert ways["PyTorch eager fp32"]["difference"] == 0
    assert ways["srcli fp32, torch alone"]["difference"] < 0.01
    for way in ways.values():
        assert way["gflops"] == pytest.approx(network["gflop"] / way["ms"] * 1e3)
        assert f"| {way['way']} | x " in out
    fastest = min(way["ms"] for name, way in ways.items() if name[:5] == "srcli")
    for way in ways.values():
        assert way["relative_time"] == pytest.approx(way["ms"] / fastest)


def test_networks_that_are_not_timed_are_one_line(inference, capsys):
    assert inference.main(["--model", "mrnt"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean mrnet" in err
