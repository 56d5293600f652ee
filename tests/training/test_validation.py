"""What a run is validated on where nothing was named and Set5 is not at hand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.training.checkpoint import TrainRequest, load_checkpoint
from srcli.training.recipe import Recipe
from srcli.training.validation import Validation

TINY = (
    "-m", "mrnet", "-x", "2", "--device", "cpu", "--precision", "fp32",
    "--set", "crop=8", "--set", "batch=2",
    "--set", "config.width=4", "--set", "config.blocks=1",
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.delenv("SRCLI_DATA_DIR", raising=False)
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def put(folder, count, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        noise = np.random.default_rng(number).integers(0, 256, (40, 44, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


def kept(out):
    return json.loads((out / "run.json").read_text())


def test_a_newcomers_folder_is_trained_and_validated_on(run, tmp_path):
    mine, out = put(tmp_path / "mine", 12), tmp_path / "run"
    result = run("train", "--data", mine, "-o", out, "--steps", "1", *TINY)
    assert result.exit_code == 0, result.stderr
    (said,) = [line for line in result.stderr.splitlines() if "held out" in line]
    ((name, path),) = kept(out)["held_out"].items()
    assert said.startswith(f"1 held out for validation, not trained on: {path}")
    assert "11 pictures" in result.stderr
    assert f"| held out for validation | `{path}` |" in (out / "report.md").read_text()
    best = load_checkpoint(out)["best"]
    # Neither other names and other pictures nor Set5 change what is held out.
    (mine / path).rename(mine / "renamed.png")
    put(mine, 20, first=100)
    put(tmp_path / "set5", 1, first=50)
    again = ("train", "-m", "mrnet", "--resume", "-o", out, "--device", "cpu")
    result = run(*again, "--steps", "2", "--set", "learning_rate=1e-12")
    assert result.exit_code == 0, result.stderr
    assert kept(out)["held_out"] == {name: str(mine / "renamed.png")}
    assert "the best begins anew" not in result.stderr
    assert load_checkpoint(out)["best"]["mean"] == pytest.approx(best["mean"], abs=0.5)
    result = run(*again, "--steps", "3", "--val", "set5")
    assert (kept(out)["val"], kept(out)["held_out"]) == ("set5", {})
    assert "the best begins anew" in result.stderr


def test_too_few_pictures_are_all_trained_on(run, tmp_path):
    few, out = put(tmp_path / "few", 3), tmp_path / "run"
    train = ("train", "--data", few, "--steps", "1", *TINY)
    result = run(*train, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "no validation: under 4 pictures are large enough" in result.stderr
    assert not (out / "best.safetensors").exists()
    plateau = ("--set", "schedule=plateau", "--set", "decay_every=1")
    refused = run(*train, "-o", tmp_path / "other", *plateau)
    assert refused.exit_code == 2
    assert "schedule 'plateau' needs a validation" in refused.stderr
    put(few, 1, first=3)
    assert run(*train, "-o", tmp_path / "other", *plateau).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--val", "set5"), "set5 not found"), (("--data-dir", "no"), "does not exist")],
)
def test_what_was_named_has_to_be_there(run, tmp_path, arguments, said):
    result = run("train", "--data", put(tmp_path / "mine", 5), *TINY, *arguments)
    assert result.exit_code == 3
    assert said in result.stderr


def test_few_are_held_out(tmp_path):
    request = TrainRequest(model="mrnet", out=tmp_path / "run", val="held-out")
    recipe = Recipe(model="mrnet", crop=8, scales=(2,))
    validation = Validation(request, recipe, "rgb", torch.device("cpu"), "fp32")
    small = {f"a{number}": (9, 200) for number in range(9)}
    for count, held in ((3, 0), (4, 1), (19, 1), (20, 2), (800, 5)):
        sizes = {f"{number:04}": (40, 44) for number in range(count)}
        assert validation.hold_out({**small, **sizes}) == list(sizes)[:held]
