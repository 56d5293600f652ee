"""DRRN against the counts of its paper and a transcription of its equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srcli.imaging.resize import imresize
from srcli.models.counting import count_macs
from srcli.models.drrn import DRRN, DRRNConfig

# Pairs of: whether units share their convolutions, their path, their normalisation.
KINDS = [
    (True, "multi", "affine"),
    (True, "chain", "batch"),
    (False, "multi", "batch"),
    (False, "chain", "affine"),
]


def count_weights(config: DRRNConfig) -> int:
    """Convolution weights, as the paper counts k: no biases, no normalisation."""
    return sum(
        layer.weight.numel()
        for layer in DRRN(config).modules()
        if isinstance(layer, nn.Conv2d)
    )


def shake(model: nn.Module) -> None:
    """Move every parameter and statistic away from what it starts at."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.5, 2.0)


@pytest.mark.parametrize(
    ("name", "depth", "thousands"),
    [
        # As printed in sections 4.3 and 4.4.
        ("drrn", 52, 297),
        ("drrn-b1u9", 20, 297),
        ("drrn-b3u8", 52, 1182),
        ("drrn-b17u1", 52, 7375),
        # Printed as 784K, which no reading gives: 4 + 1 layers of 147,456 and the ends.
        ("drrn-b2u3", 15, 740),
        # Section 4.5: depths 16, 22 and 28, as many weights as VDSR of that depth.
        ("drrn-ns-b3u2", 16, 2067),
        ("vdsr-d22", 22, 2951),
        ("drrn-ns-c-b3u4", 28, 3836),
        ("vdsr-d28", 28, 3836),
        ("drrn-c-b3u4", 28, 1182),
        # MRNet, Table 3: 0.67M.
        ("vdsr", 20, 665),
    ],
)
def test_depth_and_weights_of_the_studied_networks(name, depth, thousands):
    config = DRRN.variants[name]
    assert config.depth == depth
    assert round(count_weights(config) / 1000) == thousands


@pytest.mark.parametrize(
    ("name", "giga", "scale"), [("drrn", "6796.9", 2), ("vdsr", "612.6", 3)]
)
def test_macs_are_the_published_ones(name, giga, scale):
    # MRNet, Table 3: the same at every scale.
    assert f"{count_macs(DRRN(DRRN.variants[name]), scale) / 1e9:.1f}" == giga


def normalize(state, name, x, norm):
    def read(key):
        return state[f"{name}.{key}"].view(-1, 1, 1)

    if norm == "batch":
        x = (x - read("running_mean")) / torch.sqrt(read("running_var") + 1e-5)
    return read("weight") * x + read("bias")


@pytest.mark.parametrize(
    ("units", "shared", "path", "norm"),
    [(0, True, "multi", "affine"), *((3, *kind) for kind in KINDS)],
)
def test_the_network_follows_the_equations(units, shared, path, norm):
    config = DRRNConfig(
        scales=(3,),
        blocks=2,
        units=units,
        width=4,
        shared=shared,
        path=path,
        norm=norm,
    )
    model = DRRN(config).double().eval()
    shake(model)
    state = model.state_dict()
    lr = torch.rand(1, 1, 5, 4, dtype=torch.float64)

    def layer(x, norm_name, convolution):
        x = F.relu(normalize(state, norm_name, x, norm))
        bias = state.get(f"{convolution}.bias")
        return F.conv2d(x, state[f"{convolution}.weight"], bias, padding=1)

    bicubic = torch.from_numpy(imresize(lr[0, 0].numpy(), 3))[None, None]
    x = bicubic
    for b in ("blocks.0", "blocks.1"):
        h0 = h = layer(x, f"{b}.enter.norm", f"{b}.enter.convolution")
        for u in range(units):
            own = 0 if shared else u
            inner = layer(h, f"{b}.norms.{2 * u}", f"{b}.convolutions.{2 * own}")
            inner = layer(
                inner, f"{b}.norms.{2 * u + 1}", f"{b}.convolutions.{2 * own + 1}"
            )
            h = inner + (h if path == "chain" else h0)
        x = h
    expected = bicubic + layer(x, "reconstruct.norm", "reconstruct.convolution")
    with torch.no_grad():
        torch.testing.assert_close(model(lr), expected, atol=1e-10, rtol=1e-10)


