"""Every network that DRRN's tables and figures study learns from its first steps on."""

import pytest
import torch

from srcli.models.drrn import DRRN
from srcli.training.gradients import Crops, Gradients
from srcli.training.optimizer import clip_gradients, make_optimizer
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network


def learn(recipe, steps):
    """The loss on two crops of the same few pixels, before and after the steps."""
    network = make_network(recipe)
    network.limit_recursions(None)
    gradients, optimizer = Gradients(network, recipe), make_optimizer(network, recipe)
    lr = torch.rand(2, 1, 6, 6)
    crops = Crops(3, lr, torch.rand(2, 1, 18, 18) * 0.2 + 0.4, 1.0)
    losses = []
    for _ in range(steps):
        losses.append(gradients.compute([crops], alpha=0.0).item())
        clip_gradients(network, recipe, 2e-3)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3
        optimizer.step()
    return losses[0], losses[-1]


@pytest.mark.parametrize("norm", ["affine", "batch"])
@pytest.mark.parametrize("name", DRRN.variants)
def test_a_variant_learns(name, norm):
    torch.manual_seed(0)
    recipe = load_recipe(
        name, "fast", {"config": {"width": 8, "norm": norm}, "scales": [3]}
    )
    before, after = learn(recipe, 25)
    assert after < 0.75 * before
