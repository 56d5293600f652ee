"""Muon: which weights it moves, by how much, and that it resumes."""

import pytest
import torch
from torch import nn

from srcli.models import MODELS, variant
from srcli.training.optimizer import Muon, make_optimizer
from srcli.training.recipe import make_recipe

RATE = 0.01


def make(network, **fields):
    values = {"model": "drcn", "optimizer": "muon", "learning_rate": RATE, **fields}
    return make_optimizer(network, make_recipe(values))


@pytest.fixture
def network():
    """Convolutions from a picture to 16 features, to 24, and to a picture."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 1, 3)
    )
    return layers.to(memory_format=torch.channels_last)


def learn(network, optimizer, seed=0):
    """One step on noise."""
    network.zero_grad(set_to_none=True)
    x = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    network(x).square().mean().backward()
    optimizer.step()


def changes(network, act):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    act()
    return {k: v - before[k] for k, v in network.state_dict().items()}


def test_the_singular_values_of_a_step_are_alike(network):
    optimizer = make(network)
    for seed in range(3):
        moved = changes(network, lambda seed=seed: learn(network, optimizer, seed))
    step, gradient = (
        torch.linalg.svdvals(kernel.flatten(1))
        for kernel in (moved["2.weight"], network[2].weight.grad)
    )
    assert gradient.max() > 10 * gradient.median()
    assert step.max() < 2 * step.median()


def test_a_step_is_as_large_as_adams(network):
    optimizer = make(network)
    for seed in range(30):
        moved = changes(network, lambda seed=seed: learn(network, optimizer, seed))
    # Liu et al., section 2.2: 0.2 of the rate, as Adam's typically are.
    size = moved["2.weight"].square().mean().sqrt() / RATE
    assert 0.12 < size < 0.3


def test_weights_at_the_picture_and_biases_go_by_adam(network):
    optimizer = make(network)
    moved = changes(network, lambda: learn(network, optimizer))
    for name, change in moved.items():
        # Adam's first step is the rate, where the gradient is not next to nothing.
        adam = float(change.abs().median()) == pytest.approx(RATE, rel=1e-3)
        assert adam == (name != "2.weight"), name


@pytest.mark.parametrize("name", MODELS)
def test_every_network_has_kernels_for_it(name):
    network_class, config = variant(name)
    network = network_class(config).to(memory_format=torch.channels_last)
    optimizer = make(network)
    assert isinstance(optimizer, Muon)
    kernels, others = optimizer.param_groups
    total = sum(p.numel() for group in (kernels, others) for p in group["params"])
    assert total == sum(p.numel() for p in network.parameters())
    # They share the network's memory: a step that moved copies would teach nothing.
    places = {p.data_ptr() for p in network.parameters()}
    assert all(matrix.data_ptr() in places for matrix in kernels["params"])
    assert sum(p.numel() for p in kernels["params"]) > 0.9 * total
