"""Recipes: the bundled ones, overriding, schedules at their corners."""

import dataclasses
import itertools
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from srcli.errors import InputError, UsageError
from srcli.models import MODELS, variant, variant_names
from srcli.pretrained.datasets import public_sets
from srcli.training.data import CropSampler
from srcli.training.loop import Trainer
from srcli.training.recipe import (
    Recipe,
    load_recipe,
    make_recipe,
    parse_assignments,
    replace_fields,
)
from srcli.training.run import make_network

FIELDS = [field.name for field in dataclasses.fields(Recipe)]
# --model names the model; what concerns teachers is in test_teacher.py.
SETTABLE = [n for n in FIELDS if n != "model" and not n.startswith("teacher_")]
MRNET = (
    "mrnet scales=[2] batch=2 crop=6 steps=6 warmup=0 rate_batch=0 ema=0.9 clip=none "
    "recursions=[] config.width=4 config.blocks=1 config.recursions=[2,2,2]"
)
DRCN = (
    "drcn batch=2 crop=6 steps=6 warmup=0 rate_batch=0 alpha=0.5 recursions=[] "
    "config.width=4 config.recursions=3"
)
# Recipes, and the fields that matter in each: as --set gives them, as the recipe holds
# them.
OVERRIDES = {
    MRNET: {
        "config.width=6": {"width": 6, "blocks": 1, "recursions": [2] * 3},
        "scales=[4]": (4,), "steps=7": 7, "minutes=9": 9.0, "batch=3": 3, "crop=7": 7,
        "crop_of=hr": "hr", "augment=false": False, "rescale=[0.5, 0.75]": (0.5, 0.75),
        "optimizer=sgd": "sgd", "learning_rate=0.25": 0.25, "rate_batch=1": 1,
        "momentum=0.5": 0.5, "beta2=0.9": 0.9, "weight_decay=0.5": 0.5,
        "schedule=constant": "constant", "warmup=3": 3, "final_rate=0.5": 0.5,
        "loss=l2": "l2", "reduction=sum": "sum", "ema=0": 0.0,
        "recursions=[[0, 1]]": ((0.0, 1),),
    },
    f"{MRNET} scales=[2,4]": {
        "scale_mode=all": "all", "scale_odds=[1,99]": (1.0, 99.0)
    },
    f"{MRNET} scales=[3]": {"degradation=bd": "bd"},
    f"{MRNET} schedule=step decay_every=2": {
        "decay_every=1": 1, "decay_factor=0.25": 0.25
    },
    f"{MRNET} optimizer=sgd learning_rate=1 clip=norm clip_at=0.01": {
        "clip=value": "value", "clip_at=0.02": 0.02
    },
    DRCN: {"supervision=mean": "mean", "alpha=0.75": 0.75, "alpha_steps=3": 3},
}  # fmt: skip
# These change no step: what is said of the pictures, and when a run looks up or ends.
SILENT_OVERRIDES = {
    "data=my own": "my own",
    "data_licence=CC0": "CC0",
    "datasets=t91": ("t91",),
    "min_rate=1e-9": 1e-9,
    "recompute=true": True,
    "validate_every=9": 9,
    "checkpoint_every=9": 9,
}


def name_of(change):
    return change.partition("=")[0].partition(".")[0]


def test_every_network_has_both_recipes_and_pictures_that_can_be_downloaded():
    known = {data_set.name for data_set in public_sets()}
    for model, name in itertools.product(MODELS, ("paper", "fast")):
        recipe = load_recipe(model, name)
        if name == "fast":
            assert recipe.rate_batch == recipe.batch
        assert recipe.model == model
        # One file for all scales, or one scale a file.
        assert (len(recipe.scales) > 1) == variant(model)[0].multi_scale
        assert recipe.datasets
        assert set(recipe.datasets) <= known


def test_the_rate_grows_with_the_batch():
    for optimizer, batch, growth in (
        ("sgd", 32, 2.0), ("sgd", 4, 0.25), ("adam", 64, 2.0), ("muon", 4, 0.5)
    ):  # fmt: skip
        recipe = Recipe(
            model="drrn", optimizer=optimizer, batch=batch, rate_batch=16,
            learning_rate=0.1, schedule="step", decay_every=10, warmup=4,
        )  # fmt: skip
        rates = [recipe.learning_rate_at(step) / growth for step in (1, 9, 10, 20)]
        assert rates == pytest.approx([0.05, 0.1, 0.05, 0.025])


def test_cosine_rises_falls_and_ends_where_it_should():
    recipe = Recipe(model="mrnet", steps=1100, warmup=100, learning_rate=0.2)
    assert recipe.learning_rate_at(0) == pytest.approx(0.002)
    assert recipe.learning_rate_at(99) == pytest.approx(0.2)
    assert recipe.learning_rate_at(600) == pytest.approx(0.1)
    assert recipe.learning_rate_at(1100) == pytest.approx(0.0, abs=1e-12)
    rates = [recipe.learning_rate_at(step) for step in range(100, 1100)]
    assert rates == sorted(rates, reverse=True)


