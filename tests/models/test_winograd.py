"""Winograd's convolutions give what convolutions by their definition give."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.models import winograd
from srcli.models.fused import FusedConv

pytestmark = pytest.mark.skipif(
    not (winograd.is_available() and torch.backends.mkldnn.is_available()),
    reason="the extra fast-cpu is not installed",
)


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype, memory_format=torch.channels_last)


def check(result: Tensor, expected: Tensor) -> None:
    """To a millionth on average, in bfloat16 to a fiftieth (a hundredth is usual)."""
    allowed = 0.02 if result.dtype == torch.bfloat16 else 1e-6
    error = (result.double() - expected).square().mean().sqrt()
    assert float(error) <= allowed * float(expected.square().mean().sqrt())


def by_definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    weight = weight.to(x.dtype).double()
    return F.conv2d(x.double(), weight, bias.double(), padding=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("size", "channels"),
    [((1, 1), (64, 48)), ((3, 70), (32, 64)), ((37, 61), (64, 48)), ((8, 8), (32, 32))],
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
def test_strips_and_threads_change_nothing(tiles, threads, monkeypatch):
    monkeypatch.setattr(winograd, "TILES", tiles)
    x, out = draw(1, 32, 45, 50), draw(1, 32, 45, 50)
    weight, bias = draw(32, 32, 3, 3), torch.randn(32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        winograd.convolve(x, winograd.transform_weight(weight, x.dtype), bias, out)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    check(out, by_definition(x, weight, bias))


def test_layers_use_it_where_it_is_faster_and_not_while_suspended(monkeypatch):
    calls: list[tuple[int, ...]] = []
    convolve = winograd.convolve

    def spy(x: Tensor, *args: object, **then: object) -> Tensor:
        calls.append(tuple(x.shape))
        return convolve(x, *args, **then)

    monkeypatch.setattr(winograd, "convolve", spy)
    weight = torch.randn(64, 64, 3, 3) / 24
    layer = FusedConv(weight, torch.randn(64))
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
    winograd.kernels.cache_clear()
    weight = torch.randn(64, 64, 3, 3) / 24
    layer = FusedConv(weight, torch.randn(64))
    x = draw(1, 64, 64, 64)
    try:
        with torch.inference_mode():
            results = [layer(x), layer(x)]
    finally:
        winograd.kernels.cache_clear()
    for result in results:
        check(result, by_definition(x, layer.weight, layer.bias))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Numba needs NumPy 2.4 or less" in caplog.text
