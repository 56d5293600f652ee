"""DRCN's folded network is the network, in two feature maps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srcli.imaging.resize import imresize_torch
from srcli.inference.device import activation_bytes_per_pixel
from srcli.models import folded
from srcli.models.drcn import DRCN, DRCNConfig
from srcli.models.drcn_folded import FoldedDRCN

FOLDING = [name for name, each in DRCN.variants.items() if each.sharing == "all"]


def build(config: DRCNConfig) -> DRCN:
    """A narrow float64 network whose weights of equation 10 are not all equal."""
    model = DRCN(dataclasses.replace(config, width=8)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(shape[0], 1, *shape[1:], dtype=dtype)


@pytest.fixture(params=[1, 8 * 6 * 2 * 3, 1 << 21], ids=["rows", "strips", "whole"])
def strip(request, monkeypatch):
    """Values of a strip: one row of it, three rows of the smallest picture, all."""
    monkeypatch.setattr(folded, "_STRIP", request.param)


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("name", FOLDING)
def test_folded_is_unfolded_in_every_variant(name):
    config = DRCN.variants[name]
    double = build(config)
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        model = double.to(dtype)
        joined = model.folded()
        assert isinstance(joined, FoldedDRCN)
        for scale in config.scales:
            lr = draw(1, 5, 6, dtype=dtype)
            given = lr.clone()
            with torch.no_grad():
                expected, result = model(lr, scale), joined(lr, scale)
            assert torch.equal(lr, given)
            assert (expected - imresize_torch(lr, scale)).abs().max() > 1e-3
            size = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(
                result, expected, atol=allowed * size, rtol=0, check_stride=False
            )


@pytest.mark.usefixtures("strip")
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 4, 3), (1, 9, 1)])
@pytest.mark.parametrize("limit", [1, 3, None])
@pytest.mark.parametrize("supervision", [True, False])
def test_folded_is_unfolded_below_the_limit(supervision, limit, shape):
    config = DRCNConfig(scales=(3,), recursions=6, supervision=supervision)
    double = build(config)
    double.recursion_limit = limit
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        model, lr = double.to(dtype), draw(*shape, dtype=dtype)
        with torch.no_grad():
            expected, result = model(lr), model.folded()(lr)
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            result, expected, atol=allowed * size, rtol=0, check_stride=False
        )


@pytest.mark.usefixtures("strip")
def test_strips_change_nothing_in_half_precision(monkeypatch):
    model, lr = build(DRCNConfig(recursions=4)).float(), draw(1, 9, 7).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        strips = model.folded()(lr)
        monkeypatch.setattr(folded, "_STRIP", 1 << 21)
        whole = model.folded()(lr)
    torch.testing.assert_close(strips, whole, atol=0.01, rtol=0)


@pytest.mark.parametrize("sharing", ["recursion", "none"])
def test_networks_with_several_reconstructions_stay_as_they_are(sharing):
    model = build(DRCNConfig(recursions=3, sharing=sharing))
    assert model.folded() is model


class Convolutions(TorchDispatchMode):
    """Counts convolutions by the channels that they write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if "convolution" in str(func):
            self.written.append(out.shape[1])
        return out


def test_one_last_convolution_and_nothing_for_recursions_without_weight():
    model = build(DRCNConfig())
    with torch.no_grad():
        model.weights[:10] = 0.0
    joined = model.folded()
    with Convolutions() as count:
        joined(draw(1, 5, 6))
    assert count.written.count(1) == 1
    # Two of the embedding, sixteen recursions, six of them reconstructed.
    assert count.written.count(8) == 2 + 16 + 6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_two_feature_maps_live_at_once(scale):
    config = DRCNConfig(scales=(scale,), recursions=3)
    need = activation_bytes_per_pixel(build(config).folded(), scale, torch.float32)
    assert 2 <= need / (4 * 8 * scale**2) < 2.4


@pytest.mark.parametrize(
    ("dtype", "gigabytes"), [(torch.float32, 2.1), (torch.bfloat16, 1.1)]
)
def test_a_720p_picture_needs_two_maps_of_memory(dtype, gigabytes):
    model = DRCN(DRCNConfig(scales=(4,), recursions=2)).eval()
    need = activation_bytes_per_pixel(model.folded(), 4, dtype)
    assert need * 320 * 180 < gigabytes * 1e9


def test_autocast_keeps_the_picture_in_full_precision():
    model = build(DRCNConfig(recursions=3)).float()
    lr = draw(1, 6, 6, dtype=torch.float32)
    exact = model.folded()(lr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.folded()(lr)
        with torch.no_grad():
            model.reconstruct[0].output.weight.zero_()
            model.reconstruct[0].output.bias.zero_()
            model.weights.copy_(torch.tensor([0.5, 0.25, 0.25]))
        skip = model.folded()(lr)
    assert rough.dtype == skip.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05
    torch.testing.assert_close(skip, imresize_torch(lr, 2), atol=1e-6, rtol=0)
