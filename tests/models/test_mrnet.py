"""MRNet against the counts of its paper and a transcription of its equations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from srcli.models.counting import count_macs, count_parameters
from srcli.models.mrnet import MRNet, MRNetConfig


@pytest.mark.parametrize(
    ("scales", "parameters"),
    [((2,), 878_339), ((3,), 881_091), ((4,), 886_275), ((2, 3, 4), 1_061_705)],
)
def test_parameters_of_table_3(scales, parameters):
    assert count_parameters(MRNet(MRNetConfig(scales=scales))) == parameters


@pytest.mark.parametrize(
    ("name", "thousands"),
    [
        ("mrnet-baseline", 862),
        ("mrnet-residual", 862),
        ("mrnet-input-encoder", 870),
        ("mrnet-memory-updater", 870),
    ],
)
def test_parameters_of_table_1(name, thousands):
    assert round(count_parameters(MRNet(MRNet.variants[name])) / 1000) == thousands


@pytest.mark.parametrize(
    ("options", "thousands"),
    [
        ({"fusion": "conv"}, (1033, 1041, 1049, 1058, 1066)),
        ({"fusion_kernel": 3}, (882, 887, 891, 896, 900)),
    ],
)
def test_parameters_of_table_2(options, thousands):
    counts = [
        count_parameters(
            MRNet(MRNetConfig(scales=(2,), recursions=(steps, 6, 8), **options))
        )
        for steps in (2, 4, 6, 8, 10)
    ]
    assert tuple(round(count / 1000) for count in counts) == thousands


@pytest.mark.parametrize(("scale", "giga"), [(2, 776.5), (3, 526.6), (4, 403.8)])
def test_macs_of_table_3(scale, giga):
    assert count_macs(MRNet(), scale) == pytest.approx(giga * 1e9, rel=0.005)


def transcribe(state: dict[str, torch.Tensor], lr: torch.Tensor, kind: str):
    """Equations 5 to 11 for two recursions, two blocks and x2, from the weights."""

    def convolve(x, name, groups=1):
        weight = state[f"{name}.weight"]
        padding = weight.shape[-1] // 2
        return F.conv2d(
            x, weight, state[f"{name}.bias"], padding=padding, groups=groups
        )

    def convolution_block(x):
        for block in (0, 1):
            inner = F.relu(convolve(x, f"recurse.body.{block}.conv1"))
            x = x + convolve(inner, f"recurse.body.{block}.conv2")
        return convolve(x, "recurse.body.2")

    x0 = F.relu(convolve(lr, "heads.2.extract.0"))
    x0 = memory = previous = convolve(x0, "heads.2.extract.2")
    outs = []
    for _ in range(2):
        if kind == "mrm":
            residual = convolution_block(
                convolve(torch.cat((x0, memory), 1), "recurse.encode")
            )
            memory = convolve(torch.cat((residual, memory), 1), "recurse.update")
        elif kind == "input-encoder":
            residual = convolution_block(
                convolve(torch.cat((x0, previous), 1), "recurse.encode")
            )
        elif kind == "memory-updater":
            residual = convolution_block(memory)
            memory = convolve(torch.cat((residual, memory), 1), "recurse.update")
        else:
            residual = convolution_block(previous)
        previous = residual if kind == "baseline" else residual + x0
        outs.append(previous)
    # ShuffleConv: channel i of both recursions makes the s*s sub-pixels of channel i.
    fused = torch.cat(
        [
            F.conv2d(
                torch.stack([out[:, channel] for out in outs], 1),
                state["heads.2.fusion.weight"][4 * channel : 4 * channel + 4],
                state["heads.2.fusion.bias"][4 * channel : 4 * channel + 4],
            )
            for channel in range(x0.shape[1])
        ],
        1,
    )
    hr = F.pixel_shuffle(F.relu(fused), 2)
    return convolve(
        F.relu(convolve(hr, "heads.2.reconstruct.0")), "heads.2.reconstruct.2"
    )


@pytest.mark.parametrize(
    "recursion", ["mrm", "input-encoder", "memory-updater", "residual", "baseline"]
)
def test_the_network_follows_the_equations(recursion):
    config = MRNetConfig(
        scales=(2,), recursions=(2, 6, 8), width=4, blocks=2, recursion=recursion
    )
    model = MRNet(config).double()
    lr = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = transcribe(model.state_dict(), lr, recursion)
        torch.testing.assert_close(model(lr), expected, atol=1e-12, rtol=1e-12)


def test_a_multi_scale_network_is_its_single_scale_networks():
    several = MRNet(MRNetConfig(width=8, blocks=1))
    lr = torch.rand(1, 3, 4, 5)
    for scale in (2, 3, 4):
        single = MRNet(MRNetConfig(scales=(scale,), width=8, blocks=1))
        weights = several.state_dict()
        single.load_state_dict({key: weights[key] for key in single.state_dict()})
        with torch.no_grad():
            assert torch.equal(single(lr), several(lr, scale))


def test_the_dense_fusion_of_a_gpu_is_the_grouped_one():
    scale = 3
    head = MRNet(MRNetConfig(scales=(scale,), width=8)).double().heads[str(scale)]
    fusion = head.fusion
    steps = fusion.weight.shape[1]
    for count in (1, steps):
        features = [
            torch.randn(2, 8, 5, 7, dtype=torch.double, requires_grad=True)
            for _ in range(count)
        ]
        dense = fusion._fuse_densely(features, fusion.weight[:, :count])
        grouped = fusion(features, None)
        torch.testing.assert_close(dense, grouped, rtol=0, atol=1e-12)
        for one in (grouped, dense):
            one.square().sum().backward()
            gradient = fusion.weight.grad
            fusion.weight.grad = None
            if one is grouped:
                expected = gradient
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)
