"""DSRN against counts made by hand and a transcription of its equations."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.imaging.resize import imresize
from srcli.models.counting import count_macs, count_parameters
from srcli.models.dsrn import DSRN, DSRNConfig

# Kernel of f_up and f_down at each scale, whose stride is the scale.
KERNELS = {2: 4, 3: 5, 4: 6}
ENDS = (9 * 1 * 64 + 64) + (9 * 64 * 128 + 128) + (9 * 128 * 1 + 1)  # 75,649
BLOCK = 2 * (9 * 128 * 128 + 128)  # f_lr or f_hr: 295,168


def between(scale: int) -> int:
    """Parameters of f_up or f_down."""
    return KERNELS[scale] ** 2 * 128 * 128 + 128


def build(**options) -> DSRN:
    """A small network in float64 with every parameter moved from where it starts."""
    model = DSRN(DSRNConfig(**{"width": 6, **options})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize(("scale", "total"), [(2, 1190543), (3, 1485455), (4, 1845903)])
def test_parameters_are_those_counted_by_hand(scale, total):
    model = DSRN(DSRNConfig(scales=(scale,)))
    # Two slopes a step: 14.
    assert ENDS + 2 * BLOCK + 2 * between(scale) + 2 * 7 == total
    assert count_parameters(model) == total


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # One step has no HR state to come from: neither f_hr nor f_down.
        ("dsrn-t1", ENDS + BLOCK + between(2) + 2),
        ("dsrn-no-feedback", ENDS + 2 * BLOCK + between(2) + 14),
        ("dsrn-untied", ENDS + (7 + 6) * BLOCK + (7 + 6) * between(2) + 14),
        ("dsrn-single-state", ENDS + BLOCK + 7),
    ],
)
def test_parameters_of_the_studied_variants(name, total):
    assert count_parameters(DSRN(DSRN.variants[name])) == total


@pytest.mark.parametrize(("scale", "feedback"), [(2, True), (3, False), (4, True)])
def test_macs_are_those_counted_by_hand(scale, feedback):
    hr, lr = 1280 * 720, 1280 * 720 / scale**2
    block, between = 2 * 9 * 128 * 128, KERNELS[scale] ** 2 * 128 * 128
    enter, leave = 9 * 1 * 64 + 9 * 64 * 128, 9 * 128
    expected = hr * (6 * block + leave)  # f_out runs once
    # A transposed convolution spends its kernel at every LR pixel, as f_down does.
    expected += lr * (enter + 7 * block + 7 * between + feedback * 6 * between)
    config = DSRNConfig(scales=(scale,), feedback=feedback)
    assert count_macs(DSRN(config), scale) == round(expected)


def transcribe(model: DSRN, lr: torch.Tensor) -> torch.Tensor:
    """Equations 2 to 6, step by step, from the weights alone."""
    config, state = model.config, model.state_dict()
    scale, width = config.scales[0], config.width
    # As many pixels before the scale's own as after them, or one more.
    padding = math.ceil((config.kernel[scale - 2] - scale) / 2)

    def conv(x, name, **options):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    def block(x, name):
        inner = conv(x, f"{name}.conv1", padding=1).clamp(min=0)
        return x + conv(inner, f"{name}.conv2", padding=1)

    def activate(x, row, t):
        if config.activation == "none":
            return x
        if config.activation == "relu":
            return x.clamp(min=0)
        slope = state["slopes"][row, t if config.activation == "prelu" else 0]
        return torch.where(x > 0, x, slope * x)

    def own(step):
        return step if config.untied else 0

    bicubic = torch.from_numpy(imresize(lr[0, 0].numpy(), scale))[None, None]
    first = conv(lr if config.dual else bicubic, "enter.conv1", padding=1).clamp(min=0)
    second = conv(first, "enter.conv2", padding=1)
    second[:, : width // 2] += first
    low = high = second.clamp(min=0)
    residuals = []
    for t in range(config.steps):
        if not config.dual:
            high = activate(block(high, f"high.{own(t)}"), 0, t)
            residuals.append(conv(high, "leave", padding=1))
            continue
        low = block(low, f"low.{own(t)}")
        if t > 0 and config.feedback:
            low = low + conv(high, f"down.{own(t - 1)}", stride=scale, padding=padding)
        low = activate(low, 0, t)
        up = F.conv_transpose2d(low, state[f"up.{own(t)}.weight"], stride=scale)
        rows, columns = (padding + scale * side for side in low.shape[-2:])
        up = F.pad(up, (0, 1, 0, 1))[:, :, padding:rows, padding:columns]
        up = up + state[f"up.{own(t)}.bias"][:, None, None]
        high = up + block(high, f"high.{own(t - 1)}") if t > 0 else up
        high = activate(high, 1, t)
        residuals.append(conv(high, "leave", padding=1))
    return bicubic + torch.stack(residuals).mean(dim=0)


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (2, {}),
        (3, {}),
        (4, {"steps": 1}),
        (2, {"untied": True}),
        (3, {"feedback": False}),
        (4, {"dual": False, "untied": True}),
        (2, {"width": 5, "kernel": (2, 3, 4)}),
        (4, {"kernel": (4, 7, 10), "activation": "relu"}),
        (2, {"activation": "shared-prelu"}),
        (4, {"activation": "none", "dual": False}),
    ],
)
def test_the_network_follows_the_equations(scale, options):
    model = build(scales=(scale,), **{"steps": 4, **options})
    lr = torch.rand(1, 1, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        expected = transcribe(model, lr)
        assert expected.shape == (1, 1, 7 * scale, 5 * scale)
        (estimate,) = model.predictions(lr)
        torch.testing.assert_close(estimate, expected, atol=1e-10, rtol=0)
    # Gradients need another way to the same PReLU.
    torch.testing.assert_close(model(lr).detach(), expected, atol=1e-10, rtol=0)


# Of two states, `high` and `down` begin with the second step.
@pytest.mark.parametrize(
    ("known", "wanted", "limit", "low", "high"),
    [
        ((3, True), (5, True), None, [0, 1, 2, 2, 2], [0, 1, 1, 1]),
        ((5, True), (3, True), None, [0, 1, 2], [0, 1]),
        ((5, True), (5, True), 2, [0, 1, 1, 1, 1], [0, 0, 0, 0]),
        ((4, False), (3, True), None, [0, 0, 0], [0, 0]),
        ((4, True), (3, False), None, [0], [0]),
    ],
)
def test_every_step_starts_from_the_same_one_or_the_last_that_ran(
    known, wanted, limit, low, high
):
    source, target = (build(steps=n, untied=untied) for n, untied in (known, wanted))
    source.limit_recursions(limit)
    before = {name: value.clone() for name, value in source.state_dict().items()}
    started = target.fitting_weights(source)
    assert started.keys() == target.state_dict().keys()
    for name, steps in (("low", low), ("up", low), ("high", high), ("down", high)):
        for use, step in enumerate(steps):
            for part, value in getattr(source, name)[step].named_parameters():
                assert torch.equal(started[f"{name}.{use}.{part}"], value)
    last = (limit or known[0]) - 1
    columns = [min(step, last) for step in range(wanted[0])]
    assert torch.equal(started["slopes"], before["slopes"][:, columns])
    # The source is as it was.
    after = source.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(("limit", "untied"), [(4, True), (None, False)])
def test_a_raised_limit_goes_on_with_what_the_last_step_learned(limit, untied):
    model = build(steps=5, untied=untied)
    model.limit_recursions(2)
    before = copy.deepcopy(model)
    model.limit_recursions(limit)
    expected = build(steps=5, untied=untied).fitting_weights(before)
    assert not torch.equal(model.slopes, before.slopes)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name])


def deviate(inputs: int, outputs: int) -> float:
    """The standard deviation of Glorot's uniform weights of a 3x3 convolution."""
    return math.sqrt(2 / (9 * inputs + 9 * outputs))


