"""`--recipe paper`: held to figures read in the papers and worked out by hand."""

import copy
import dataclasses
import itertools
import re
import tomllib
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.resize import imresize
from srcli.models import MODELS, variant, variant_names
from srcli.training.data import CropSampler
from srcli.training.gradients import supervised_loss
from srcli.training.loop import Trainer
from srcli.training.optimizer import Plateau, clip_gradients, make_optimizer
from srcli.training.recipe import Recipe, load_recipe
from srcli.training.run import make_network

CPU = torch.device("cpu")
# Small networks, crops and batches; every other field is the paper's own.
TINY = {
    "drcn": {"config": {"width": 8, "recursions": 4}, "batch": 8, "crop": 16},
    "drrn": {"config": {"width": 8, "units": 3}, "batch": 12, "crop": 16},
    "dsrn": {"config": {"width": 8, "steps": 3}, "batch": 8, "crop": 16},
    "mrnet": {
        "config": {"width": 32, "blocks": 1, "recursions": [2, 3, 4]},
        "batch": 4,
        "crop": 8,
    },
    "rrrn": {"config": {"width": 8, "iterations": 2}, "batch": 4, "crop": 8},
}


@pytest.fixture
def trainer(pictures, tmp_path):
    """A function that makes a trainer of a tiny network by the paper's recipe."""

    def make(model, seed=0, **overrides):
        recipe = load_recipe(model, "paper", {**TINY[model], **overrides})
        torch.manual_seed(seed)
        network = make_network(recipe).train()
        paths = sorted(pictures.iterdir())
        sampler = CropSampler(paths, recipe, network.color, CPU, seed=seed)
        return Trainer(network, recipe, sampler, tmp_path / "run")

    return make


def spy(sampler):
    """What the sampler draws from now on: (scale, LR, HR) of every call."""
    drawn = []
    draw = sampler.draw

    def record(scale, count):
        crops = draw(scale, count)
        drawn.append((scale, *crops))
        return crops

    sampler.draw = record
    return drawn


def loss_of(run, crops):
    """The recipe's loss of some crops, without a step."""
    recipe = run.recipe
    total = sum(len(lr) for _, lr, _ in crops)
    with torch.no_grad():
        return sum(
            supervised_loss(
                recipe,
                copy.deepcopy(run.model).predictions(lr, scale),
                hr,
                recipe.alpha_at(0),
            ).item()
            * len(lr)
            / total
            for scale, lr, hr in crops
        )


