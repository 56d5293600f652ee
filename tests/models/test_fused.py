"""Fused convolutions give what convolution, sum and ReLU give one after the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcli.models import fused
from srcli.models.fused import accumulate_, align_channels, convolve, convolve_add

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def draw(*shape: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    return align_channels(torch.randn(shape).to(device, dtype))


def check(result: Tensor, expected: Tensor) -> None:
    """Against a sum in float64: one rounding of the result, and of nothing before."""
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3}
    allowed = tolerance[result.dtype]
    torch.testing.assert_close(result.double(), expected, atol=allowed, rtol=allowed)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 14)])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 16), (16, 16), (16, 1), (5, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_fused_is_one_after_the_other(dtype, inputs, outputs, size):
    x = draw(2, inputs, *size, dtype=dtype)
    other = draw(2, outputs, *size, dtype=dtype)
    weight = draw(outputs, inputs, 3, 3, dtype=dtype)
    bias, gain = torch.randn(outputs).to(dtype), torch.randn(outputs, 1, 1).to(dtype)
    given = [each.clone() for each in (x, other)]
    plain = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)

    check(convolve(x, weight, bias), plain)
    check(convolve(x, weight, bias, relu=True), plain.relu())
    check(convolve_add(x, weight, bias, other), (plain + other.double()).relu())
    # In half precision the product may be rounded before it is added.
    product = (other * gain).double()
    if dtype != torch.bfloat16 or HAS_ONEDNN:
        result = convolve_add(x, weight, bias, other, gain=gain)
        check(result, (plain + product).relu())
    assert torch.equal(x, given[0])
    assert torch.equal(other, given[1])
    total = accumulate_(other, x, weight, bias)
    check(total, plain + given[1].double())
    assert total.data_ptr() == other.data_ptr()
    assert torch.equal(total, other)


@pytest.mark.skipif(not HAS_ONEDNN, reason="PyTorch is built without oneDNN")
def test_without_onednn_the_results_are_the_same(monkeypatch):
    x, other = (draw(1, 8, 6, 5, dtype=torch.float32) for _ in range(2))
    weight, bias = draw(8, 8, 3, 3, dtype=torch.float32), torch.randn(8)

    def run() -> list[Tensor]:
        with torch.inference_mode():
            return [
                convolve(x, weight, bias, relu=True),
                convolve_add(x, weight, bias, other),
                convolve_add(x, weight, bias, other, gain=bias.view(-1, 1, 1)),
                accumulate_(other.clone(), x, weight, bias),
            ]

    assert fused._onednn_fuses(x)
    joined = run()
    monkeypatch.setattr(fused, "_onednn_fuses", lambda _: False)
    torch.testing.assert_close(joined, run(), atol=1e-5, rtol=1e-5)


def test_a_single_channel_is_laid_out_as_many_are():
    picture = torch.rand(2, 1, 4, 5)
    aligned = align_channels(picture)
    assert torch.equal(aligned, picture)
    assert aligned.stride() == (20, 1, 5, 1)
    assert align_channels(picture.mT).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_cuda_equals_the_cpu(dtype):
    x, other = (draw(2, 64, 30, 41, dtype=dtype, device="cuda") for _ in range(2))
    weight = draw(64, 64, 3, 3, dtype=dtype, device="cuda") / 16
    bias = torch.randn(64).to("cuda", dtype)
    plain = F.conv2d(*(each.double() for each in (x, weight, bias)), padding=1)
    total = other.clone(memory_format=torch.preserve_format)
    with torch.inference_mode():
        results = [
            convolve(x, weight, bias, relu=True),
            convolve_add(x, weight, bias, other),
            accumulate_(total, x, weight, bias),
        ]
    expected = [plain.relu(), (plain + other).relu(), plain + other]
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result.double(), wanted, atol=0.02, rtol=0.02)


def test_memory_that_ran_out_is_not_kept_as_an_answer(monkeypatch):
    def run_out(*_):
        raise torch.OutOfMemoryError

    def refuse(*_):
        raise RuntimeError("not supported")

    fused._try_cudnn.cache_clear()
    question = (torch.device("cpu"), torch.bfloat16, 8, 8)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", run_out)
    with pytest.raises(torch.OutOfMemoryError):
        fused._try_cudnn(*question)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", refuse)
    assert fused._try_cudnn(*question) is False
    fused._try_cudnn.cache_clear()


def test_cudnn_that_is_switched_off_is_not_asked(monkeypatch):
    monkeypatch.setattr(fused, "_try_cudnn", lambda *_: True)
    monkeypatch.setattr(torch.version, "hip", None)
    x = SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16)
    weight = torch.zeros(8, 8, 3, 3, dtype=torch.float16)
    assert fused._cudnn_fuses(x, weight)
    with torch.backends.cudnn.flags(enabled=False):
        assert not fused._cudnn_fuses(x, weight)
