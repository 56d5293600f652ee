"""Benchmarks: their figures fit together, and they say what they cannot do."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from srcli.models.counting import count_macs
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = ("--set", "config.width=4", "--set", "config.blocks=1", "--set", "crop=8")


@pytest.fixture
def load(monkeypatch):
    """A function that loads one of the scripts, which then measures small things."""
    monkeypatch.syspath_prepend(FOLDER)
    timing = importlib.import_module("timing")
    monkeypatch.setattr(timing, "MATRIX_SIDE", {"cpu": 64})
    monkeypatch.setattr(timing, "CONVOLUTIONS", (4,))

    def load_script(name):
        path = FOLDER / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        script = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, script)
        spec.loader.exec_module(script)
        if name == "training":
            monkeypatch.setattr(script, "PICTURE_SIDE", 64)
        return script

    return load_script


def test_the_figures_of_training_fit_together(load, tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--model", "mrnet", *TINY, "--steps", "2", "--device", "cpu"]
    arguments += ["--precision", "fp32", "--json", str(path)]
    assert load("training").main(arguments) == 0
    [row] = json.loads(path.read_text("utf-8"))["rows"]
    assert row["steps_timed"] == 2 * 3  # of x2, x3 and x4
    assert row["crops_per_second"] == pytest.approx(8e3 / row["ms_per_step"])
    gflops = row["gflop_per_step"] / row["ms_per_step"] * 1e3
    assert row["gflops"] == pytest.approx(gflops)
    assert row["share_of_matrix"] == pytest.approx(gflops / row["matrix_gflops"])
    assert row["data_share"] > 0
    memory = row["peak_memory_bytes"]
    assert memory is None or memory > 50_000_000  # PyTorch alone takes more
    out = capsys.readouterr().out
    assert out.startswith("```\npython benchmarks/training.py --model mrnet --set ")
    assert "| mrnet | 8 of 8x8 LR |" in out


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        # All predictions count where all are supervised, one where only the last is.
        ("rrrn", {"supervision": "mean", "config": {"width": 8, "iterations": 2}}),
        ("drcn", {"supervision": "recursive", "crop": 24, "crop_of": "hr"}),
    ],
)
def test_the_work_of_a_step_is_three_times_its_forward_pass(load, model, fields):
    values = {"recursions": [], "config": {"width": 8}, "scale_mode": "all", **fields}
    recipe = load_recipe(model, "fast", values)
    network = make_network(recipe)
    macs = sum(
        count * count_macs(network, scale, side, side)
        for scale, count in recipe.divide_batch(recipe.scales).items()
        for side in [recipe.lr_crop(scale) * scale]
    )
    flop = load("training").count_step_flop(network, recipe, recipe.scales)
    assert flop == pytest.approx(3 * 2 * macs, rel=1e-6)


def test_whole_commands_are_measured(load, capsys):
    arguments = ["--parts", "sizes", "--model", "bicubic", "--sizes", "0.01"]
    assert load("command").main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line[:1] == "|"]
    assert rows[2][0] == "| 0.01 MP"
    assert rows[2][3] == "1.000"
    assert float(rows[2][4].removesuffix(" GB")) > 0.05  # PyTorch alone takes more


def test_ways_to_enlarge_are_compared(load, tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--model", "drrn-b1u9", "--side", "8", "--rounds", "1"]
    assert load("inference").main([*arguments, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    [network] = json.loads(path.read_text("utf-8"))["networks"]
    ways = {way["way"]: way for way in network["ways"]}
    assert ways["PyTorch eager fp32"]["difference"] == 0
    assert ways["srcli fp32, torch alone"]["difference"] < 0.01
    fastest = min(way["ms"] for name, way in ways.items() if name[:5] == "srcli")
    for way in ways.values():
        assert way["gflops"] == pytest.approx(network["gflop"] / way["ms"] * 1e3)
        assert way["relative_time"] == pytest.approx(way["ms"] / fastest)
        assert f"| {way['way']} | x " in out


@pytest.mark.parametrize("script", ["training", "inference"])
def test_what_is_unknown_is_one_line(load, script, capsys):
    assert load(script).main(["--model", "mrnt"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean mrnet" in err
    assert err.count("\n") == 1
