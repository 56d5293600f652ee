"""Losses against cases worked out by hand; their gradients, the same from a graph."""

import pytest
import torch

from srcli.models.drcn import DRCN, DRCNConfig
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.training.gradients import Crops, Gradients, supervised_loss
from srcli.training.optimizer import clip_gradients, make_optimizer
from srcli.training.recipe import Recipe, load_recipe
from srcli.training.run import make_network

HR = torch.zeros(2, 1, 1, 2)
FIRST = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])  # |.|: 3, squares: 5
SECOND = torch.tensor([[[[0.0, 1.0]]], [[[3.0, 0.0]]]])  # |.|: 4, squares: 10
FINAL = torch.tensor([[[[0.5, 0.0]]], [[[0.0, 0.5]]]])  # |.|: 1, squares: 0.5


def loss_of(predictions, hr, alpha=0.0, **fields):
    recipe = Recipe(model="mrnet", **fields)
    return supervised_loss(recipe, predictions, hr, alpha).item()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"loss": "l1", "reduction": "mean"}, 1 / 4),
        ({"loss": "l1", "reduction": "sum"}, 1 / 2),
        ({"loss": "l2", "reduction": "mean"}, 0.5 * 0.5 / 4),
        ({"loss": "l2", "reduction": "sum"}, 0.5 * 0.5 / 2),
        ({"supervision": "mean"}, (3 + 4 + 1) / 4 / 3),
    ],
)
def test_losses_of_three_predictions(fields, expected):
    assert loss_of((FIRST, SECOND, FINAL), HR, **fields) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.75, 1.0])
def test_equation_13_of_drcn_in_full(alpha):
    # Two patches of one pixel, D = 3. Errors of the recursions 1 and 3, -2 and 0, 1 and
    # -1: l1 = (1 + 9 + 4 + 0 + 1 + 1) / (2 * 3 * 2) = 4 / 3. Weights 0.5, 0.25, 0.25:
    # errors of the sum 0.25 and 1.25, l2 = (0.0625 + 1.5625) / (2 * 2) = 0.40625.
    hr = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1)
    errors = torch.tensor([[1.0, 3.0], [-2.0, 0.0], [1.0, -1.0]]).view(3, 2, 1, 1, 1)
    weights = torch.tensor([0.5, 0.25, 0.25]).view(3, 1, 1, 1, 1)
    predictions = (*(hr + errors), (weights * (hr + errors)).sum(dim=0))
    fields = {"loss": "l2", "supervision": "recursive"}
    expected = pytest.approx(alpha * 4 / 3 + (1 - alpha) * 0.40625)
    assert loss_of(predictions, hr, alpha, **fields) == expected
    # On a GPU the weight is a tensor; a network with one prediction has its loss alone.
    assert loss_of(predictions, hr, torch.tensor(alpha), **fields) == expected
    alone = loss_of(predictions[-1:], hr, alpha, **fields)
    assert alone == pytest.approx(0.40625)


def test_half_precision_estimates_are_compared_in_float32():
    sr = torch.full((1, 1, 2, 2), 1 / 256, dtype=torch.bfloat16)
    # bfloat16 has no such number.
    assert loss_of((sr,), torch.ones(1, 1, 2, 2)) == 1 - 1 / 256


@pytest.fixture
def network():
    return MRNet(MRNetConfig(width=4, blocks=1, recursions=(2, 2, 2)))


@pytest.fixture
def recipe():
    return load_recipe("mrnet", "fast")


def crops_of(scale, count, weight=1.0, channels=3, device="cpu"):
    lr = torch.rand(count, channels, 6, 6, device=device)
    hr = torch.rand(count, channels, 6 * scale, 6 * scale, device=device)
    return Crops(scale, lr, hr, weight)


def gradients_of(network):
    return {
        name: None if p.grad is None else p.grad.clone()
        for name, p in network.named_parameters()
    }


def test_loss_and_gradients_are_those_of_the_whole_batch_and_of_one_scale(network):
    # Squares: the sign of a difference near zero turns with the last digit.
    gradients = Gradients(network, load_recipe("mrnet", "fast", {"loss": "l2"}))
    whole = crops_of(2, 5)
    expected = 0.5 * (network(whole.lr, 2) - whole.hr).square().mean()
    expected.backward()
    by_hand = gradients_of(network)
    parts = [
        Crops(2, whole.lr[:2], whole.hr[:2], 2 / 5),
        Crops(2, whole.lr[2:], whole.hr[2:], 3 / 5),
    ]
    for crops in ([whole], parts):
        loss = gradients.compute(crops, alpha=0.0)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert not loss.requires_grad
        for name, value in gradients_of(network).items():
            assert (value is None) == ("heads.3" in name or "heads.4" in name)
            if value is not None:
                assert torch.allclose(value, by_hand[name], atol=1e-6), name
    # A process without crops.
    assert gradients.compute([], alpha=0.0).item() == 0.0
    assert all(value is None for value in gradients_of(network).values())


@pytest.mark.gpu
def test_a_graph_follows_alpha(recipe):
    network = DRCN(DRCNConfig(width=4, recursions=3)).to("cuda")
    recipe = load_recipe("drcn", "paper")
    recorded, plain = Gradients(network, recipe), Gradients(network, recipe)
    plain.records = False
    crops = [crops_of(2, 2, channels=1, device="cuda")]
    for alpha in (1.0, 0.25, 0.0):
        found, expected = recorded.compute(crops, alpha), plain.compute(crops, alpha)
        assert torch.allclose(found, expected, rtol=1e-5)


SMALL = {
    "drcn": {"width": 4, "recursions": 5},
    "drrn": {"width": 4, "units": 3, "norm": "batch"},
    "dsrn": {"width": 8, "steps": 3},
    "mrnet": {"width": 4, "blocks": 1, "recursions": [2, 3, 4]},
    "rrrn": {"width": 4, "sub_networks": 2, "iterations": 2},
}


@pytest.mark.gpu
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("model", SMALL)
def test_training_by_graphs_is_training_by_single_steps(model, recompute):
    values = {"config": SMALL[model], "recompute": recompute, "recursions": []}
    recipe = load_recipe(model, "fast", values)
    losses = []
    for records in (True, False):
        torch.manual_seed(3)
        network = make_network(recipe).to("cuda")
        network.recompute = recompute
        gradients = Gradients(network, recipe)
        gradients.records = records
        optimizer = make_optimizer(network, recipe)
        found = []
        for step in range(12):
            scale = recipe.scales[step % len(recipe.scales)]
            crops = [crops_of(scale, 2, channels=network.channels, device="cuda")]
            found.append(gradients.compute(crops, alpha=0.5).item())
            clip_gradients(network, recipe, 1e-3)
            optimizer.step()
            if step == 6:
                # Other sizes meanwhile, as validation has, and another depth.
                with torch.no_grad():
                    for side in range(3, 83):
                        lr = torch.rand(1, network.channels, side, 5, device="cuda")
                        network(lr, scale)
                network.limit_recursions(2)
        assert gradients.records == records
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.gpu
def test_a_graph_that_cannot_be_recorded_is_done_without(network, recipe, monkeypatch):
    network.to("cuda")

    def fail(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", fail)
    gradients = Gradients(network, recipe)
    stream = torch.cuda.current_stream()
    loss = gradients.compute([crops_of(2, 2, device="cuda")], alpha=0.0)
    assert torch.isfinite(loss)
    assert not gradients.records
    assert torch.cuda.current_stream() == stream
