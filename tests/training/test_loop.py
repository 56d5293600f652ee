"""The loop: it learns, resumes exactly, stops when told, and keeps what is best."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.errors import InputError, SrcliError, UsageError
from srcli.models import variant
from srcli.pretrained.catalog import read_weights
from srcli.training.average import Average
from srcli.training.checkpoint import load_checkpoint, save_checkpoint
from srcli.training.data import CropSampler, find_pictures
from srcli.training.loop import Limits, Trainer
from srcli.training.optimizer import clip_gradients
from srcli.training.recipe import load_recipe
from srcli.training.stopping import TrainingStoppedError, TrainingTerminatedError

CPU = torch.device("cpu")
# The smallest network of each kind; everything else is its own `fast` recipe.
TINY = {
    "drcn": {"width": 4, "recursions": 3},
    "drrn": {"width": 4, "units": 3},
    "dsrn": {"width": 8, "steps": 3},
    "mrnet": {"width": 4, "blocks": 1, "recursions": [2, 3, 4]},
    "rrrn": {"width": 4, "sub_networks": 2, "iterations": 2},
}


@pytest.fixture
def pictures(tmp_path, picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(picture(60 + number, 70)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def trainer(pictures, tmp_path):
    """A function that makes a trainer of a tiny network in a folder of its own."""

    def make(model="mrnet", out="run", validate=None, **overrides):
        values = {
            "config": TINY[model],
            "crop": 8,
            "crop_of": "lr",
            "batch": 2,
            "steps": 20,
            "warmup": 2,
            "checkpoint_every": 10,
            "validate_every": 10,
            **overrides,
        }
        recipe = load_recipe(model, "fast", values)
        model_class, config = variant(model)
        torch.manual_seed(7)
        network = model_class(
            type(config).from_dict(
                {**config.as_dict(), **recipe.config, "scales": recipe.scales}
            )
        )
        sampler = CropSampler(
            find_pictures([pictures]), recipe, network.color, CPU, seed=3
        )
        return Trainer(network, recipe, sampler, tmp_path / out, validate=validate)

    return make


def weights_of(trainer):
    return {
        **{k: v.clone() for k, v in trainer.model.state_dict().items()},
        **{f"average.{k}": v.clone() for k, v in trainer.average.values.items()},
    }


@pytest.mark.parametrize("model", TINY)
def test_ten_and_ten_steps_are_twenty_bit_for_bit(trainer, model):
    whole = trainer(model, "whole")
    whole.run()
    first = trainer(model, "parts")
    while first.step < 10:
        first.train_step()
    first.folder.mkdir()
    save_checkpoint(first.folder, first.state())
    torch.rand(3)  # whatever happened in between
    second = trainer(model, "parts")
    second.resume()
    second.run()
    expected, found = weights_of(whole), weights_of(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("model", TINY)
def test_loss_falls(trainer, model):
    run = trainer(model, steps=80, learning_rate=2e-3, ema=0.0, recursions=[])
    losses = [run.train_step() for _ in range(80)]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])


@pytest.mark.parametrize("model", TINY)
def test_paper_recipe_takes_steps(trainer, model):
    recipe = load_recipe(model, "paper")
    values = recipe.as_dict()
    for name in ("model", "config", "crop", "crop_of", "batch", "steps"):
        values.pop(name)
    run = trainer(model, **values)
    assert all(np.isfinite(run.train_step()) for _ in range(3))
    assert run.recipe.loss == recipe.loss


def test_raising_the_recursions_leaves_the_output_as_it_was(trainer):
    run = trainer("mrnet", steps=20, recursions=[[0.0, 1], [0.5, 3]])
    while run.step < 10:
        run.train_step()
    lr = torch.rand(1, 3, 6, 6)
    before = run.model(lr, 4)
    run.model.limit_recursions(run.recipe.recursions_at(10))
    assert run.model.recursion_limit == 3
    assert torch.allclose(run.model(lr, 4), before, atol=1e-6)
    run.train_step()
    assert not torch.allclose(run.model(lr, 4), before, atol=1e-6)


def test_best_average_is_kept_with_its_figures(trainer):
    values = iter([20.0, 25.0, 22.0, 21.0])
    run = trainer(
        steps=40, validate=lambda model: {4: next(values)}, scales=[4], scale_mode="one"
    )
    run.run()
    assert run.best == {"mean": 25.0, "x4": 25.0}
    assert run.best_step == 20
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    psnr = [json.loads(line)["psnr"]["4"] for line in lines if "psnr" in line]
    assert psnr == [20.0, 25.0, 22.0, 21.0]
    best = read_weights(run.folder / "best.safetensors")
    last = read_weights(run.folder / "last.safetensors")
    assert best.config == last.config == run.model.config
    assert not torch.equal(best.recurse.encode.weight, last.recurse.encode.weight)
    expected = run.average.values["recurse.encode.weight"]
    assert torch.equal(last.recurse.encode.weight, expected)


def test_plateau_cuts_the_rate_and_ends_the_run(trainer):
    run = trainer(
        steps=1000,
        validate=lambda model: {4: 20.0},
        schedule="plateau",
        decay_every=10,
        decay_factor=0.1,
        learning_rate=1e-3,
        min_rate=2e-5,
        validate_every=5,
        warmup=0,
    )
    run.run()
    # Best at 5; cut at 15 and 25, where the rate falls below the least.
    assert run.step == 25
    assert run.rate_factor == pytest.approx(0.01)


def test_minutes_end_the_run_with_a_checkpoint(trainer):
    run = trainer(steps=1000)
    run.run(Limits(max_minutes=0.0))
    assert run.step == 1
    assert load_checkpoint(run.folder)["step"] == 1


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, TrainingStoppedError), (signal.SIGTERM, TrainingTerminatedError)],
)
def test_signals_end_the_run_with_a_checkpoint(trainer, number, error):
    def interrupt(model):
        os.kill(os.getpid(), number)
        return {4: 20.0}

    run = trainer(steps=1000, validate=interrupt)
    with pytest.raises(error, match="--resume"):
        run.run()
    assert load_checkpoint(run.folder)["step"] == run.step == 10
    assert not list(run.folder.glob("*.part"))


def test_a_loss_that_is_no_number_stops_the_run(trainer):
    run = trainer(steps=100)
    with torch.no_grad():
        run.model.recurse.encode.bias.fill_(float("nan"))
    with pytest.raises(SrcliError, match="learning_rate"):
        run.run()


def test_previous_checkpoint_serves_when_the_newest_is_gone(trainer):
    run = trainer(steps=20)
    run.run()
    assert load_checkpoint(run.folder)["step"] == 20
    (run.folder / "checkpoint.pt").unlink()
    assert load_checkpoint(run.folder)["step"] in (10, 20)


def test_damaged_and_missing_checkpoints_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path)


def test_checkpoint_of_another_network_is_refused(trainer):
    run = trainer("mrnet", "a")
    state = run.state()
    with pytest.raises(UsageError, match="mrnet"):
        trainer("drrn", "b").restore(state)


def test_average_is_the_exponential_moving_average():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = Average(layer, 0.5)
    expected = layer.weight.item()
    for update in range(1, 15):
        with torch.no_grad():
            layer.weight.fill_(float(update))
        average.update(layer)
        decay = min(0.5, update / (update + 10))
        expected = decay * expected + (1 - decay) * update
    assert average.values["weight"].item() == pytest.approx(expected, rel=1e-6)
    with average.applied(layer):
        assert layer.weight.item() == pytest.approx(expected, rel=1e-6)
    assert layer.weight.item() == 14.0


def test_adjustable_clipping_follows_the_rate():
    layer = torch.nn.Linear(2, 1, bias=False)
    recipe = load_recipe("drrn", "paper")
    layer.weight.grad = torch.tensor([[5.0, -0.05]])
    clip_gradients(layer, recipe, rate=0.1)
    assert layer.weight.grad.tolist() == [[pytest.approx(0.1), pytest.approx(-0.05)]]
