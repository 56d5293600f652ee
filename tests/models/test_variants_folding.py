"""The folded MRNet, DSRN and RRRN are the networks, in all their papers' variants."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from srcli.models.base import SRModel
from srcli.models.dsrn import DSRN
from srcli.models.folded import FoldedModel
from srcli.models.mrnet import MRNet
from srcli.models.rrrn import RRRN

# What is written as the network itself is: its own `forward` is kept.
KEPT = {"mrnet-conv-fusion", "mrnet-shuffle3x3", "dsrn-single-state"}
NARROW = {
    "mrnet": {"width": 8, "blocks": 2},
    "dsrn": {"width": 8},
    "rrrn": {"width": 8},
}
CASES = [
    (network, name) for network in (MRNet, DSRN, RRRN) for name in network.variants
]


def build(network: type[SRModel], name: str) -> SRModel:
    """A narrow float64 network whose weights all have moved from where they began."""
    config = dataclasses.replace(network.variants[name], **NARROW[network.arch])
    model = network(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def check(model: SRModel, folded: nn.Module, dtype: torch.dtype) -> None:
    allowed = {torch.float64: 1e-10, torch.float32: 1e-4}[dtype]
    for scale in model.config.scales:
        lr = torch.rand(2, model.channels, 7, 6, dtype=dtype)
        given = lr.clone()
        with torch.no_grad():
            expected, result = model(lr, scale), folded(lr, scale)
        assert torch.equal(lr, given)
        assert expected.std() > 1e-3
        size = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(
            result, expected, atol=allowed * size, rtol=0, check_stride=False
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("network", "name"), CASES)
def test_folded_is_unfolded_in_every_variant(network, name, dtype):
    model = build(network, name).to(dtype)
    folded = model.folded()
    if name in KEPT:
        assert folded is model
        return
    assert isinstance(folded, FoldedModel)
    check(model, folded, dtype)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize(
    ("network", "name"),
    [(MRNet, "mrnet"), (DSRN, "dsrn"), (DSRN, "dsrn-untied"), (RRRN, "rrrn")],
)
def test_folded_is_unfolded_below_the_limit(network, name, limit):
    model = build(network, name)
    model.recursion_limit = limit
    check(model, model.folded(), torch.float64)


@pytest.mark.parametrize("network", [MRNet, DSRN, RRRN])
def test_strips_change_nothing(network, monkeypatch):
    model = build(network, network.arch)
    monkeypatch.setattr("srcli.models.folded._STRIP", 600)
    check(model, model.folded(), torch.float64)


@pytest.mark.parametrize("network", [MRNet, DSRN, RRRN])
def test_autocast_stays_near_the_network(network):
    model = build(network, network.arch).float()
    scale = model.config.scales[-1]
    lr = torch.rand(1, model.channels, 9, 8)
    with torch.no_grad():
        exact = model(lr, scale)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.folded()(lr, scale)
    assert rough.dtype == torch.float32
    size = max(1.0, float(exact.abs().max()))
    assert 0 < float((rough - exact).abs().max()) < 0.03 * size