def test_where_training_starts():
    model = DSRN()
    first = model.enter.conv1.weight.detach()
    sums = first.sum(dim=(1, 2, 3))
    torch.testing.assert_close(sums, torch.zeros(64), atol=1e-5, rtol=0)
    # Four times Glorot's, and the mean of nine taken away.
    expected = 4 * deviate(1, 64) * math.sqrt(8 / 9)
    assert first.std().item() == pytest.approx(expected, rel=0.08)
    for layer, expected in (
        (model.enter.conv2, deviate(64, 128)),
        (model.low[0].conv1, deviate(128, 128)),
        (model.high[0].conv1, deviate(128, 128)),
        (model.low[0].conv2, 0.1 * deviate(128, 128)),
        (model.high[0].conv2, 0.1 * deviate(128, 128)),
        (model.leave, 0.1 * deviate(128, 1)),
    ):
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.08)
    assert torch.equal(model.slopes.detach(), torch.full((2, 7), 0.25))
    biases = [value for name, value in model.named_parameters() if "bias" in name]
    assert all(bias.count_nonzero() == 0 for bias in biases)


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (2, 3)},
        {"steps": 0},
        {"width": 1},
        {"kernel": (1, 5, 6)},  # leaves pixels out
        {"kernel": (4, 8, 8)},  # reaches further than the radius says
        {"kernel": (4, 5)},
    ],
)
def test_sizes_that_make_no_network_are_refused(options):
    with pytest.raises(UsageError):
        DSRNConfig(**options)
