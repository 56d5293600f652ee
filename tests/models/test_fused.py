"""Fused convolutions give what convolution, sum and ReLU give one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.models import fused
from srcli.models.fused import FusedConv, align_channels

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def draw(*shape: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    return align_channels(torch.randn(shape).to(device, dtype))


def check(result: Tensor, expected: Tensor, allowed: float | None = None) -> None:
    """Against a sum in float64: one rounding of the result, and of nothing before."""
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3}
    allowed = allowed or tolerance[result.dtype]
    torch.testing.assert_close(result.double(), expected, atol=allowed, rtol=allowed)
    assert result.is_contiguous(memory_format=torch.channels_last)


def build(outputs: int, inputs: int, dtype: torch.dtype, kernel: int = 3) -> FusedConv:
    weight = (torch.randn(outputs, inputs, kernel, kernel) / kernel).to(dtype)
    return FusedConv(weight, torch.randn(outputs).to(dtype))


def convolve_in_double(layer: FusedConv, x: Tensor) -> Tensor:
    weight, bias = layer.weight.double(), layer.bias.double()
    return F.conv2d(x.double(), weight, bias, padding=weight.shape[-1] // 2)


@pytest.mark.parametrize(
    ("size", "kernel", "inputs", "outputs"),
    [
        ((9, 14), 7, 1, 16),
        ((2, 3), 3, 16, 16),
        ((9, 14), 1, 16, 16),
        ((9, 14), 3, 16, 1),
        ((1, 1), 7, 5, 7),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_fused_is_one_after_the_other(dtype, inputs, outputs, kernel, size):
    x = draw(2, inputs, *size, dtype=dtype)
    other = draw(2, outputs, *size, dtype=dtype)
    layer = build(outputs, inputs, dtype, kernel)
    given = [each.clone() for each in (x, other)]
    plain = convolve_in_double(layer, x)
    leaky = F.leaky_relu

    check(layer(x), plain)
    check(layer(x, slope=0.0), plain.relu())
    check(layer(x, slope=0.2), leaky(plain, 0.2))
    check(layer(x, add=other), plain + other.double())
    check(layer(x, add=other, slope=0.0), (plain + other.double()).relu())
    assert torch.equal(x, given[0])
    assert torch.equal(other, given[1])
    total = layer(x, other, into="add")
    check(total, plain + given[1].double())
    assert total.data_ptr() == other.data_ptr()
    assert torch.equal(total, other)


@pytest.mark.parametrize(
    ("height", "kernel", "strip"),
    [(1, 7, 1), (7, 1, 200), (17, 3, 200), (17, 7, 1), (7, 3, 1 << 23)],
)
@torch.inference_mode()
def test_the_result_may_be_written_over_the_input(height, kernel, strip, monkeypatch):
    monkeypatch.setattr(fused, "_STRIP", strip)
    layer = build(8, 8, torch.float32, kernel)
    x, other = (draw(2, 8, height, 5, dtype=torch.float32) for _ in range(2))
    plain = convolve_in_double(layer, x)
    over = x.clone(memory_format=torch.preserve_format)
    check(layer(over, slope=0.0, into="x"), plain.relu())
    over = x.clone(memory_format=torch.preserve_format)
    check(layer(over, other, into="x"), plain + other.double())


@pytest.mark.parametrize(("outputs", "kernel"), [(1, 3), (3, 7), (48, 3)])
@torch.inference_mode()
def test_what_writes_a_picture_computes_in_full_precision(outputs, kernel, monkeypatch):
    monkeypatch.setattr(fused, "_STRIP", 200)
    weight = torch.randn(outputs, 8, kernel, kernel) / kernel
    layer = FusedConv(weight, torch.randn(outputs), writes=True)
    x = draw(2, 8, 30, 5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(x, slope=0.2)
    assert made.dtype == torch.float32
    expected = F.leaky_relu(convolve_in_double(layer, x), 0.2)
    torch.testing.assert_close(made.double(), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_what_reads_a_picture_computes_in_full_precision():
    layer = FusedConv(torch.randn(8, 3, 3, 3), torch.randn(8), reads=True)
    picture = torch.rand(2, 3, 9, 5)
    with torch.autocast("cpu", torch.bfloat16):
        made = layer(picture)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, layer(picture).bfloat16())


@torch.inference_mode()
def test_a_layer_that_is_moved_or_copied_takes_its_weight_along():
    layer = build(8, 8, torch.float32)
    x = draw(1, 8, 6, 5, dtype=torch.float32)
    before = layer(x)
    twin = copy.deepcopy(layer)
    twin.weight.mul_(2)
    twin.bias.mul_(2)
    check(twin(x), 2 * before.double())
    double = twin.double()
    check(double(x.double()), 2 * before.double(), allowed=1e-5)
    assert torch.equal(layer(x), before)


@pytest.mark.skipif(not HAS_ONEDNN, reason="PyTorch is built without oneDNN")
def test_without_onednn_the_results_are_the_same(monkeypatch):
    x, other = (draw(1, 8, 6, 5, dtype=torch.float32) for _ in range(2))
    layer = build(8, 8, torch.float32)

    def run() -> list[Tensor]:
        fresh = copy.deepcopy(layer)
        with torch.inference_mode():
            return [
                fresh(x, slope=0.0),
                fresh(x, add=other, slope=0.0),
                fresh(x, add=other, slope=0.3),
                fresh(x, other.clone(), into="add"),
            ]

    assert fused._onednn_fuses(x)
    joined = run()
    monkeypatch.setattr(fused, "_onednn_fuses", lambda _: False)
    torch.testing.assert_close(joined, run(), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_cuda_equals_the_cpu(dtype):
    x, other = (draw(2, 64, 30, 41, dtype=dtype, device="cuda") for _ in range(2))
    layer = build(64, 64, dtype).to("cuda")
    layer.weight.div_(16)
    plain = convolve_in_double(layer, x)
    total = other.clone(memory_format=torch.preserve_format)
    with torch.inference_mode():
        results = [
            layer(x, slope=0.0),
            layer(x, add=other, slope=0.0),
            layer(x, total, into="add"),
        ]
    expected = [plain.relu(), (plain + other).relu(), plain + other]
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), wanted, atol=0.02, rtol=0.02)
