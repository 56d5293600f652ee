"""Training with Winograd's convolutions has the gradients of their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from srcli.models import variant, winograd
from srcli.models.winograd_gradient import used_by
from srcli.training.gradients import Crops, Gradients
from srcli.training.recipe import Recipe

pytestmark = pytest.mark.skipif(
    not (winograd.is_available() and torch.backends.mkldnn.is_available()),
    reason="the extra fast-cpu is not installed",
)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """Sizes of what Winograd's algorithm has convolved, on both ways."""
    found: list[tuple[int, ...]] = []
    convolve = winograd.convolve

    def spy(x: Tensor, *args: object) -> Tensor:
        found.append(tuple(x.shape))
        return convolve(x, *args)

    monkeypatch.setattr(winograd, "convolve", spy)
    return found


def differ(result: Tensor, expected: Tensor) -> float:
    """The root of the mean squared difference, as a share of what is expected."""
    difference = (result.double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())


def differentiate(x: Tensor, layer: nn.Conv2d, uses: int = 1) -> list[Tensor]:
    """The layer's result, used several times, and the gradients of a loss of it."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    result = x
    for _ in range(uses):
        result = layer(result)
    loss = (result * result.detach().cos()).sum()
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in layer.parameters()]
    return [result.detach(), x.grad, *gradients]


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "bias", "tiles", "threads"),
    [
        (32, 32, (48, 48), True, 10**6, 1),
        (48, 32, (70, 37), False, 150, 3),
        (32, 64, (2, 1030), True, 150, 1),
        (32, 32, (48, 48), True, 1, 3),
    ],
)
def test_gradients_are_those_of_the_definition(
    inputs, outputs, size, bias, tiles, threads, monkeypatch, calls
):
    monkeypatch.setattr(winograd, "TILES", tiles)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    x = torch.randn(3, inputs, *size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with used_by(layer):
            results = differentiate(x, layer)
    finally:
        torch.set_num_threads(before)
    assert len(calls) == 2
    expected = differentiate(x.double(), layer.double())
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == torch.float32
        assert differ(result, right) < 1e-5


def test_the_gradients_of_all_uses_are_added_up(calls):
    layer = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.randn(2, 32, 50, 61)
    with used_by(layer):
        results = differentiate(x, layer, uses=3)
    assert len(calls) == 6
    expected = differentiate(x.double(), layer.double(), uses=3)
    for result, right in zip(results, expected, strict=True):
        assert differ(result, right) < 1e-5


def test_bfloat16_is_what_autocast_chooses_and_rounds_little():
    layer = nn.Conv2d(128, 128, 3, padding=1)
    x = torch.randn(2, 128, 48, 48)
    expected = differentiate(x.double(), layer.double())
    layer.float()
    with used_by(layer), torch.autocast("cpu", torch.bfloat16):
        results = differentiate(x, layer)
    types = [torch.bfloat16] + 3 * [torch.float32]
    assert [result.dtype for result in results] == types
    for result, right in zip(results, expected, strict=True):
        assert differ(result, right) < 0.03


def test_recomputed_layers_have_the_same_gradients():
    layer = nn.Conv2d(32, 32, 3, padding=1)
    x = torch.randn(1, 32, 48, 48)

    def twice(x: Tensor) -> Tensor:
        return layer(F.relu(layer(x)))

    found = []
    for recomputes in (False, True):
        layer.zero_grad()
        with used_by(layer):
            y = checkpoint(twice, x, use_reentrant=False) if recomputes else twice(x)
            y.square().sum().backward()
        found.append([parameter.grad.clone() for parameter in layer.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((1, 32, 48, 48), nn.Conv2d(32, 32, 3, stride=2, padding=1)),
        ((1, 32, 48, 48), nn.Conv2d(32, 32, 3)),
        ((1, 32, 48, 48), nn.Conv2d(32, 32, 3, padding=1, dilation=1, groups=2)),
        ((1, 32, 48, 48), nn.Conv2d(32, 32, 3, padding=2, dilation=2)),
        ((1, 32, 48, 48), nn.Conv2d(32, 32, 5, padding=2)),
        ((1, 1, 48, 48), nn.Conv2d(1, 64, 3, padding=1)),
        ((1, 32, 8, 8), nn.Conv2d(32, 32, 3, padding=1)),
    ],
)
def test_other_convolutions_are_left_to_torch(shape, layer, calls):
    x = torch.randn(shape)
    with used_by(layer):
        results = differentiate(x, layer)
    assert calls == []
    for result, right in zip(results, differentiate(x, layer), strict=True):
        torch.testing.assert_close(result, right, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["drcn-d1", "drrn-b1u3", "dsrn-t2"])
def test_a_training_step_of_a_network(name, calls):
    model_class, config = variant(name, 2)
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():  # DRCN's identity has ReLUs of just zero
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    gradients = Gradients(model, Recipe(model=name, scales=(2,)))
    crops = [  # each goes back by itself
        Crops(
            2, torch.rand(1, 1, side, side), torch.rand(1, 1, 2 * side, 2 * side), 0.5
        )
        for side in (24, 26)
    ]

    def step() -> Tensor:
        gradients.compute(crops, 0.5)
        found = (p.grad for p in model.parameters() if p.grad is not None)
        return torch.cat([gradient.flatten() for gradient in found])

    fast = step()
    assert calls
    with winograd.suspended():
        assert differ(fast, step()) < 1e-4
