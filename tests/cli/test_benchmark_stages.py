"""`srcli benchmark --stages`: what it prints and writes, and how it fails."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise

import pytest


@pytest.fixture
def weights(tmp_path):
    """A function that writes small random weights of a network."""
    from srcli.models import MODELS
    from srcli.pretrained.weight_file import save_weights

    def make(name, **config):
        model = MODELS[name]
        path = tmp_path / f"{name}.safetensors"
        save_weights(model(model.config_class(scales=(2,), **config)), path)
        return path

    return make


@pytest.fixture
def stages(run, folder, weights):
    """Run the command with the weights of a small RRRN of three sub-networks."""
    file = weights(
        "rrrn", width=4, sub_networks=3, iterations=1, extract_layers=1, extract_ratio=1
    )

    def invoke(*arguments):
        return run("benchmark", "-d", folder, "--weights", file, "--stages", *arguments)

    return invoke


def test_second_table_shows_what_each_stage_gains(stages):
    result = stages()
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    heads = [n for n, line in enumerate(lines) if line[0] in ("model", "stage")]
    assert [lines[n][0] for n in heads] == ["model", "stage"]
    table = lines[heads[1] + 2 :]
    assert table[0] == ["pictures", "x2", "rrrn", "(rgb)"]
    assert [line[:2] for line in table[1:]] == [
        ["bicubic", "(y)"], *(["sub-network", str(n)] for n in (1, 2, 3)),
    ]  # fmt: skip
    figures = [line[2:] for line in table[1:]]
    for before, after in pairwise(figures):
        gain = float(after[0]) - float(before[0])
        assert float(after[1]) == pytest.approx(gain, abs=1e-9)
    row = next(line for line in lines if line[0] == "rrrn")
    assert float(row[2]) == pytest.approx(float(figures[-1][0]), abs=0.0051)


def test_weights_of_the_measured_file_stand_beside_the_recursions(run, folder, weights):
    import torch
    from safetensors.torch import load_file, save_file

    from srcli.pretrained.weight_file import read_metadata

    file = weights("drcn", width=4, recursions=3)
    learned = torch.tensor([0.1, 0.2, 0.5])
    save_file({**load_file(file), "weights": learned}, file, read_metadata(file))
    options = ("benchmark", "-d", folder, "--weights", file, "--stages")
    lines = [line.split() for line in run(*options).stdout.splitlines() if line.strip()]
    table = lines[next(n for n, line in enumerate(lines) if line[0] == "stage") :]
    assert table[0][-1] == "weight"
    assert [line[-1] for line in table[4:]] == ["+0.125", "+0.250", "+0.625", "+1.000"]
    _, row = json.loads(run(*options, "--json").stdout)["rows"]
    found = [stage["weight"] for stage in row["stages"]]
    assert found == pytest.approx([0.125, 0.25, 0.625, 1.0], abs=1e-6)


def test_json_has_the_stages_and_the_command_repeats_them(run, stages):
    document = json.loads(stages("--json", "--per-image").stdout)
    bicubic, row = document["rows"]
    assert bicubic["stages"] == []
    assert [stage["stage"] for stage in row["stages"]] == [1, 2, 3]
    assert row["stages"][-1]["psnr"] == row["psnr"]
    assert row["stages"][-1]["ssim"] == row["ssim"]
    for n in range(3):
        each = [picture["stages"][n]["psnr"] for picture in row["per_image"]]
        assert row["stages"][n]["psnr"] == pytest.approx(sum(each) / 2, abs=2e-6)
    words = shlex.split(document["command"])[1:]
    again = json.loads(run(*words, "--json").stdout)["rows"][1]
    assert again["stages"] == row["stages"]
    assert "per_image" not in again


def test_reports_have_the_stages(stages, tmp_path):
    names = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    options = [text for kind, path in names.items() for text in (f"--{kind}", path)]
    assert stages(*options).exit_code == 0
    for path in names.values():
        text = path.read_text()
        assert text.count("sub-network") == 3
        assert "sub-network 3" in text


def test_networks_without_stages_are_refused(run, folder, weights):
    file = weights("drrn", width=4, units=1)
    for chosen, name in ((["--weights", file], "drrn"), (["-m", "bicubic"], "bicubic")):
        result = run("benchmark", "-d", folder, "-x", "2", "--stages", *chosen)
        assert result.exit_code == 2
        line = " ".join(result.stderr.split())
        assert name in line
        assert "drcn or rrrn" in line
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
