"""`srcli train` from outside: it trains, resumes, and refuses in a sentence."""

import json

import numpy as np
import pytest
from PIL import Image

from srcli.cli.options import read_duration
from srcli.errors import UsageError
from srcli.pretrained.weight_file import read_weights

TINY = (
    "--set", "config.width=4", "--set", "config.blocks=1", "--set", "crop=8",
    "--set", "batch=2", "--set", "validate_every=4", "--set", "checkpoint_every=4",
    "--device", "cpu", "--precision", "fp32",
)  # fmt: skip


def test_trains_validates_and_writes_usable_weights(run, pictures, tmp_path):
    out = tmp_path / "run"
    result = run(
        "train", "-m", "mrnet", "--data", pictures, "--val", pictures, "-o", out,
        "--steps", "8", "--json", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["steps"] == 8
    assert set(document["psnr"]) == {"mean", "x2", "x3", "x4"}
    network = read_weights(out / "best.safetensors")
    assert (network.config.width, network.config.blocks) == (4, 1)
    upscaled = tmp_path / "large.png"
    again = run(
        "upscale", pictures / "0.png", "-o", upscaled, "-x", "3",
        "--weights", out / "last.safetensors",
    )  # fmt: skip
    assert again.exit_code == 0, again.stderr
    assert np.array(Image.open(upscaled)).shape == (180, 210, 3)


def test_resume_goes_on_to_more_steps(run, pictures, tmp_path):
    out = tmp_path / "run"
    common = ("train", "-m", "mrnet", "--data", pictures, "--val", "none", "-o", out)
    assert run(*common, "--steps", "4", *TINY).exit_code == 0
    refused = run(*common, "--steps", "8", *TINY)
    assert refused.exit_code == 4
    assert "--resume" in refused.stderr
    # Pictures, validation and precision are those of the first call.
    again = ("train", "-m", "mrnet", "-o", out, "--resume", "--device", "cpu")
    resumed = run(*again, "--steps", "6", "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == 6


def test_a_perfect_validation_is_null_in_json(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("srcli.training.validation.psnr", lambda *_: float("inf"))
    out = tmp_path / "run"
    result = run(
        "train", "-m", "mrnet", "--data", pictures, "--val", pictures, "-o", out,
        "--steps", "1", "--json", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["psnr"]["mean"] is None


def test_init_takes_over_what_fits(run, pictures, tmp_path):
    first = ("train", "-m", "mrnet", "--data", pictures, "--val", "none", *TINY)
    assert run(*first, "-o", tmp_path / "a", "--steps", "1").exit_code == 0
    start = tmp_path / "a" / "last.safetensors"
    result = run(*first, "-o", tmp_path / "b", "--steps", "1", "--init", start,
                 "--set", "learning_rate=1e-12", "-x", "2")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    before, after = (read_weights(p) for p in (start, tmp_path / "b/last.safetensors"))
    assert after.config.scales == (2,)
    drift = (before.recurse.encode.weight - after.recurse.encode.weight).abs().max()
    assert drift < 1e-6


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["-m", "mrnett"], 2, "did you mean mrnet"),
        (["-m", "mrnet", "--recipe", "papr"], 2, "did you mean paper"),
        (["-m", "mrnet", "--set", "stepps=3"], 2, "did you mean steps"),
        (["-m", "mrnet", "-x", "5"], 2, "2, 3 and 4"),
        (["-m", "dsrn", "-x", "2", "-x", "3"], 2, "serves one scale"),
        (["-m", "drcn", "-x", "2.5"], 2, "--scale takes"),
        (["-m", "mrnet", "--set", "config.width=wide"], 2, "takes int"),
        (["-m", "mrnet", "--set", "model=drrn"], 2, "--model names it"),
        (["-m", "mrnet", "--resume", "--init", "bundled"], 2, "leave --init out"),
        (["-m", "drcn", "--recipe", "paper", "--data", "."], 2, "--val"),
        (["-m", "mrnet", "--seed", "-1"], 2, "--seed"),
        (["-m", "mrnet", "--for", "8"], 2, "say 8h, 25m or 1h30m"),
        (["-m", "mrnet", "--for", "8h", "--steps", "9"], 2, "name one"),
        (["-m", "mrnet", "--set", "config.depth=5"], 2, "depth"),
        (["-m", "mrnet"], 3, "--data"),
        (["-m", "mrnet", "--data", "nowhere"], 3, "nowhere"),
        (["-m", "mrnet", "--resume"], 3, "nothing to resume"),
        (["-m", "mrnet", "--init", "gone.safetensors"], 5, "gone.safetensors"),
        (["-m", "mrnet", "--device", "cuda:99"], 6, "CUDA"),
    ],
)
def test_refusals(run, tmp_path, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    result = run("train", *arguments, "--val", "none")
    assert result.exit_code == code, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_times_are_read_as_people_type_them():
    said = {
        "8h": 28_800,
        "25m": 1500,
        "1h30m": 5400,
        "1.5h": 5400,
        "90S": 90,
        "1d": 86_400,
    }
    assert {text: read_duration(text) for text in said} == said
    for wrong in ("", "8", "h", "0m", "8x", "1.2.3h", "-5m", "8h late"):
        with pytest.raises(UsageError, match="say 8h, 25m or 1h30m"):
            read_duration(wrong)