def test_a_share_of_the_time_does_what_the_same_share_of_the_steps_would():
    steps = Recipe(
        model="mrnet", steps=1000, warmup=100, recursions=((0.0, 2), (0.5, 4))
    )
    timed = replace(steps, minutes=10.0)
    for share in (0.0, 0.05, 0.25, 0.5, 0.9, 1.0):
        place = timed.position(3, share * 600)
        assert place == pytest.approx(share * 1000)
        assert timed.learning_rate_at(place) == steps.learning_rate_at(place)
        assert timed.recursions_at(place) == (2 if share < 0.5 else 4)
    assert timed.learning_rate_at(timed.position(3, 700)) == pytest.approx(0, abs=1e-12)
    assert steps.position(3, 700) == 3
    # Steps that are asked for take the place of a time that a recipe has.
    assert replace_fields(timed.as_dict(), {"steps": 5}).get("minutes", 0) == 0


def test_recursions_rise_at_their_share_of_the_steps():
    recipe = Recipe(model="mrnet", steps=100, recursions=((0.0, 2), (0.45, 4)))
    assert [recipe.recursions_at(step) for step in (0, 44, 45, 99)] == [2, 2, 4, 4]
    assert Recipe(model="mrnet").recursions_at(5) is None


@pytest.fixture
def three_steps(tmp_path, picture):
    """A function that trains by an overridden recipe; returns trainer and outcome."""
    path = tmp_path / "a.png"
    Image.fromarray(picture(40, 44)).save(path)

    def train(context, *change):
        model, *assignments = context.split()
        overrides = parse_assignments([*assignments, *change])
        recipe = load_recipe(model, "fast", overrides)
        torch.manual_seed(7)
        network = make_network(recipe)
        sampler = CropSampler([path], recipe, network.color, torch.device("cpu"))
        trainer = Trainer(network, recipe, sampler, tmp_path / "run")
        losses = [float(trainer.train_step()) for _ in range(3)]
        values = trainer.average.values.values()
        return trainer, [*losses, *(float(value.double().sum()) for value in values)]

    return train


@pytest.mark.parametrize("context", [*OVERRIDES, "silent"])
def test_overriding_a_field_reaches_the_trainer_and_changes_what_it_does(
    three_steps, context
):
    silent = context == "silent"
    changes = SILENT_OVERRIDES if silent else OVERRIDES[context]
    context = MRNET if silent else context
    before, usual = three_steps(context)
    for change, expected in changes.items():
        after, changed = three_steps(context, change)
        found = getattr(after.recipe, name_of(change))
        assert found == expected != getattr(before.recipe, name_of(change))
        assert type(found) is type(expected), change
        assert (usual == changed) == silent, change
        others = {name_of(change): getattr(before.recipe, name_of(change))}
        assert replace(after.recipe, **others) == before.recipe


