"""Tiles join to what the whole picture gives, whatever memory runs out on the way."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from srcli.errors import DeviceError
from srcli.inference import runner as runner_module
from srcli.inference.runner import Runner
from srcli.models import MODELS
from srcli.models.base import ModelConfig, SRModel

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
EXACT = {"device": "cpu", "precision": "fp32"}


def build_small(name: str, scale: int = 2) -> SRModel:
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


def read_noise(box):
    return noise(3, *box.size)


def whole(model, lr, scale=2):
    with torch.inference_mode():
        return model(lr[None], scale)[0]


@pytest.mark.parametrize(
    ("name", "scale"), [(n, 2 + i % 3) for i, n in enumerate(MODELS)]
)
def test_tiles_with_the_exact_overlap_equal_the_whole(name, scale):
    model = build_small(name, scale)
    radius = model.receptive_radius(scale)
    assert radius < 20, "the test needs tiles that do not see the whole picture"
    for size in ((2 * radius + 13, radius + 11), (1, 9)):
        lr = noise(model.channels, *size)
        runner = Runner(model, scale, overlap="exact", tile=9, **EXACT)
        expected = whole(model, lr, scale)
        torch.testing.assert_close(runner.enlarge(lr), expected, atol=1e-5, rtol=0)
        if size[0] > 1:
            without = Runner(model, scale, overlap=0, tile=9, **EXACT).enlarge(lr)
            assert (without - expected).abs().max() > 1e-4


def test_mrnets_shorter_overlap_differs_by_a_level_at_most_once():
    model = MODELS["mrnet"]
    network = model(model.config_class(width=8)).eval()
    assert network.tile_overlap(2) < network.receptive_radius(2)
    lr = noise(3, 54, 50)
    levels = [
        (sr * 255 + 0.5).clamp(0, 255).floor()
        for sr in (Runner(network, 2, tile=27, **EXACT).enlarge(lr), whole(network, lr))
    ]
    difference = (levels[0] - levels[1]).abs()
    assert difference.max() <= 1
    assert torch.count_nonzero(difference) <= 1


def test_bf16_is_close_to_fp32_and_the_callers_model_stays():
    model = build_small("mrnet").train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    lr = noise(model.channels, 12, 15)
    fast = Runner(model, 2, device="cpu", precision="bf16").enlarge(lr)
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])
    assert fast.dtype == torch.float32
    assert 0 < (fast - whole(model.eval(), lr)).abs().max() < 0.02


def test_the_ensemble_is_the_mean_over_flips_and_turns():
    model = build_small("mrnet")
    lr = noise(3, 9, 14)
    views = []
    for turns in range(4):
        for flips in ((), (1,)):
            view = torch.rot90(lr.flip(flips), turns, (1, 2))
            views.append(torch.rot90(whole(model, view), -turns, (1, 2)).flip(flips))
    expected = torch.stack(views).mean(0)
    for tile in (0, 8):
        runner = Runner(model, 2, tile=tile, overlap="exact", ensemble=True, **EXACT)
        torch.testing.assert_close(runner.enlarge(lr), expected, atol=1e-5, rtol=0)
    assert (expected - whole(model, lr)).abs().max() > 1e-4


# Memory


class Counter:
    """A `Progress` that adds up what it is told."""

    done = 0

    def start(self, description, total):
        self.description, self.total = description, total

    def advance(self, amount=1):
        self.done += amount


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_running_out_of_memory_shrinks_the_tiles_and_goes_on(error):
    model = Nearest(fail_above(50 * 50, error))
    runner = Runner(model, 3, device="cpu", tile=128, overlap=4)
    lr = noise(3, 150, 131)
    torch.testing.assert_close(runner.enlarge(lr), whole(Nearest(), lr, 3))
    assert runner.stats.fallbacks == 1
    assert runner.stats.tiles >= 150 * 131 / 38**2
    # The next picture begins with what worked.
    progress = Counter()
    runner.run_tiles(100, 90, read_noise, lambda *_: None, progress)
    assert runner.stats.fallbacks == 0
    assert progress.done == pytest.approx(progress.total)
    assert progress.description == "nearest x3"


def test_memory_that_fails_in_writing_is_handled_too():
    writes = np.zeros((100, 90), int)
    failures = [torch.OutOfMemoryError("CUDA out of memory.")]

    def write(box, sr):
        assert sr.shape == (3, 2 * box.height, 2 * box.width)
        if failures and writes.sum() > 4000:
            raise failures.pop()
        writes[box.slices] += 1

    runner = Runner(Nearest(), 2, device="cpu", tile=40, overlap=3)
    runner.run_tiles(100, 90, read_noise, write)
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

    runner = Runner(Nearest(before), 2, tile=50, overlap=5)
    with caplog.at_level(logging.INFO, "srcli"):
        runner.run_tiles(
            150, 150, read_noise, lambda b, sr: done.append((b, sr.device))
        )
    count = np.zeros((150, 150), int)
    for box, _ in done:
        count[box.slices] += 1
    assert (count == 1).all()
    places = [device.type for _, device in done]
    assert (set(places[:2]), set(places[2:])) == ({"meta"}, {"cpu"})
    assert runner.stats.device == "cpu"
    assert runner.stats.tiles == len(done)
    assert caplog.messages == ["out of memory on meta: going on on the CPU"]


def test_what_no_smaller_tile_helps_against_is_raised():
    lr = noise(3, 100, 100)
    with pytest.raises(DeviceError, match="memory does not suffice"):
        Runner(Nearest(fail_above(0)), 2, device="cpu", tile=64).enlarge(lr)
    defect = fail_above(0, RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        Runner(Nearest(defect), 2, device="cpu", tile=64).enlarge(lr)


@pytest.mark.gpu
def test_cuda_in_fp32_equals_the_cpu():
    model = build_small("mrnet")
    lr = noise(3, 60, 50)
    options = {"precision": "fp32", "tile": 16, "overlap": "exact"}
    results = [
        Runner(model, 2, device=d, **options).enlarge(lr) for d in ("cuda", "cpu")
    ]
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
