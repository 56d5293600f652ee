"""The loop: it learns, resumes exactly, stops when told, and keeps what is best."""

import json
import os
import signal

import pytest
import torch

from srcli.errors import (
    InputError,
    OutputError,
    TrainingStoppedError,
    TrainingTerminatedError,
    UsageError,
)
from srcli.pretrained.weight_file import read_weights
from srcli.training.checkpoint import load_checkpoint, save_checkpoint
from srcli.training.data import CropSampler, find_pictures
from srcli.training.loop import Trainer
from srcli.training.optimizer import Average
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network

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
def trainer(pictures, tmp_path):
    """A function that makes a trainer of a tiny network in a folder of its own."""

    def make(model="mrnet", out="run", validate=None, **overrides):
        values = {
            "config": TINY[model],
            "crop": 8,
            "crop_of": "lr",
            "batch": 2,
            "rate_batch": 0,
            "steps": 20,
            "warmup": 2,
            "checkpoint_every": 10,
            "validate_every": 10,
            **overrides,
        }
        recipe = load_recipe(model, "fast", values)
        torch.manual_seed(7)
        network = make_network(recipe)
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


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [("drcn", "muon"), *((model, "adam") for model in TINY if model != "drcn")],
)
def test_ten_and_ten_steps_are_twenty_bit_for_bit(trainer, model, optimizer):
    whole = trainer(model, "whole", optimizer=optimizer)
    whole.run()
    first = trainer(model, "parts", optimizer=optimizer)
    while first.step < 10:
        first.train_step()
    first.folder.mkdir()
    save_checkpoint(first.folder, first.state())
    torch.rand(3)  # whatever happened in between
    second = trainer(model, "parts", optimizer=optimizer)
    second.restore(load_checkpoint(second.folder))
    second.run()
    expected, found = weights_of(whole), weights_of(second)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_a_raise_begins_a_new_average(trainer):
    run = trainer("drrn", steps=20, recursions=[[0.0, 1], [0.5, 3]], ema=0.999)
    while run.step < 10:
        run.train_step()
    old = run.average.values["reconstruct.convolution.weight"].clone()
    run.train_step()
    assert run.average.updates == 1
    # The first step counts 10/11; nothing is left of the network before the raise.
    begun = run.model.state_dict()
    for name, value in run.average.values.items():
        if value.is_floating_point():
            assert (value - begun[name]).abs().max() < 2e-3, name
    assert not torch.equal(run.average.values["reconstruct.convolution.weight"], old)


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


def poison(run, wanted):
    """Make the crops of the steps that `wanted` chooses no numbers."""
    draw = run.sampler.draw

    def poisoned(scale, count):
        lr, hr = draw(scale, count)
        return (lr, hr * float("nan")) if wanted(run.step) else (lr, hr)

    run.sampler.draw = poisoned


def test_a_loss_that_is_no_number_goes_back_with_half_the_rate(trainer, caplog):
    run = trainer(steps=30, schedule="constant", warmup=0, learning_rate=1e-3)
    failures = iter([True])
    poison(run, lambda step: step == 13 and next(failures, False))
    seen = []
    poisoned = run.sampler.draw
    run.sampler.draw = lambda *call: seen.append(poisoned(*call)) or seen[-1]
    run.run()
    first, again = seen[10], seen[14]  # of step 11; others after going back
    assert first[0].shape != again[0].shape or not torch.equal(first[0], again[0])
    assert run.step == 30
    assert run.rate == pytest.approx(5e-4)
    assert "back to step 10 with half the learning rate (0.0005)" in caplog.text
    assert all(torch.isfinite(v).all() for v in weights_of(run).values())
    text = (run.folder / "log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines if "event" in line] == [10]
    state = load_checkpoint(run.folder)
    assert (state["caution"], state["setbacks"]) == (0.5, 0)


def test_a_loss_that_stays_no_number_ends_the_run_with_its_checkpoint(trainer):
    run = trainer(steps=100)
    poison(run, lambda step: step >= 12)
    with pytest.raises(UsageError, match=r"keeps the checkpoint of step 10;.*--set"):
        run.run()
    state = load_checkpoint(run.folder)
    assert state["step"] == 10
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    assert state["caution"] == 0.5**8


def test_a_full_disk_keeps_the_last_checkpoint(trainer):
    resource = pytest.importorskip("resource")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(model):
        if run.step == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, unlimited[1]))
        return {4: 20.0}

    run = trainer(steps=40, validate=fill)
    try:
        with pytest.raises(OutputError, match=r"checkpoint of step 10 is whole"):
            run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert load_checkpoint(run.folder)["step"] == 10
    assert not list(run.folder.glob("*.part"))
    again = trainer(steps=40)
    again.restore(load_checkpoint(run.folder))
    again.run()
    assert again.step == 40