def test_the_command_hands_every_override_on(run, tmp_path, picture):
    Image.fromarray(picture(40, 44)).save(tmp_path / "a.png")
    every = {k: v for changes in OVERRIDES.values() for k, v in changes.items()}
    given = {name_of(k): (k, v) for k, v in {**every, **SILENT_OVERRIDES}.items()}
    given |= {
        "scales": ("scales=[3, 4]", (3, 4)),
        "degradation": ("degradation=bi", "bi"),
        "steps": ("steps=1", 1),
        "minutes": ("minutes=0", 0.0),
    }
    assert given.keys() == set(SETTABLE)
    small = [text for text in MRNET.split()[1:] if text.startswith("config")]
    changes = [*small, *(change for change, _ in given.values())]
    settings = [word for change in changes for word in ("--set", change)]
    out = tmp_path / "run"
    result = run(
        "train", "-m", "mrnet", "--data", tmp_path / "a.png", "--val", "none",
        "-o", out, "--device", "cpu", *settings,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe = make_recipe(json.loads((out / "recipe.json").read_text()))
    assert {name: getattr(recipe, name) for name in given} == {
        name: value for name, (_, value) in given.items()
    }


def test_a_misspelt_field_names_the_nearest():
    for name in FIELDS:
        with pytest.raises(UsageError, match=f"did you mean {name}\\?"):
            load_recipe("mrnet", "fast", {name[:-1]: 1})


def test_wrong_fields_of_the_network_are_named_like_the_recipes():
    for model, assignment, said in (
        ("drcn", "config.recursion=2", "'recursion': did you mean recursions"),
        ("drrn", "config.norm=bach", "did you mean batch"),
        ("mrnet", "config.width=wide", "width takes int, not 'wide'"),
        ("mrnet", "config.width.x=1", "width takes int"),
        ("mrnet", "config.recursions=4", "recursions takes 3 values"),
    ):
        recipe = load_recipe(model, "fast", parse_assignments([assignment]))
        with pytest.raises(UsageError, match=said):
            make_network(recipe)


def test_overrides_add_to_the_config_of_a_recipe():
    recipe = load_recipe("drrn", "paper", parse_assignments(["config.width=8"]))
    assert recipe.config == {"norm": "batch", "width": 8}
    assert make_network(recipe).config.norm == "batch"
    affine = load_recipe("drrn", "paper", parse_assignments(["config.norm=affine"]))
    assert make_network(affine).config.norm == "affine"


def test_wrong_overrides_are_usage_errors():
    for assignment, said in {
        "step=7": "did you mean steps",
        "loss=l3": "known: l1, l2",
        "steps=many": "steps takes int",
        "steps=true": "steps takes int",
        "steps=0": "steps must be positive",
        "learning_rate=nan": "positive",
        "batch=-2": "batch must be positive",
        "scales=[2.5]": "scales takes int",
        "recursions=[1, 2]": "recursions takes 2 values",
        "recursions=[[0.0, 0]]": "at least 1",
        "recursions=[[0.0, 4], [0.5, 6], [0.2, 8]]": "both rising",
        "recursions=[[0.0, 4], [0.5, 2]]": "both rising",
        "recursions=[[0.0, 2], [1.5, 4]]": "none above 1",
        "recursions=[[0.5, 4]]": "the first 0",
        "min_rate=0.1": "above the learning rate",
        "schedule=step": "needs decay_every",
        "rescale=[7]": "between 0.1 and 1",
        "rescale=[]": "between 0.1 and 1",
        "momentum=2": "in [0, 1)",
        "weight_decay=-1": "0 or more",
        "clip_at=nan": "0 or more",
        "degradation=bd": "bd is defined for x3 only",
        "config.scales=[2]": "field of its own",
        "model=drrn": "--model names it",
        "scales=[2,2]": "names one twice",
        "scale_odds=[1,2]": "one figure for each scale",
        "scale_odds=[1,0,2]": "must be positive",
        "alpha=1.5": "in [0, 1]",
        "decay_factor=2": "at most 1",
        "config=5": "config takes dict",
        "steps.x=1": "steps takes int",
        "steps": "key=value",
    }.items():
        with pytest.raises(UsageError) as caught:
            load_recipe("mrnet", "fast", parse_assignments([assignment]))
        assert said in str(caught.value), assignment


def test_recipe_files_are_read_and_named_when_wrong(tmp_path):
    good = tmp_path / "mine.toml"
    good.write_text('model = "drrn"\nsteps = 12\nscales = [2]\n')
    assert load_recipe("drrn", str(good)).steps == 12
    with pytest.raises(InputError, match=r"missing\.toml"):
        load_recipe("drrn", str(tmp_path / "missing.toml"))
    bad = tmp_path / "bad.toml"
    bad.write_text("steps = = 3")
    with pytest.raises(InputError, match="no valid TOML"):
        load_recipe("drrn", str(bad))
    with pytest.raises(UsageError, match="did you mean paper"):
        load_recipe("drrn", "papper")


def test_recipe_files_serve_variants_and_say_when_they_are_of_another_network(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('model = "mrnet"\nscales = [3]\n')
    assert load_recipe("mrnet-s", str(path)).scales == (3,)
    with pytest.raises(UsageError, match="is for mrnet, not for drrn"):
        load_recipe("drrn", str(path))
    path.write_text("steps = 5\n")
    assert load_recipe("drcn", str(path)).scales == (2,)


def test_every_variant_has_a_recipe_that_fits_and_ends_at_full_depth():
    for name, variant_name in itertools.product(("paper", "fast"), variant_names()):
        network, config = variant(variant_name)
        recipe = load_recipe(variant_name, name)
        assert (recipe.model, recipe.scales) == (variant_name, config.scales)
        for scale in (2, 3, 4):
            one = load_recipe(variant_name, name, {"scales": [scale]})
            values = {**config.as_dict(), **one.config, "scales": one.scales}
            assert network.config_class.from_dict(values).scales == (scale,)
        depths = ("recursions", "units", "steps", "sub_networks")
        depth = next(getattr(config, n) for n in depths if hasattr(config, n))
        deepest = max(depth) if isinstance(depth, tuple) else depth
        if (network.arch, name) == ("rrrn", "fast"):
            deepest = 1  # more gained nothing (docs/weights.md)
        limit = recipe.recursions_at(recipe.steps - 1)
        assert limit is None or limit >= deepest
