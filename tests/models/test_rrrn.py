"""RRRN against counts made by hand and a transcription of its equations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from srcli.models.counting import count_macs, count_parameters
from srcli.models.rrrn import RRRN, RRRNConfig

# Kernels of D and D* at each scale; stride the scale, padding 2.
KERNELS = {2: 6, 3: 7, 4: 8}
PIXEL = 64 * 64  # weights of a 1x1 that reads one feature


def build(**options) -> RRRN:
    """A small network in float64 with every parameter moved from where it starts."""
    sizes = {"width": 4, "sub_networks": 3, "iterations": 3, "extract_layers": 2}
    model = RRRN(RRRNConfig(**{**sizes, **options})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def count_by_hand(scale: int, iterations: int = 8, own: int | None = None) -> int:
    """Parameters; every activation has one slope. `own`: pairs of D and D* in RL."""
    transition = KERNELS[scale] ** 2 * PIXEL + 64
    features = range(1, iterations + 1)
    own = iterations if own is None else own
    extract = (9 * 3 * 256 + 256) + 5 * (9 * 256 * 256 + 256) + (256 * 64 + 64) + 7
    project = 2 * transition + 2 * (PIXEL + 64) + 4
    merge = restore = sum(j * PIXEL + 64 for j in features)
    degrade = sum((j + 1) * PIXEL + 64 + 1 for j in features)
    learn = merge + restore + degrade + own * (2 * transition + 1)
    dense = iterations * PIXEL + 64
    reconstruct = dense + transition + (dense + 1) + (9 * 64 * 3 + 3)
    fuse = 2 * PIXEL + 64 + 1
    return extract + project + learn + reconstruct + fuse


@pytest.mark.parametrize(("scale", "total"), [(2, 6337568), (3, 7349280), (4, 8516640)])
def test_parameters_are_those_counted_by_hand(scale, total):
    assert count_by_hand(scale) == total
    assert count_parameters(RRRN(RRRNConfig(scales=(scale,)))) == total


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("rrrn-g2", count_by_hand(2)),  # sub-networks share their weights
        ("rrrn-g1", count_by_hand(2) - (2 * PIXEL + 64 + 1)),  # nothing to fuse
        ("rrrn-shared", count_by_hand(2, own=1)),
        ("rrrn-t5", count_by_hand(2, 5)),
    ],
)
def test_parameters_of_the_variants(name, total):
    assert count_parameters(RRRN(RRRN.variants[name])) == total


@pytest.mark.parametrize(("scale", "g", "t"), [(2, 1, 4), (3, 2, 3), (4, 2, 1)])
def test_macs_are_those_counted_by_hand(scale, g, t):
    hr, lr = 1280 * 720, 1280 * 720 / scale**2
    transition = KERNELS[scale] ** 2 * PIXEL  # at every LR pixel, up or down
    features = range(1, t + 1)
    extract = lr * (9 * 3 * 256 + 5 * 9 * 256 * 256 + 256 * 64)
    project = lr * 2 * transition + hr * 2 * PIXEL
    learn = lr * sum(j * PIXEL + 2 * transition for j in features)
    learn += hr * sum(j * PIXEL + (j + 1) * PIXEL for j in features)
    reconstruct = lr * (t * PIXEL + transition) + hr * (t * PIXEL + 9 * 64 * 3)
    fuse = lr * 2 * PIXEL
    expected = extract + g * (project + learn + reconstruct) + (g - 1) * fuse
    config = RRRNConfig(scales=(scale,), sub_networks=g, iterations=t)
    assert count_macs(RRRN(config), scale) == round(expected)
    limited = RRRN(replace(config, sub_networks=4))
    limited.limit_recursions(g)
    assert count_macs(limited, scale) == round(expected)


def enlarge_bilinear(lr: torch.Tensor, scale: int) -> torch.Tensor:
    """Half-pixel centres, edges replicated, one pixel and axis at a time."""
    for axis in (2, 3):
        length = lr.shape[axis]
        rows = []
        for index in range(length * scale):
            place = min(max((index + 0.5) / scale - 0.5, 0), length - 1)
            left = int(place)
            right = min(left + 1, length - 1)
            part = place - left
            rows.append(
                (1 - part) * lr.select(axis, left) + part * lr.select(axis, right)
            )
        lr = torch.stack(rows, dim=axis)
    return lr


def transcribe(model: RRRN, lr: torch.Tensor) -> list[torch.Tensor]:
    """Equations 3 to 9, one after the other, from the weights alone."""
    config, state = model.config, model.state_dict()
    scale, t = config.scales[0], config.iterations

    def conv(name, *features, slope=True, stride=1, padding=0):
        """The layer on the stacked features; its PReLU's slope lies beside it."""
        name = f"{name}.0" if slope else name
        x = F.conv2d(
            torch.cat(features, 1),
            state[f"{name}.weight"],
            state[f"{name}.bias"],
            stride=stride,
            padding=padding,
        )
        return prelu(x, state[f"{name[:-1]}1.weight"]) if slope else x

    def prelu(x, slope):
        return torch.where(x > 0, x, slope * x)

    def up(name, x):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv_transpose2d(x, weight, bias, stride=scale, padding=2)

    def down(name, x):
        return conv(name, x, stride=scale, padding=2)

    def own(j):
        return 0 if config.shared_transitions else j

    image = enlarge_bilinear(lr, scale)
    x = lr
    for layer in range(config.extract_layers):
        x = conv(f"extract.{layer}", x, padding=1)
    x = conv(f"extract.{config.extract_layers}", x)
    images = []
    for i in range(config.sub_networks):
        if i > 0:
            x = conv("fuse", x, deltas[-1])  # noqa: F821 - of the round before
        raised = prelu(up("project.up.0", x), state["project.up.1.weight"])
        y = [conv("project.restore", raised)]
        deltas = [x - down("project.down", conv("project.degrade", y[0]))]
        zeta = []
        for j in range(t):
            layers = f"learn.iterations.{j}"
            merged = conv(f"{layers}.merge", *deltas, slope=False)
            raised = up(f"learn.ups.{own(j)}", merged)
            zeta.append(conv(f"{layers}.restore", *zeta, raised, slope=False))
            y.append(y[-1] + zeta[-1])
            degraded = conv(f"{layers}.degrade", *y)
            deltas.append(x - down(f"learn.downs.{own(j)}", degraded))
        merged = conv("reconstruct.merge", *deltas[1:], slope=False)
        raised = up("reconstruct.up", merged)
        restored = conv("reconstruct.restore", *zeta[1:], raised)
        residual = conv("reconstruct.to_image", restored, slope=False, padding=1)
        image = image + residual / model.config.sub_networks
        images.append(image)
    return images


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (2, {}),
        (3, {"shared_transitions": True}),
        (4, {"iterations": 1}),
        (2, {"sub_networks": 1}),
    ],
)
def test_the_network_follows_the_equations(scale, options):
    model = build(scales=(scale,), **options)
    lr = torch.rand(1, 3, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = transcribe(model, lr)
        assert expected[-1].shape == (1, 3, 7 * scale, 5 * scale)
        images = model.predictions(lr)
        assert len(images) == len(expected) == model.config.sub_networks
        for image, reference in zip(images, expected, strict=True):
            torch.testing.assert_close(image, reference, atol=1e-10, rtol=0)
        torch.testing.assert_close(model(lr), expected[-1], atol=1e-10, rtol=0)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (2, 4)])