def test_a_checkpoint_that_lacks_something_is_of_another_version(trainer):
    state = trainer().state()
    del state["scales"]
    with pytest.raises(InputError, match=r"lacks scales: another version.*--init"):
        trainer().restore(state)


def test_resumed_settings_are_those_of_the_new_call(trainer):
    run = trainer(weight_decay=0.0)
    run.train_step()
    state = run.state()
    again = trainer(weight_decay=0.1, momentum=0.5)
    again.restore(state)
    group = again.optimizer.param_groups[0]
    assert (group["weight_decay"], group["betas"]) == (0.1, (0.5, 0.999))
    assert len(again.optimizer.state) > 0
    other = trainer(optimizer="sgd")
    other.restore(state)
    other.train_step()
    assert isinstance(other.optimizer, torch.optim.SGD)


def test_more_steps_never_mean_fewer_recursions(trainer):
    phases = [[0.0, 1], [0.5, 3]]
    run = trainer(steps=4, recursions=phases, scales=[4])
    for _ in range(3):
        run.train_step()
    state = run.state()
    before = run.model.heads["4"].fusion.weight.clone()
    assert before[:, 1:].abs().max() > 0
    longer = trainer(steps=400, recursions=phases, scales=[4])
    longer.restore(state)
    longer.train_step()
    assert longer.model.recursion_limit == 3
    after = longer.model.heads["4"].fusion.weight
    assert (after - before).abs().max() < 0.01


@pytest.mark.parametrize("model", ["drcn", "mrnet"])
def test_weights_of_a_shallow_phase_run_as_they_were_trained(trainer, model):
    run = trainer(model, recursions=[[0.0, 1], [0.5, 2]])
    run.run(max_minutes=0.0)
    loaded = read_weights(run.folder / "last.safetensors")
    lr = torch.rand(1, loaded.channels, 6, 6)
    with run.average.applied(run.model), torch.no_grad():
        assert torch.allclose(loaded(lr, 2), run.model(lr, 2), atol=1e-6)


def test_a_stop_between_validations_does_not_move_the_plateau(trainer):
    values = {4: 20.0, 5: 23.0, 8: 21.0, 12: 21.0, 16: 21.0}
    options = {
        "steps": 16, "schedule": "plateau", "decay_every": 8, "decay_factor": 0.5,
        "validate_every": 4, "warmup": 0, "learning_rate": 1e-3,
    }  # fmt: skip

    def make(out):
        run = trainer(out=out, **options)
        run.validate = lambda _: {4: values[run.step]}
        return run

    whole, first = make("whole"), make("parts")
    whole.run()
    while first.step < 4:
        first.train_step()
    first.plateau.watch(4, 20.0)
    first.run(max_minutes=0.0)  # validates at step 5, besides the recipe's steps
    assert first.best == {"mean": 23.0, "x4": 23.0}
    second = make("parts")
    second.restore(load_checkpoint(second.folder))
    second.run()
    assert second.best_step == 5
    assert second.plateau.factor == whole.plateau.factor == 0.5
    for name, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(second)[name]), name


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, TrainingStoppedError), (signal.SIGTERM, TrainingTerminatedError)],
)
def test_a_signal_ends_the_run_without_another_validation(trainer, number, error):
    asked = []

    def count(model):
        asked.append(model)
        return {4: 20.0}

    run = trainer(steps=1000, validate=count)
    take = run.train_step

    def step():
        if run.step == 3:
            os.kill(os.getpid(), number)
        return take()

    run.train_step = step
    with pytest.raises(error, match="srcli train -m mrnet --resume") as caught:
        run.run()
    assert type(caught.value) is error
    assert asked == []
    assert not list(run.folder.glob("*.part"))
    assert load_checkpoint(run.folder)["step"] == run.step


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_other_crops(
    trainer, caplog
):
    state = trainer().state()
    state["sampler"] = torch.zeros(16, dtype=torch.uint8)  # as CUDA's generator has it
    run = trainer()
    run.restore(state)
    assert "another kind of device" in caplog.text
    assert torch.isfinite(run.train_step())


