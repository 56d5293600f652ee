"""Tiles join to what the whole picture gives, whatever memory runs out on the way."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from srcli.errors import DeviceError, UsageError
from srcli.inference import runner as runner_module
from srcli.inference.runner import Runner
from srcli.models import MODELS
from srcli.models.base import ModelConfig, SRModel

CPU_FAILURE = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"

# Shallow and narrow, so that the receptive radius is smaller than a picture.
SMALL = {
    "drcn": {"width": 6, "recursions": 2},
    "drrn": {"width": 6, "units": 2},
    "dsrn": {"width": 8, "steps": 2},
    "mrnet": {"width": 4, "blocks": 1, "recursions": (1, 1, 1)},
    "rrrn": {
        "width": 4, "sub_networks": 1, "iterations": 1, "extract_layers": 1,
        "extract_ratio": 1,
    },
}  # fmt: skip


def build_small(name: str, scale: int) -> SRModel:
    model = MODELS[name]
    network = model(model.config_class(scales=(scale,), **SMALL.get(name, {})))
    with torch.no_grad():  # every parameter, also those that begin at zero
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


class Nearest(SRModel):
    """Repeats pixels; `before` is told of every call and may raise."""

    arch = "nearest"
    color = "rgb"
    config_class = ModelConfig
    variants = {"nearest": ModelConfig()}  # noqa: RUF012
    multi_scale = True

    def __init__(self, before=lambda _: None):
        super().__init__()
        self.config = ModelConfig()
        self.before = before

    def predictions(self, lr, scale=None):
        self.before(lr)
        return (lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3),)

    def receptive_radius(self, scale=None):
        return 0


def fail_above(pixels, error=None):
    """A `before` that runs out of memory for more than so many LR pixels."""

    def before(lr):
        if lr.shape[2] * lr.shape[3] > pixels:
            raise error or torch.OutOfMemoryError("CUDA out of memory.")

    return before


def noise(channels, height, width):
    return torch.rand(channels, height, width)


def whole(model, lr, scale):
    with torch.inference_mode():
        return model(lr[None], scale)[0]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_tiles_with_the_exact_overlap_equal_the_whole(name, scale):
    model = build_small(name, scale)
    radius = model.receptive_radius(scale)
    assert radius < 20, "the test needs tiles that do not see the whole picture"
    lr = noise(model.channels, 2 * radius + 13, radius + 11)
    settings = {"device": "cpu", "precision": "fp32", "tile": 9}
    tiled = Runner(model, scale, overlap="exact", **settings).enlarge(lr)
    expected = whole(model, lr, scale)
    torch.testing.assert_close(tiled, expected, atol=1e-5, rtol=0)
    without = Runner(model, scale, overlap=0, **settings).enlarge(lr)
    assert (without - expected).abs().max() > 1e-4


def test_mrnets_shorter_overlap_differs_by_a_level_at_most_once():
    model = MODELS["mrnet"]
    network = model(model.config_class(width=8)).eval()
    assert network.tile_overlap(2) < network.receptive_radius(2)
    lr = noise(3, 70, 66)
    runner = Runner(network, 2, device="cpu", precision="fp32", tile=24)
    levels = [
        (sr * 255 + 0.5).clamp(0, 255).floor()
        for sr in (runner.enlarge(lr), whole(network, lr, 2))
    ]
    difference = (levels[0] - levels[1]).abs()
    assert difference.max() <= 1
    assert torch.count_nonzero(difference) <= max(1, difference.numel() // 100_000)


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_pictures(name):
    for size in ((1, 1), (1, 9), (2, 3)):
        check_size(name, size)


def check_size(name, size):
    model = build_small(name, 2)
    lr = noise(model.channels, *size)
    options = {"device": "cpu", "precision": "fp32", "tile": 4}
    sr = Runner(model, 2, overlap="exact", **options).enlarge(lr)
    assert sr.shape == (model.channels, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(sr, whole(model, lr, 2), atol=1e-5, rtol=0)


def test_bf16_is_close_to_fp32():
    model = build_small("mrnet", 2)
    lr = noise(3, 20, 20)
    exact, fast = (
        Runner(model, 2, device="cpu", precision=p).enlarge(lr)
        for p in ("fp32", "bf16")
    )
    assert fast.dtype == torch.float32
    assert 0 < (exact - fast).abs().max() < 0.02


def test_a_runner_does_not_change_the_callers_model():
    model = build_small("mrnet", 2).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    Runner(model, 2, device="cpu").enlarge(noise(3, 8, 8))
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fast_networks_result_is_the_networks(precision):
    model = build_small("drrn", 3)
    lr = noise(1, 12, 15)
    expected = whole(model, lr, 3)
    sr = Runner(model, 3, device="cpu", precision=precision).enlarge(lr)
    allowed = 1e-5 if precision == "fp32" else 0.02
    torch.testing.assert_close(sr, expected, atol=allowed, rtol=0)


def test_the_ensemble_is_the_mean_over_flips_and_turns():
    model = build_small("mrnet", 2)
    lr = noise(3, 9, 14)
    options = {"device": "cpu", "precision": "fp32", "tile": 0}
    views = []
    for turns in range(4):
        for flips in ((), (1,)):
            view = torch.rot90(lr.flip(flips), turns, (1, 2))
            sr = whole(model, view, 2)
            views.append(torch.rot90(sr, -turns, (1, 2)).flip(flips))
    expected = torch.stack(views).mean(0)
    result = Runner(model, 2, ensemble=True, **options).enlarge(lr)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert (result - Runner(model, 2, **options).enlarge(lr)).abs().max() > 1e-4


def test_the_ensemble_in_tiles_equals_the_whole():
    model = build_small("mrnet", 2)
    lr = noise(3, 21, 30)
    options = {"device": "cpu", "precision": "fp32", "ensemble": True}
    tiled = Runner(model, 2, tile=8, overlap="exact", **options).enlarge(lr)
    once = Runner(model, 2, tile=0, **options).enlarge(lr)
    torch.testing.assert_close(tiled, once, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(CPU_FAILURE),
        MemoryError(),
    ],
)
def test_running_out_of_memory_shrinks_the_tiles_and_goes_on(error):
    runner = Runner(
        Nearest(fail_above(50 * 50, error)), 3, device="cpu", tile=128, overlap=4
    )
    lr = noise(3, 150, 131)
    torch.testing.assert_close(runner.enlarge(lr), whole(Nearest(), lr, 3))
    assert runner.stats.fallbacks == 1
    assert runner.stats.tiles >= 150 * 131 / 38**2


def test_the_next_picture_begins_with_the_tile_that_worked():
    runner = Runner(Nearest(fail_above(50 * 50)), 2, device="cpu", tile=0, overlap=0)
    runner.enlarge(noise(3, 120, 120))
    assert runner.stats.fallbacks > 0
    runner.enlarge(noise(3, 120, 120))
    assert runner.stats.fallbacks == 0
    assert runner.stats.tiles == math.ceil(120 / 30) ** 2


def test_memory_that_fails_in_writing_is_handled_too():
    writes = np.zeros((100, 90), int)
    failures = [torch.OutOfMemoryError("CUDA out of memory.")]

    def write(box, sr):
        assert sr.shape == (3, 2 * box.height, 2 * box.width)
        if failures and writes.sum() > 4000:
            raise failures.pop()
        writes[box.slices] += 1

    runner = Runner(Nearest(), 2, device="cpu", tile=40, overlap=3)
    runner.run_tiles(100, 90, lambda box: noise(3, box.height, box.width), write)
    assert not failures
    assert (writes == 1).all()


def test_an_accelerator_without_memory_hands_over_to_the_cpu(monkeypatch, caplog):
    # The meta device stands for an accelerator that fails from its third tile on.
    monkeypatch.setattr(runner_module, "choose_device", lambda _: torch.device("meta"))
    monkeypatch.setattr(runner_module, "choose_tile", lambda *_: 64)
    done = []

    def before(lr):
        if lr.device.type == "meta" and len(done) >= 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def write(box, sr):
        done.append((box, sr.device.type))

    runner = Runner(Nearest(before), 2, tile=50, overlap=5)
    with caplog.at_level(logging.INFO, "srcli"):
        runner.run_tiles(150, 150, lambda box: noise(3, box.height, box.width), write)
    count = np.zeros((150, 150), int)
    for box, _ in done:
        count[box.slices] += 1
    assert (count == 1).all()
    assert [place for _, place in done[:2]] == ["meta", "meta"]
    assert {place for _, place in done[2:]} == {"cpu"}
    assert runner.stats.device == "cpu"
    assert runner.stats.tiles == len(done)
    assert caplog.messages == ["out of memory on meta: going on on the CPU"]


def test_a_cpu_without_memory_is_a_device_error():
    runner = Runner(Nearest(fail_above(0)), 2, device="cpu", tile=64)
    with pytest.raises(DeviceError, match="memory does not suffice"):
        runner.enlarge(noise(3, 100, 100))


def test_other_errors_are_not_taken_for_lack_of_memory():
    error = RuntimeError("a defect")
    runner = Runner(Nearest(fail_above(0, error)), 2, device="cpu", tile=64)
    with pytest.raises(RuntimeError, match="a defect"):
        runner.enlarge(noise(3, 100, 100))


class Counter:
    """A `Progress` that adds up what it is told."""

    def __init__(self):
        self.total = self.done = 0

    def start(self, description, total):
        self.description, self.total = description, total

    def advance(self, amount=1):
        self.done += amount

    def note(self, text):
        raise AssertionError(text)


@pytest.mark.parametrize("limit", [40 * 40, 1000])
def test_progress_arrives_at_its_total_even_when_tiles_shrink(limit):
    progress = Counter()
    runner = Runner(Nearest(fail_above(limit)), 2, device="cpu", tile=40, overlap=0)
    runner.run_tiles(
        90, 70, lambda box: noise(3, box.height, box.width), lambda *_: None, progress
    )
    assert progress.total == 6
    assert progress.done == pytest.approx(6)
    assert progress.description == "nearest x2"


@pytest.mark.parametrize(
    "options",
    [{"tile": -1}, {"tile": "big"}, {"overlap": -2}, {"overlap": "some"}, {"scale": 5}],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(UsageError):
        Runner(Nearest(), **{"scale": 2, "device": "cpu", **options})


@pytest.mark.gpu
def test_cuda_in_fp32_equals_the_cpu():
    model = build_small("mrnet", 2)
    lr = noise(3, 60, 50)
    options = {"precision": "fp32", "tile": 16, "overlap": "exact"}
    results = [
        Runner(model, 2, device=d, **options).enlarge(lr) for d in ("cuda", "cpu")
    ]
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