# What the papers say, by their sections; None where a recipe has no such setting.
PAPERS = {
    # 3.3, 4.1 and 4.2; Eq. 13.
    "drcn": {
        "datasets": ("t91",), "config": {"start": "identity"}, "batch": 64,
        "crop": 41, "crop_of": "hr",
        "optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9,
        "weight_decay": 0.0001, "schedule": "plateau", "decay_factor": 0.1,
        "min_rate": 1e-6, "loss": "l2", "supervision": "recursive",
    },
    # 4.1 and 4.2; Eq. 10; Figure 3.
    "drrn": {
        "datasets": ("t91", "bsds200"), "config": {"norm": "batch"},
        "scales": (2, 3, 4), "scale_mode": "all", "batch": 128, "crop": 31,
        "crop_of": "hr", "augment": True, "optimizer": "sgd", "learning_rate": 0.1,
        "momentum": 0.9, "weight_decay": 0.0001, "schedule": "step",
        "decay_factor": 0.5, "clip": "adjustable", "clip_at": 0.01, "loss": "l2",
        "reduction": "sum",
    },
    # 5.1 and 5.2; Eq. 6.
    "dsrn": {
        "datasets": ("t91",), "batch": 16, "crop": 128, "crop_of": "hr",
        "augment": True, "rescale": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        "optimizer": "sgd", "learning_rate": 0.03, "momentum": 0.95,
        "schedule": "plateau", "decay_factor": 0.1, "clip_at": 0.5, "loss": "l2",
        "reduction": "mean",
    },
    # 4.1 and 4.5.
    "mrnet": {
        "datasets": ("div2k-train",), "scales": (2, 3, 4), "scale_mode": "one",
        "degradation": "bi", "steps": 1_000_000, "batch": 16, "crop": 48,
        "crop_of": "lr", "augment": True, "optimizer": "adam", "learning_rate": 0.0001,
        "momentum": 0.9, "schedule": "step", "decay_every": 200_000,
        "decay_factor": 0.5, "clip": "none", "loss": "l1",
    },
    # 3.1; Eq. 10.
    "rrrn": {
        "datasets": ("div2k-train", "flickr2k"), "batch": 64, "augment": True,
        "optimizer": "adam", "learning_rate": 0.0001, "momentum": 0.9,
        "schedule": "step", "decay_factor": 0.5, "loss": "l1", "supervision": "mean",
    },
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_fields_are_those_of_the_paper(model):
    recipe = load_recipe(model, "paper")
    assert {name: getattr(recipe, name) for name in PAPERS[model]} == PAPERS[model]
    # None of them averages weights, begins shallow, or adapts its rate to the batch.
    assert (recipe.ema, recipe.recursions, recipe.rate_batch) == (0.0, (), 0)
    assert load_recipe(model, "paper", {"batch": 1}).learning_rate_at(0) == (
        recipe.learning_rate
    )


@pytest.mark.parametrize("model", MODELS)
def test_every_field_cites_its_section_or_says_that_it_is_a_choice(model):
    path = resources.files("srcli.training") / "recipes" / f"{model}_paper.toml"
    text = path.read_text("utf-8")
    there = re.findall(r"^(\w+) = [^#]*(#.*)?$", text, re.MULTILINE)
    assert {name for name, _ in there} == set(tomllib.loads(text))
    for name, comment in there:
        cited = re.match(r"# (\d\.\d|Eq\. \d+|Table \d|Figure \d|choice: \w+)", comment)
        assert cited, f"{name} {comment}"
    values = load_recipe(model, "paper")
    beside_the_point = {
        "data_licence", "minutes", "rate_batch", "recompute", "final_rate",
        *(() if variant(model)[1].as_dict() != make_network(values).config.as_dict()
          else ("config",)),
        *(() if values.optimizer == "adam" else ("beta2",)),
        *(() if values.schedule == "plateau" else ("min_rate",)),
        *(() if values.clip != "none" else ("clip_at",)),
        *(() if values.supervision == "recursive" else ("alpha", "alpha_steps")),
    }  # fmt: skip
    every = {field.name for field in dataclasses.fields(Recipe)}
    taught = {name for name in every if name.startswith("teacher_")}
    assert {name for name, _ in there} == every - beside_the_point - taught


def test_rates_at_the_corners_of_the_schedules():
    for model, corners in (
        (
            "mrnet",  # 4.1: halved every 2 * 10^5 of 10^6 iterations
            {
                0: 1e-4, 199_999: 1e-4, 200_000: 5e-5, 399_999: 5e-5, 400_000: 2.5e-5,
                600_000: 1.25e-5, 799_999: 1.25e-5, 800_000: 6.25e-6, 999_999: 6.25e-6,
            },
        ),
        (
            "drrn",  # 4.2: halved every 10 epochs, which have 6,536 steps
            {
                0: 0.1, 65_359: 0.1, 65_360: 0.05, 130_719: 0.05, 130_720: 0.025,
                196_080: 0.0125, 261_440: 0.00625, 326_799: 0.00625, 326_800: 0.003125,
                392_159: 0.003125,
            },
        ),
        (
            "rrrn",  # 3.1: halved every 100 of 500 epochs, taken as 1,000 steps
            {
                0: 1e-4, 99_999: 1e-4, 100_000: 5e-5, 200_000: 2.5e-5, 300_000: 1.25e-5,
                399_999: 1.25e-5, 400_000: 6.25e-6, 499_999: 6.25e-6,
            },
        ),
    ):  # fmt: skip
        recipe = load_recipe(model, "paper")
        rates = {step: recipe.learning_rate_at(step) for step in corners}
        assert rates == pytest.approx(corners, rel=1e-12)
        assert recipe.steps == max(corners) + 1


def test_rates_while_validation_stands_still():
    for model, cuts, end in (
        # 4.2: by 10 after 5 epochs of 147 steps without a better validation (the first
        # is the best); below 1e-6 the end.
        ("drcn", {147: 1e-2, 882: 1e-3, 1617: 1e-4, 2352: 1e-5, 3087: 1e-6}, 3822),
        # 5.2: by 10, three times.
        ("dsrn", {1000: 3e-2, 21_000: 3e-3, 41_000: 3e-4, 61_000: 3e-5}, 81_000),
    ):
        recipe = load_recipe(model, "paper")
        plateau = Plateau(recipe)
        expected = 0.0
        for step in range(recipe.validate_every, end, recipe.validate_every):
            plateau.watch(step, 30.0)
            expected = cuts.get(step, expected)
            rate = recipe.learning_rate_at(step) * plateau.factor
            assert rate == pytest.approx(expected, rel=1e-9), step
            assert not plateau.is_over
        plateau.watch(end, 30.0)
        assert plateau.is_over
        assert recipe.steps > end


def test_drcn_turns_from_its_recursions_to_their_sum():
    recipe = load_recipe("drcn", "paper")
    weights = [recipe.alpha_at(step) for step in (0, 1, 3675, 7349, 7350, 900_000)]
    assert weights == pytest.approx([1, 7349 / 7350, 0.5, 1 / 7350, 0, 0])


def test_clipping():
    for model, rate, gradient, clipped in (
        # 4.2: within +-0.01 / rate, for each rate of the schedule.
        ("drrn", 0.1, [5.0], [0.1]),
        ("drrn", 0.1, [-5.0], [-0.1]),
        ("drrn", 0.05, [-5.0], [-0.2]),
        ("drrn", 0.003125, [5.0], [3.2]),
        ("drrn", 0.1, [0.09], [0.09]),
        ("drrn", 0.1, [3.0, 4.0], [0.06, 0.08]),
        # 5.2: at 0.5, each value.
        ("dsrn", 0.03, [3.0, -0.7, 0.4], [0.5, -0.5, 0.4]),
        ("drcn", 0.01, [3.0, 4.0], [0.06, 0.08]),
        ("drcn", 0.001, [0.03, 0.04], [0.03, 0.04]),
        ("mrnet", 1e-4, [300.0, -400.0], [300.0, -400.0]),
        ("rrrn", 1e-4, [300.0, -400.0], [300.0, -400.0]),
    ):
        layer = nn.Linear(len(gradient), 1, bias=False)
        layer.weight.grad = torch.tensor([gradient])
        clip_gradients(layer, load_recipe(model, "paper"), rate)
        assert layer.weight.grad[0].tolist() == pytest.approx(clipped, rel=1e-5)


class _Line(nn.Module):
    """One weight t; on a picture x, t x and 3 t x as recursions, 2 t x as their sum."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def predictions(self, x):
        return tuple(factor * self.weight * x for factor in (1, 3, 2))


def test_drcn_takes_two_steps_down_the_whole_of_equation_13():
    recipe = load_recipe("drcn", "paper", {"alpha": 0.6, "alpha_steps": 0})
    line = _Line()
    optimizer = make_optimizer(line, recipe)
    x, y = torch.tensor([[[[0.1]]]]), torch.tensor([[[[0.25]]]])

    def step():
        optimizer.zero_grad()
        loss = supervised_loss(recipe, line.predictions(x), y, recipe.alpha_at(0))
        loss.backward()
        clip_gradients(line, recipe, recipe.learning_rate_at(0))
        optimizer.step()
        return loss.item()

    # t = 2: estimates 0.2, 0.6 and 0.4, errors -0.05, 0.35 and 0.15.
    # l1 = (0.0025 + 0.1225) / 2 / 2, l2 = 0.0225 / 2: 0.6 l1 + 0.4 l2 = 0.02325.
    assert step() == pytest.approx(0.02325, rel=1e-6)
    # Its slope: 0.6 (-0.05 * 0.1 + 0.35 * 0.3) / 2 + 0.4 * 0.15 * 0.2 = 0.042, and
    # 0.0001 * 2 of decay, times the rate of 0.01.
    moved = 2 - line.weight.item()
    assert moved == pytest.approx(0.000422, rel=1e-5)
    # t = 1.999578: the slope is 0.042 - 0.000422 * 0.046, the decay 0.0001 t; nine
    # tenths of the last step come on top.
    step()
    slope = 0.042 - 0.000422 * (0.6 * (0.01 + 0.09) / 2 + 0.4 * 0.04)
    expected = 0.9 * 0.000422 + 0.01 * (slope + 0.0001 * 1.999578)
    assert 2 - moved - line.weight.item() == pytest.approx(expected, rel=1e-5)


def test_drcn_starts_with_the_identity_in_its_recursion():
    network = make_network(load_recipe("drcn", "paper", {"config": {"width": 64}}))
    kernel = network.recurse.weight.detach().clone()
    assert torch.equal(kernel[:, :, 1, 1], torch.eye(64))
    kernel[:, :, 1, 1] = 0.0
    assert not kernel.any()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
    # He et al. elsewhere: a variance of 2 over the inputs of a filter.
    others = {
        9 * 64: (network.embed[2], network.reconstruct[0].hidden),
        9: (network.embed[0],),
    }
    for inputs, layers in others.items():
        for layer in layers:
            spread = layer.weight.std().item()
            assert spread == pytest.approx((2 / inputs) ** 0.5, rel=0.1)
    last = network.reconstruct[0].output.weight
    assert last.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.15)
    # So all recursions agree at first, and so does their weighted sum.
    *estimates, final = network.predictions(torch.rand(2, 1, 8, 8))
    assert len(estimates) == 16
    for estimate in (*estimates, final):
        assert torch.allclose(estimate, estimates[0], atol=1e-5)


def test_drrn_has_all_scales_in_a_batch_and_the_loss_of_equation_10(trainer):
    run = trainer("drrn", batch=128, crop=31, config={"width": 4, "units": 1})
    drawn = spy(run.sampler)
    before = copy.deepcopy(run.model)
    loss = float(run.train_step())
    assert [(scale, *hr.shape) for scale, _, hr in drawn] == [
        (2, 43, 1, 32, 32), (3, 43, 1, 33, 33), (4, 42, 1, 32, 32)
    ]  # fmt: skip
    squares = 0.0
    for scale, lr, hr in drawn:
        with torch.no_grad():
            squares += (before(lr, scale) - hr).double().square().sum().item()
    assert loss == pytest.approx(squares / (2 * 128), rel=1e-4)


def test_dsrn_trains_on_reduced_copies_too(tmp_path, pictures):
    path = pictures / "0.png"
    recipe = load_recipe("dsrn", "paper", {"crop": 8, "augment": False})
    sampler = CropSampler([path], recipe, "y", CPU, seed=1)
    luma = rgb_to_y_uint8(np.array(Image.open(path)))
    copies = [imresize(luma, factor) for factor in (0.5, 0.6, 0.7, 0.8, 0.9)] + [luma]
    assert [max(each.shape) for each in copies] == [35, 42, 49, 56, 63, 70]
    windows = [
        np.lib.stride_tricks.sliding_window_view(each, (8, 8)) for each in copies
    ]
    _, crops = sampler.draw(2, 240)
    found = set()
    for crop in np.rint(crops[:, 0].numpy() * 255):
        there = [n for n, w in enumerate(windows) if (w == crop).all((2, 3)).any()]
        assert there
        found.update(there)
    assert found == set(range(6))


def test_mrnet_trains_one_scale_a_step_and_leaves_the_other_heads(trainer):
    config = {"width": 4, "blocks": 1, "recursions": [2, 3, 4]}
    run = trainer("mrnet", config=config)
    drawn = spy(run.sampler)
    scales = []
    for _ in range(16):
        heads = {
            scale: [
                p.detach().clone() for p in run.model.heads[str(scale)].parameters()
            ]
            for scale in (2, 3, 4)
        }
        run.train_step()
        ((scale, lr, _),) = drawn  # one draw
        assert len(lr) == 4
        drawn.clear()
        scales.append(scale)
        moved = {
            each
            for each, values in heads.items()
            for value, parameter in zip(
                values, run.model.heads[str(each)].parameters(), strict=True
            )
            if not torch.equal(value, parameter)
        }
        assert moved == {scale}
    assert set(scales) == {2, 3, 4}
    # At random, not in turn.
    assert len(set(itertools.pairwise(scales))) > 3


def test_rrrn_averages_the_l1_losses_of_its_four_pictures(trainer):
    run = trainer("rrrn")
    drawn = spy(run.sampler)
    before = copy.deepcopy(run.model)
    loss = float(run.train_step())
    ((scale, lr, hr),) = drawn
    with torch.no_grad():
        images = before.predictions(lr, scale)
    assert len(images) == 4
    each = [(image - hr).abs().double().mean().item() for image in images]
    assert len({round(value, 6) for value in each}) == 4
    assert loss == pytest.approx(sum(each) / 4, rel=1e-5)


# Twenty steps leave at most so much of the loss of crops that are not trained on: DSRN
# starts near the bicubic picture, Adam moves MRNet's and RRRN's weights by 1e-4 a step.
@pytest.mark.parametrize(
    ("model", "share", "runs"),
    [
        ("drcn", 0.5, 1), ("drrn", 0.5, 1), ("dsrn", 0.97, 2), ("mrnet", 0.97, 1),
        ("rrrn", 0.98, 1),
    ],
)  # fmt: skip
def test_twenty_steps_lower_the_loss(trainer, model, share, runs):
    before = after = 0.0
    for seed in range(runs):
        run = trainer(model, seed)
        probe = trainer(model, 99).sampler
        crops = [(scale, *probe.draw(scale, 8)) for scale in run.recipe.scales]
        before += loss_of(run, crops)
        losses = [float(run.train_step()) for _ in range(20)]
        assert np.isfinite(losses).all()
        after += loss_of(run, crops)
    assert after < share * before


def test_variants_are_trained_as_their_network():
    for name in variant_names():
        network, config = variant(name)
        own, paper = load_recipe(name, "paper"), load_recipe(network.arch, "paper")
        same = dataclasses.replace(paper, model=name, scales=config.scales)
        assert own == same
