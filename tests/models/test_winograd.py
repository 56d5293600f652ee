"""Winograd's convolutions, and their gradients, are those of the definition."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from srcli.models import variant, winograd
from srcli.models.fused import FusedConv
from srcli.models.winograd import used_by
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

    def spy(x: Tensor, *args: object, **then: object) -> Tensor:
        found.append(tuple(x.shape))
        return convolve(x, *args, **then)

    monkeypatch.setattr(winograd, "convolve", spy)
    return found


@pytest.fixture
def in_threads():
    """A function that sets the number of threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype, memory_format=torch.channels_last)


def differ(result: Tensor, expected: Tensor) -> float:
    """The root of the mean squared difference, as a share of what is expected."""
    difference = (result.double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())


def check(result: Tensor, expected: Tensor) -> None:
    """To a millionth on average, in bfloat16 to a fiftieth (a hundredth is usual)."""
    allowed = 0.02 if result.dtype == torch.bfloat16 else 1e-6
    assert differ(result, expected) <= allowed


def by_definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    weight = weight.to(x.dtype).double()
    return F.conv2d(x.double(), weight, bias.double(), padding=1)


@pytest.mark.parametrize(
    ("size", "channels", "dtype"),
    [
        ((1, 1), (64, 48), torch.float32),
        ((3, 70), (32, 64), torch.bfloat16),
        ((37, 61), (64, 48), torch.float32),
        ((37, 61), (64, 48), torch.bfloat16),
        ((8, 8), (32, 32), torch.float32),
    ],
)
@torch.inference_mode()
def test_a_convolution_and_what_follows(size, channels, dtype):
    inputs, outputs = channels
    x, other = draw(2, inputs, *size, dtype=dtype), draw(2, outputs, *size, dtype=dtype)
    weight, bias = draw(outputs, inputs, 3, 3) / inputs**0.5, torch.randn(outputs)
    kernel = winograd.transform_weight(weight, dtype)
    plain = by_definition(x, weight, bias)

    def run(out: Tensor | None = None, **then: object) -> Tensor:
        out = torch.empty_like(other) if out is None else out
        return winograd.convolve(x, kernel, bias, out, **then)

    check(run(), plain)
    check(run(slope=0.0), plain.relu())
    summed = plain + other.double()
    check(run(slope=0.25, add=other), F.leaky_relu(summed, 0.25))
    total = other.clone(memory_format=torch.preserve_format)
    check(run(total, slope=1.5, add=total), F.leaky_relu(summed, 1.5))
    total = other.clone(memory_format=torch.preserve_format)
    check(run(total, slope=0.0, share=0.3), other.double() + 0.3 * plain.relu())
    if size[0] > 2:
        check(run(other[:, :, 1:-1], above=0), plain[:, :, 1:-1])
        check(run(other[:, :, :-1]), plain[:, :, :-1])


@pytest.mark.parametrize(("threads", "tiles"), [(1, 40), (2, 1), (3, 10**6)])
@torch.inference_mode()
def test_strips_and_threads_change_nothing(tiles, threads, monkeypatch, in_threads):
    monkeypatch.setattr(winograd, "_TILES", tiles)
    x, out = draw(1, 32, 45, 50), draw(1, 32, 45, 50)
    weight, bias = draw(32, 32, 3, 3), torch.randn(32)
    in_threads(threads)
    winograd.convolve(x, winograd.transform_weight(weight, x.dtype), bias, out)
    assert torch.get_num_threads() == threads
    check(out, by_definition(x, weight, bias))


def test_layers_use_it_where_it_is_faster_and_not_while_suspended(calls):
    layer = FusedConv(torch.randn(64, 64, 3, 3) / 24, torch.randn(64))
    large, small = draw(1, 64, 64, 64), draw(1, 64, 8, 8)
    with torch.inference_mode():
        fast = layer(large, add=large, slope=0.0)
        assert calls == [(1, 64, 64, 64)]
        with winograd.suspended():
            slow = layer(large, add=large, slope=0.0)
        layer(small)
        layer.double()(large.double())
    assert len(calls) == 1
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_several_callers_at_once_do_not_disturb_each_other():
    x, weight, bias = draw(1, 32, 64, 64), draw(32, 32, 3, 3), torch.randn(32)
    kernel = winograd.transform_weight(weight, x.dtype)
    results: list[Tensor] = []

    def work() -> None:
        with torch.inference_mode():
            for _ in range(2):
                results.append(winograd.convolve(x, kernel, bias, torch.empty_like(x)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    for result in results:
        check(result, by_definition(x, weight, bias))


def test_a_numba_that_cannot_be_used_is_said_once_and_done_without(monkeypatch, caplog):
    def refuse(name: str) -> None:
        raise ImportError("Numba needs NumPy 2.4 or less")

    monkeypatch.setattr(winograd.importlib, "import_module", refuse)
    winograd._kernels.cache_clear()
    layer = FusedConv(torch.randn(64, 64, 3, 3) / 24, torch.randn(64))
    x = draw(1, 64, 64, 64)
    try:
        with torch.inference_mode():
            results = [layer(x), layer(x)]
    finally:
        winograd._kernels.cache_clear()
    for result in results:
        check(result, by_definition(x, layer.weight, layer.bias))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Numba needs NumPy 2.4 or less" in caplog.text


# Gradients


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
    ("inputs", "outputs", "size", "bias", "tiles", "threads", "uses"),
    [
        (32, 32, (48, 48), True, 10**6, 1, 3),  # gradients of all uses are added up
        (48, 32, (70, 37), False, 150, 3, 1),
        (32, 64, (2, 1030), True, 150, 1, 1),
        (32, 32, (48, 48), True, 1, 3, 1),
    ],
)
def test_gradients_are_those_of_the_definition(
    inputs, outputs, size, bias, tiles, threads, uses, monkeypatch, calls, in_threads
):
    monkeypatch.setattr(winograd, "_TILES", tiles)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
    x = torch.randn(3, inputs, *size)
    in_threads(threads)
    with used_by(layer):
        results = differentiate(x, layer, uses)
    assert len(calls) == 2 * uses
    expected = differentiate(x.double(), layer.double(), uses)
    for result, right in zip(results, expected, strict=True):
        assert result.dtype == torch.float32
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
        ((1, 32, 48, 48), nn.Conv2d(32, 32, 3, padding=1, groups=2)),
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


@pytest.mark.parametrize("name", ["drcn-d1", "dsrn-t2"])
def test_a_training_step_of_a_network(name, calls):
    model_class, config = variant(name, 2)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():  # DRCN's identity has ReLUs of just zero
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    gradients = Gradients(model, Recipe(model=name, scales=(2,)))
    sides = ((24, 48), (26, 52))  # each goes back by itself
    crops = [
        Crops(2, torch.rand(1, 1, lr, lr), torch.rand(1, 1, hr, hr), 0.5)
        for lr, hr in sides
    ]

    def step() -> Tensor:
        gradients.compute(crops, 0.5)
        found = (p.grad for p in model.parameters() if p.grad is not None)
        return torch.cat([gradient.flatten() for gradient in found])

    fast = step()
    assert calls
    with winograd.suspended():
        assert differ(fast, step()) < 1e-4