def test_batch_statistics_are_averaged_and_counters_kept(trainer):
    config = {**TINY["drrn"], "norm": "batch"}
    run = trainer("drrn", config=config, steps=3)
    run.run()
    loaded = read_weights(run.folder / "last.safetensors").state_dict()
    for name, value in run.average.values.items():
        assert torch.equal(loaded[name], value), name
        if name.endswith("enter.norm.num_batches_tracked"):
            # Three steps, and every step has crops of all three scales.
            assert (value, value.dtype) == (9, torch.int64)


def test_average_is_the_exponential_moving_average():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = Average(layer, 0.5)
    expected = layer.weight.item()
    for update in range(1, 15):
        with torch.no_grad():
            layer.weight.fill_(float(update))
        average.update()
        decay = min(0.5, update / (update + 10))
        expected = decay * expected + (1 - decay) * update
    assert average.values["weight"].item() == pytest.approx(expected, rel=1e-6)
    with average.applied(layer):
        assert layer.weight.item() == pytest.approx(expected, rel=1e-6)
    assert layer.weight.item() == 14.0


def test_a_rate_that_a_resumed_run_is_given_is_the_rate(trainer):
    run = trainer(schedule="constant", warmup=0, learning_rate=1e-3)
    run.train_step()
    run.caution = 0.5**8
    run.setbacks = 8
    again = trainer(schedule="constant", warmup=0, learning_rate=1e-4)
    again.restore(run.state())
    assert (again.rate, again.setbacks) == (pytest.approx(1e-4), 0)
    same = trainer(schedule="constant", warmup=0, learning_rate=1e-3)
    same.restore(run.state())
    assert (same.rate, same.setbacks) == (pytest.approx(1e-3 / 2**8), 8)


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("srcli.training.loop.time.perf_counter", lambda: self.now)

    def slow(self, run, seconds, *, validating=0.0):
        """Let each step take so long, and each validation."""
        take = run.train_step

        def step():
            self.now += seconds
            return take()

        def validate(_):
            self.now += validating
            return {4: 20.0}

        run.train_step = step
        run.validate = validate if validating else None


def test_a_time_budget_ends_with_the_cosine_at_zero(trainer, monkeypatch):
    clock = Clock(monkeypatch)
    run = trainer(minutes=1.0, steps=1000, warmup=0, learning_rate=1e-3, recursions=[])
    clock.slow(run, 2.0)
    began = clock.now
    clock.now += 6.0  # reading the pictures
    run.run(begun=began)
    assert (run.step, run.finished) == (27, True)
    assert run.rate == pytest.approx(0.0, abs=1e-12)
    assert clock.now - began == pytest.approx(60.0)


def test_a_time_budget_goes_on_where_it_was_stopped(trainer, monkeypatch):
    clock = Clock(monkeypatch)
    values = {"minutes": 1.0, "steps": 1000, "warmup": 0, "learning_rate": 1e-3}
    first = trainer(**values)
    clock.slow(first, 2.0)
    first.run(max_minutes=0.5)
    assert (first.step, first.rate) == (15, pytest.approx(5e-4))
    clock.now += 9999.0  # the machine was off
    second = trainer(**values)
    second.restore(load_checkpoint(second.folder))
    assert second.rate == pytest.approx(5e-4)
    clock.slow(second, 1.0)  # and is faster now
    second.run()
    assert second.step == 15 + 30
    longer = trainer(**{**values, "minutes": 2.0})
    longer.restore(load_checkpoint(longer.folder))
    assert longer.rate == pytest.approx(5e-4)
    clock.slow(longer, 4.0)
    longer.run()
    assert longer.step == 45 + 15


def test_validations_leave_a_time_budget_to_the_steps(trainer, monkeypatch):
    clock = Clock(monkeypatch)
    run = trainer(
        minutes=1.0, steps=1000, warmup=0, validate_every=10, recursions=[]
    )  # every 0.6 s, if they took no time
    clock.slow(run, 0.5, validating=2.0)
    began = clock.now
    run.run()
    # The last one lies within the time too.
    assert clock.now - began == pytest.approx(60.0, abs=2.6)
    assert run.step > 0.85 * 120
    history = (run.folder / "log.jsonl").read_text()
    assert 2 <= history.count("psnr") <= 4


def test_a_time_that_is_over_before_the_first_step_is_said(trainer, monkeypatch):
    clock = Clock(monkeypatch)
    run = trainer(minutes=1.0)
    clock.now += 61.0
    with pytest.raises(UsageError, match="over before the first step"):
        run.run(begun=1000.0)