def test_batch_normalisation_learns_its_statistics_in_training_only():
    model = DRRN(DRRNConfig(scales=(2,), units=2, width=8, norm="batch"))
    lr = torch.rand(2, 1, 6, 5)
    rest = {key: value.clone() for key, value in model.named_buffers()}
    assert len([key for key in rest if key.endswith("running_mean")]) == 2 * 2 + 2
    with torch.no_grad():
        model.eval()(lr)
        assert all(
            torch.equal(rest[key], value) for key, value in model.named_buffers()
        )
        model.train()(lr)
    assert not any(
        torch.equal(rest[key], value) for key, value in model.named_buffers()
    )


@pytest.mark.parametrize("name", ["drrn", "vdsr"])
def test_a_new_network_is_nearly_bicubic_and_its_features_keep_their_size(name):
    config = DRRN.variants[name]
    options = {key: value for key, value in config.as_dict().items() if key != "width"}
    model = DRRN(DRRNConfig.from_dict({**options, "width": 32, "scales": (2,)}))
    lr = torch.rand(1, 1, 12, 12)
    bicubic = torch.from_numpy(imresize(lr[0, 0].numpy(), 2))

    def measure():
        with torch.no_grad():
            return (model(lr)[0, 0] - bicubic).square().mean().sqrt()

    assert 0.0005 < measure() < 0.5
    with torch.no_grad():
        model.reconstruct.convolution.weight *= 50
    assert 0.02 < measure() < 25


def test_a_new_network_does_not_see_plain_areas():
    model = DRRN(DRRNConfig(scales=(2,), units=3, width=8)).double()
    grey = torch.full((1, 1, 12, 12), 0.6, dtype=torch.float64)
    with torch.no_grad():
        sr = model(grey)[0, 0]
    # Away from the border, whose padding it does see.
    inside = slice(8, -8)
    np.testing.assert_allclose(sr[inside, inside], 0.6, atol=1e-12)


def make_units(units, **options):
    model = DRRN(DRRNConfig(scales=(2,), blocks=2, units=units, width=8, **options))
    shake(model)
    return model.double().eval()


def copy_units(source, target, layers):
    """Give the target the source's units: its unit u those layers of unit layers[u]."""
    state, found = source.state_dict(), {}
    for key in target.state_dict():
        parts = key.split(".")
        if parts[0] == "blocks" and parts[2] in ("norms", "convolutions"):
            unit, layer = divmod(int(parts[3]), 2)
            shared = parts[2] == "convolutions" and source.config.shared
            parts[3] = str(layer if shared else 2 * layers[unit] + layer)
        found[key] = state[".".join(parts)]
    target.load_state_dict(found)


@pytest.mark.parametrize(("shared", "path", "norm"), KINDS)
def test_more_units_start_from_fewer_and_fewer_from_more(shared, path, norm):
    options = {"shared": shared, "path": path, "norm": norm}
    lr = torch.rand(1, 1, 4, 5, dtype=torch.float64)
    # Five units from two: each as often as can be in turn.
    for before, after, layers in ((2, 5, [0, 0, 0, 1, 1]), (5, 2, [0, 2])):
        source, target, expected = (
            make_units(n, **options) for n in (before, after, after)
        )
        target.load_state_dict(target.fitting_weights(source))
        copy_units(source, expected, layers)
        with torch.no_grad():
            torch.testing.assert_close(target(lr), expected(lr))
    # So do those that come in when a limit is raised.
    model, whole = make_units(5, **options), make_units(5, **options)
    model.limit_recursions(2)
    copy_units(model, whole, [0, 0, 0, 1, 1])
    model.limit_recursions(None)
    with torch.no_grad():
        torch.testing.assert_close(model(lr), whole(lr))


def test_a_network_in_a_shallow_phase_is_taken_over_as_it_is():
    source, target = make_units(5), make_units(9)
    source.limit_recursions(2)
    target.load_state_dict({**target.state_dict(), **target.fitting_weights(source)})
    target.limit_recursions(2)
    lr = torch.rand(1, 1, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(target(lr), source(lr))
