"""Gradients of a step: of the whole batch, fresh each time, the same from a graph."""

import pytest
import torch

from srcli.models.drcn import DRCN, DRCNConfig
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.training.gradients import Crops, Gradients
from srcli.training.optimizer import clip_gradients, make_optimizer
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network


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


def test_loss_and_gradients_are_those_of_the_mean_absolute_error(network, recipe):
    crops = crops_of(2, 3)
    loss = Gradients(network, recipe).compute([crops], alpha=0.0)
    found = gradients_of(network)
    network.zero_grad()
    expected = (network(crops.lr, 2) - crops.hr).abs().mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert not loss.requires_grad
    for name, p in network.named_parameters():
        assert (
            (p.grad is None)
            == (found[name] is None)
            == ("heads.3" in name or "heads.4" in name)
        )
        if p.grad is not None:
            assert torch.allclose(found[name], p.grad, atol=1e-7), name


def test_parts_of_a_batch_weigh_as_their_crops_do(network):
    # Squares: the sign of a difference near zero turns with the last digit.
    recipe = load_recipe("mrnet", "fast", {"loss": "l2"})
    gradients = Gradients(network, recipe)
    whole = crops_of(3, 5)
    gradients.compute([whole], alpha=0.0)
    expected = gradients_of(network)
    parts = [
        Crops(3, whole.lr[:2], whole.hr[:2], 2 / 5),
        Crops(3, whole.lr[2:], whole.hr[2:], 3 / 5),
    ]
    gradients.compute(parts, alpha=0.0)
    for name, value in gradients_of(network).items():
        if value is not None:
            assert torch.allclose(value, expected[name], atol=1e-6), name


def test_a_process_without_crops_has_no_loss_and_no_gradient(network, recipe):
    gradients = Gradients(network, recipe)
    gradients.compute([crops_of(2, 2)], alpha=0.0)
    assert gradients.compute([], alpha=0.0).item() == 0.0
    assert all(value is None for value in gradients_of(network).values())


@pytest.mark.gpu
@pytest.mark.parametrize("scales", [(2,), (3,), (2, 3, 4)])
def test_a_graph_gives_what_single_steps_give(network, recipe, scales):
    network.to("cuda")
    recorded, plain = Gradients(network, recipe), Gradients(network, recipe)
    plain.records = False
    for _ in range(3):
        crops = [crops_of(scale, 2, 1 / len(scales), device="cuda") for scale in scales]
        expected = plain.compute(crops, 0.0), gradients_of(network)
        loss = recorded.compute(crops, 0.0)
        assert recorded.records
        assert torch.allclose(loss, expected[0])
        for name, value in gradients_of(network).items():
            assert (value is None) == (expected[1][name] is None), name
            if value is not None:
                # In TF32 and not always in one order: a few of its last digits.
                assert torch.allclose(value, expected[1][name], atol=1e-4), name


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