def test_another_scale_starts_from_the_same_kernels_on_the_lr_grid(before, after):
    source, target = build(scales=(before,)), build(scales=(after,))
    # A kernel that is linear in the distance from the middle, in LR pixels, stays so.
    rows = {
        scale: (torch.arange(KERNELS[scale]) + 0.5 - KERNELS[scale] / 2) / scale
        for scale in (before, after)
    }
    kernels = {s: 0.7 + r[:, None] - 0.3 * r.double() for s, r in rows.items()}
    with torch.no_grad():
        for name in ("project.up.0", "project.down.0", "learn.ups.1"):
            source.get_submodule(name).weight.copy_(kernels[before])
    started = target.fitting_weights(source)
    assert started.keys() == target.state_dict().keys()
    target.load_state_dict(started)
    up = target.project.up[0].weight
    torch.testing.assert_close(up, kernels[after].expand_as(up))
    up = target.learn.ups[1].weight
    torch.testing.assert_close(up, kernels[after].expand_as(up))
    # D sums over more pixels of the same feature.
    down = target.project.down[0].weight * after**2 / before**2
    torch.testing.assert_close(down, kernels[after].expand_as(down))
    untouched = source.extract[0][0].weight
    assert torch.equal(target.extract[0][0].weight, untouched)


def test_only_what_fits_is_taken_from_a_network_of_other_channels():
    source, target = build(width=4), build(width=4, color="y", reconstruct_kernel=7)
    missing = target.state_dict().keys() - target.fitting_weights(source).keys()
    assert missing == {
        "extract.0.0.weight",
        "reconstruct.to_image.weight",
        "reconstruct.to_image.bias",
    }


def test_raising_the_limit_keeps_the_image_of_a_single_sub_network():
    model = RRRN(RRRNConfig(width=8, iterations=3)).eval()
    lr = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        # As a run that began with one leaves it: RF was never used.
        for name, parameter in model.named_parameters():
            if not name.startswith("fuse"):
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.limit_recursions(1)
        (shallow,) = model.predictions(lr)
        start = enlarge_bilinear(lr, 2)
        for limit in (2, 3, None):
            model.limit_recursions(limit)
            images = model.predictions(lr)
            torch.testing.assert_close(images[-1], shallow, atol=1e-5, rtol=0)
            # Each sub-network does its share.
            share = (shallow - start) / len(images)
            for count, image in enumerate(images, start=1):
                torch.testing.assert_close(
                    image, start + count * share, atol=1e-5, rtol=0
                )


def test_an_untrained_network_starts_near_the_bilinear_picture(picture):
    scale = 2
    model = RRRN(RRRNConfig(scales=(scale,), width=16)).eval()
    lr = torch.from_numpy(picture(12, 12)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        images = model.predictions(lr)
    for image in images:
        residual = image - enlarge_bilinear(lr, scale)
        assert torch.isfinite(image).all()
        assert 0 < residual.abs().max() < 0.1
