"""A folded network is the network, with fewer tensors written on the way."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from srcli.errors import UsageError
from srcli.imaging.resize import imresize_torch
from srcli.inference.device import activation_bytes_per_pixel
from srcli.models import MODELS, variant
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.folded import FoldedModel
from srcli.models.fused import _onednn_fuses

FUSES = _onednn_fuses(torch.empty(0))


def shake(model: nn.Module, scales: str) -> None:
    """Move all parameters and statistics; make some normalisations' scales unusual.

    Args:
        model: Any network.
        scales: "positive"; "negative", in some channels the same everywhere; "mixed",
            with every sign, with zeros and with next to nothing.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
            if ".norm" not in name or not name.endswith("weight"):
                continue
            if scales == "positive":
                parameter.abs_().clamp_(min=0.05)
            elif scales == "negative":
                parameter.abs_().clamp_(min=0.05)[1::3] *= -1
            else:
                parameter *= torch.randn_like(parameter).sign()
                parameter[::5] = torch.tensor([0.0, 1e-7, -1e-30])[len(name) % 3]
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(1.0, 3.0)


def build(config: DRRNConfig, scales: str = "positive", width: int = 8) -> DRRN:
    model = DRRN(dataclasses.replace(config, width=width)).double().eval()
    shake(model, scales)
    return model


def check_folded(model: DRRN) -> None:
    """Equal to the last digits in double precision, and to 1e-5 in single."""
    for dtype, allowed in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        model = model.to(dtype)
        folded = model.folded()
        for scale in model.config.scales:
            lr = torch.rand(2, 1, 5, 6, dtype=dtype)
            given = lr.clone()
            with torch.no_grad():
                expected, result = model(lr, scale), folded(lr, scale)
                bicubic = imresize_torch(lr, scale)
            assert torch.equal(lr, given)
            # Shaken networks may say more than a picture holds, or next to nothing.
            size = max(1.0, float((expected - bicubic).abs().max()))
            assert float((expected - bicubic).abs().max()) > 1e-3
            torch.testing.assert_close(
                result, expected, atol=allowed * size, rtol=0, check_stride=False
            )


@pytest.mark.parametrize("scales", ["positive", "mixed"])
@pytest.mark.parametrize("name", DRRN.variants)
def test_folded_is_unfolded_in_every_variant(name, scales):
    check_folded(build(DRRN.variants[name], scales))


@pytest.mark.parametrize("norm", ["affine", "batch"])
@pytest.mark.parametrize("scales", ["positive", "negative", "mixed"])
@pytest.mark.parametrize("path", ["multi", "chain"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("limit", [1, 2, None])
def test_folded_is_unfolded_below_the_limit(limit, shared, path, scales, norm):
    config = DRRNConfig(
        scales=(2,), blocks=2, units=3, shared=shared, path=path, norm=norm
    )
    model = build(config, scales)
    model.recursion_limit = limit
    check_folded(model)


@pytest.mark.parametrize("path", ["multi", "chain"])
def test_a_far_shift_costs_no_precision(path):
    # A channel that is all but switched off, with a shift as all others have.
    model = build(DRRNConfig(scales=(2,), units=4, path=path))
    with torch.no_grad():
        for norm in model.blocks[0].norms:
            norm.weight[3], norm.bias[3] = 1e-6, 0.8
    check_folded(model)
    with torch.no_grad():
        for norm in model.blocks[0].norms[2:]:
            norm.weight[3], norm.bias[3] = 0.9, -0.1
    check_folded(model)


class Writes(TorchDispatchMode):
    """Counts what writes tensors of that many channels, apart from convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.convolutions = 0
        self.others: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        maps = isinstance(out, torch.Tensor) and out.dim() == 4 and not func.is_view
        maps = maps and "reorder" not in str(func)  # of a weight, once
        if maps and out.shape[0] == 1 and out.shape[1] == self.width:
            if "convolution" in str(func):
                self.convolutions += 1
            else:
                self.others.append(str(func))
        return out


@pytest.mark.skipif(not FUSES, reason="PyTorch is built without oneDNN")
@pytest.mark.parametrize("scales", ["positive", "negative"])
@pytest.mark.parametrize("name", ["drrn", "drrn-batch", "drrn-b3u2", "vdsr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_convolutions_write_feature_maps(dtype, name, scales):
    if dtype == torch.bfloat16 and not _onednn_fuses(torch.empty(0, dtype=dtype)):
        pytest.skip("no bf16 here")
    config = DRRN.variants[name]
    folded = build(config, scales).float().folded()
    with (
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32),
        Writes(width=8) as writes,
    ):
        folded(torch.rand(1, 1, 5, 6), 3)
    assert writes.convolutions == config.depth - 1
    # The first unit of a block reads H^0 without what is negative; others read H^0.
    copies = config.blocks if config.units else 0
    assert writes.others == ["aten.relu.default"] * copies


@pytest.mark.skipif(not FUSES, reason="PyTorch is built without oneDNN")
def test_a_chain_copies_each_state_but_the_last():
    config = DRRNConfig(blocks=2, units=3, path="chain")
    folded = build(config).float().folded()
    with torch.inference_mode(), Writes(width=8) as writes:
        folded(torch.rand(1, 1, 5, 6), 3)
    assert writes.convolutions == config.depth - 1
    assert writes.others == ["aten.relu.default"] * (2 * 3)


@pytest.mark.parametrize("scales", ["positive", "mixed"])
@pytest.mark.parametrize("name", ["drrn", "drrn-b3u2", "drrn-c-b3u3", "drrn-batch"])
def test_three_feature_maps_live_at_once(name, scales):
    width, scale = 32, 2
    model = build(DRRN.variants[name], scales, width)
    need = activation_bytes_per_pixel(model.folded(), scale, torch.float32)
    maps = need / (4 * width * scale**2)
    assert 3 <= maps < 3.1


def test_autocast_keeps_the_picture_in_full_precision():
    model = build(DRRNConfig(scales=(2,), units=3)).float()
    lr = torch.rand(1, 1, 6, 6)
    exact = model.folded()(lr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.folded()(lr)
        with torch.no_grad():
            model.reconstruct.convolution.weight.zero_()
            model.reconstruct.convolution.bias.zero_()
        skip = model.folded()(lr)
    assert rough.dtype == skip.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.05
    torch.testing.assert_close(skip, imresize_torch(lr, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_network_answers_as_its_source(name):
    network, config = variant(name)
    model = network(config).eval()
    folded = model.folded()
    for question in ("arch", "color", "channels", "config", "stage", "combination"):
        assert getattr(folded, question) == getattr(model, question)
    for scale in config.scales:
        assert folded.receptive_radius(scale) == model.receptive_radius(scale)
        assert folded.tile_overlap(scale) == model.tile_overlap(scale)
    with pytest.raises(UsageError, match="not x5"):
        folded.receptive_radius(5)


def test_folding_leaves_the_network_as_it_is():
    model = build(DRRNConfig(units=2, norm="batch")).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.folded()(torch.rand(1, 1, 4, 4, dtype=torch.float64), 2)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_folded_network_is_neither_trained_nor_saved():
    folded = build(DRRNConfig(units=2)).folded()
    assert isinstance(folded, FoldedModel)
    assert not folded.training
    assert not list(folded.parameters())
    with pytest.raises(UsageError, match="cannot be trained: use the network it came"):
        folded.train()
    with pytest.raises(UsageError, match="cannot be saved"):
        folded.state_dict()
    with pytest.raises(UsageError, match="cannot be given another limit"):
        folded.limit_recursions(1)
    folded.eval()
