"""DRCN against published counts and a transcription of its equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from srcli.errors import UsageError
from srcli.imaging.resize import imresize
from srcli.models.counting import count_macs, count_parameters, outline
from srcli.models.drcn import DRCN, DRCNConfig


def build(**options) -> DRCN:
    """A narrow float64 network whose weights of equation 10 are not all equal."""
    model = DRCN(DRCNConfig(**{"width": 8, "recursions": 16, **options})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def draw(height: int = 5, width: int = 7):
    return torch.rand(1, 1, height, width, dtype=torch.float64)


def test_parameters_and_macs_are_the_published_ones():
    model = outline(DRCN, DRCNConfig())
    assert count_parameters(model) == 1_775_121
    # MRNet, Table 3: 1.77M and 17974.3G, the same at every scale.
    assert f"{count_macs(model, 2) / 1e9:.1f}" == "17974.3"


def test_parameters_of_figure_3():
    def count(depth, sharing):
        config = DRCNConfig(recursions=depth, width=16, sharing=sharing)
        return count_parameters(DRCN(config))

    layer, ensemble = 16 * 16 * 9 + 16, 1
    last = 16 * 9 + 1
    assert count(5, "all") - count(4, "all") == ensemble
    assert count(5, "recursion") - count(5, "all") == 4 * (layer + last)
    second = np.diff([count(depth, "none") for depth in (1, 2, 3, 4)], n=2)
    assert (second == layer).all()


@pytest.mark.parametrize("skip", [True, False])
def test_the_network_follows_the_equations(skip):
    model = build(recursions=3, skip=skip)
    lr = draw()
    state = model.state_dict()

    def convolve(x, name):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    x = torch.from_numpy(imresize(lr[0, 0].numpy(), 2))[None, None]
    h = F.relu(convolve(F.relu(convolve(x, "embed.0")), "embed.2"))
    estimates = []
    for _ in range(3):
        h = F.relu(convolve(h, "recurse"))
        residual = convolve(
            F.relu(convolve(h, "reconstruct.0.hidden")), "reconstruct.0.output"
        )
        estimates.append(x + residual if skip else residual)
    weights = state["weights"] / state["weights"].sum()
    expected = sum(w * y for w, y in zip(weights, estimates, strict=True))
    with torch.no_grad():
        *intermediate, final = model.predictions(lr)
    for estimate, reference in zip(intermediate, estimates, strict=True):
        torch.testing.assert_close(estimate, reference, atol=1e-12, rtol=0)
    torch.testing.assert_close(final, expected, atol=1e-12, rtol=0)
    with torch.no_grad():  # an average, whatever the weights add up to
        model.weights.mul_(3.0)
        torch.testing.assert_close(model(lr), final, atol=1e-12, rtol=0)


def test_forward_and_predictions_have_the_same_gradients():
    model = build(recursions=4)
    lr = draw()
    for run in (model, lambda lr: model.predictions(lr)[-1]):
        model.zero_grad()
        run(lr).square().sum().backward()
        gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
        if run is model:
            first = gradients
    for key, gradient in gradients.items():
        torch.testing.assert_close(first[key], gradient, atol=1e-9, rtol=1e-9)


def test_the_recursion_starts_as_the_identity():
    with pytest.raises(UsageError, match="supervision"):
        DRCNConfig(sharing="none", supervision=False)
    model = DRCN(DRCNConfig(width=8))
    first, *_, last, _ = model.predictions(torch.rand(1, 1, 4, 4))
    torch.testing.assert_close(first, last, atol=0, rtol=0)
    assert not model.recurse.bias.any()
    torch.testing.assert_close(model.stage_weights, torch.full((16,), 1 / 16))


def test_a_new_network_is_near_bicubic_and_blind_to_brightness(picture):
    luma = torch.from_numpy(picture(channels=1)[:, :, 0] / 255).float()[None, None]
    inner = (slice(None), slice(None), slice(20, -20), slice(20, -20))

    def add(start, lr):
        model = DRCN(DRCNConfig(width=32, start=start))
        with torch.no_grad():
            bicubic = torch.from_numpy(imresize(lr[0, 0].double().numpy(), 2)).float()
            return (model(lr) - bicubic)[inner]

    torch.manual_seed(0)
    assert add("details", luma).std() < 0.5 * add("identity", luma).std()
    torch.manual_seed(0)
    first = add("details", 0.5 * luma)
    torch.manual_seed(0)
    # The same details under another brightness; borders see the zeros around.
    torch.testing.assert_close(
        add("details", 0.5 * luma + 0.4), first, atol=1e-5, rtol=0
    )


def test_limiting_hands_the_weights_to_the_recursions_that_remain():
    model = build(recursions=6)
    with torch.no_grad():
        model.weights.mul_(1.3)
    total = model.stage_weights.sum()
    assert float(total) == pytest.approx(1)
    model.limit_recursions(2)
    with torch.no_grad():
        lr = draw()
        shallow = model(lr)
    assert model.stage_weights.shape == (2,)
    torch.testing.assert_close(model.stage_weights.sum(), total)
    model.limit_recursions(None)
    assert model.stage_weights.shape == (6,)
    assert not model.stage_weights[2:].any()
    torch.testing.assert_close(model.stage_weights.sum(), total)
    with torch.no_grad():
        torch.testing.assert_close(model(lr), shallow, atol=1e-12, rtol=0)


def test_without_supervision_only_the_last_recursion_predicts():
    model = build(recursions=4, supervision=False)
    lr = draw()
    with torch.no_grad():
        (only,) = model.predictions(lr)
        assert torch.equal(model(lr), only)
        # The same weights, supervised: the estimate after four recursions.
        twin = build(recursions=4)
        twin.load_state_dict({**model.state_dict(), "weights": torch.zeros(4)})
        torch.testing.assert_close(twin.predictions(lr)[3], only)
    assert model.stage_weights is None
