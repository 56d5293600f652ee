"""Recipes: the bundled ones, overriding, schedules at their corners."""

import dataclasses
import json
import math
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
# For every field a recipe in which it matters, the field as --set gives it, and as the
# recipe holds it.
MRNET = (
    "mrnet scales=[2] batch=2 crop=6 steps=6 warmup=0 rate_batch=0 ema=0.9 clip=none "
    "recursions=[] config.width=4 config.blocks=1 config.recursions=[2,2,2]"
)
DRCN = (
    "drcn batch=2 crop=6 steps=6 warmup=0 rate_batch=0 alpha=0.5 recursions=[] "
    "config.width=4 config.recursions=3"
)
STEPPED = f"{MRNET} schedule=step decay_every=2"
CLIPPED = f"{MRNET} optimizer=sgd learning_rate=1 clip=norm clip_at=0.01"
OVERRIDES = {
    "config": (
        MRNET,
        "config.width=6",
        {"width": 6, "blocks": 1, "recursions": [2] * 3},
    ),
    "scales": (MRNET, "scales=[4]", (4,)),
    "scale_mode": (f"{MRNET} scales=[2,4]", "scale_mode=all", "all"),
    "scale_odds": (f"{MRNET} scales=[2,4]", "scale_odds=[1,99]", (1.0, 99.0)),
    "degradation": (f"{MRNET} scales=[3]", "degradation=bd", "bd"),
    "steps": (MRNET, "steps=7", 7),
    "minutes": (MRNET, "minutes=9", 9.0),
    "batch": (MRNET, "batch=3", 3),
    "crop": (MRNET, "crop=7", 7),
    "crop_of": (MRNET, "crop_of=hr", "hr"),
    "augment": (MRNET, "augment=false", False),
    "rescale": (MRNET, "rescale=[0.5, 0.75]", (0.5, 0.75)),
    "optimizer": (MRNET, "optimizer=sgd", "sgd"),
    "learning_rate": (MRNET, "learning_rate=0.25", 0.25),
    "rate_batch": (MRNET, "rate_batch=1", 1),
    "momentum": (MRNET, "momentum=0.5", 0.5),
    "beta2": (MRNET, "beta2=0.9", 0.9),
    "weight_decay": (MRNET, "weight_decay=0.5", 0.5),
    "schedule": (MRNET, "schedule=constant", "constant"),
    "warmup": (MRNET, "warmup=3", 3),
    "decay_every": (STEPPED, "decay_every=1", 1),
    "decay_factor": (STEPPED, "decay_factor=0.25", 0.25),
    "final_rate": (MRNET, "final_rate=0.5", 0.5),
    "clip": (CLIPPED, "clip=value", "value"),
    "clip_at": (CLIPPED, "clip_at=0.02", 0.02),
    "loss": (MRNET, "loss=l2", "l2"),
    "reduction": (MRNET, "reduction=sum", "sum"),
    "supervision": (DRCN, "supervision=mean", "mean"),
    "alpha": (DRCN, "alpha=0.75", 0.75),
    "alpha_steps": (DRCN, "alpha_steps=3", 3),
    "ema": (MRNET, "ema=0", 0.0),
    "recursions": (MRNET, "recursions=[[0, 1]]", ((0.0, 1),)),
}
# These change no step: what is said of the pictures, and when a run looks up or ends.
SILENT_OVERRIDES = {
    "data": ("data=my own", "my own"),
    "data_licence": ("data_licence=CC0", "CC0"),
    "datasets": ("datasets=t91", ("t91",)),
    "min_rate": ("min_rate=1e-9", 1e-9),
    "recompute": ("recompute=true", True),
    "validate_every": ("validate_every=9", 9),
    "checkpoint_every": ("checkpoint_every=9", 9),
}


@pytest.mark.parametrize("model", MODELS)
def test_every_network_has_both_recipes_and_pictures_that_can_be_downloaded(model):
    known = {data_set.name for data_set in public_sets()}
    for name in ("paper", "fast"):
        recipe = load_recipe(model, name)
        assert recipe.model == model
        # One file for all scales, or one scale a file.
        assert (len(recipe.scales) > 1) == variant(model)[0].multi_scale
        assert recipe.datasets
        assert set(recipe.datasets) <= known


@pytest.mark.parametrize("model", MODELS)
def test_fast_recipes_name_the_batch_of_their_rate(model):
    recipe = load_recipe(model, "fast")
    assert recipe.rate_batch == recipe.batch
    assert recipe.rate_for_batch == 1.0
    double = load_recipe(model, "fast", {"batch": 2 * recipe.batch})
    step = recipe.steps // 2
    assert double.learning_rate_at(step) == pytest.approx(
        2**0.5 * recipe.learning_rate_at(step)
    )


@pytest.mark.parametrize(
    ("optimizer", "batch", "growth"),
    [("sgd", 32, 2.0), ("sgd", 4, 0.25), ("adam", 64, 2.0), ("muon", 4, 0.5)],
)
def test_the_rate_grows_with_the_batch(optimizer, batch, growth):
    recipe = Recipe(
        model="drrn", optimizer=optimizer, batch=batch, rate_batch=16,
        learning_rate=0.1, schedule="step", decay_every=10, warmup=4,
    )  # fmt: skip
    rates = [recipe.learning_rate_at(step) for step in (1, 9, 10, 20)]
    assert rates == pytest.approx([growth * rate for rate in (0.05, 0.1, 0.05, 0.025)])


def test_steps_of_the_rate_fall_at_their_multiples():
    recipe = Recipe(
        model="mrnet", schedule="step", decay_every=3, decay_factor=0.1, warmup=2
    )
    rates = [recipe.learning_rate_at(step) / 1e-4 for step in range(7)]
    assert rates == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.1, 0.01])


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


def test_alpha_decays_to_zero_and_stays():
    recipe = Recipe(model="drcn", alpha=0.8, alpha_steps=10)
    assert recipe.alpha_at(0) == 0.8
    assert recipe.alpha_at(5) == pytest.approx(0.4)
    assert recipe.alpha_at(10) == recipe.alpha_at(1000) == 0.0


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


@pytest.mark.parametrize("name", SETTABLE)
def test_overriding_a_field_reaches_the_trainer_and_changes_what_it_does(
    three_steps, name
):
    silent = name in SILENT_OVERRIDES
    context, change, expected = (
        (MRNET, *SILENT_OVERRIDES[name]) if silent else OVERRIDES[name]
    )
    before, usual = three_steps(context)
    after, changed = three_steps(context, change)
    assert getattr(before.recipe, name) != expected
    assert getattr(after.recipe, name) == expected
    assert type(getattr(after.recipe, name)) is type(getattr(before.recipe, name))
    assert (usual == changed) == silent
    others = [other for other in FIELDS if other != name]
    for other in others:
        assert getattr(after.recipe, other) == getattr(before.recipe, other), other


def test_the_command_hands_every_override_on(run, tmp_path, picture):
    Image.fromarray(picture(40, 44)).save(tmp_path / "a.png")
    given = {
        **{name: (change, value) for name, (_, change, value) in OVERRIDES.items()},
        **SILENT_OVERRIDES,
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
        for misspelt in (name[:-1], f"{name}s", name.replace("_", "-") + "x"):
            with pytest.raises(UsageError, match=f"did you mean {name}\\?"):
                load_recipe("mrnet", "fast", {misspelt: 1})


@pytest.mark.parametrize(
    ("model", "assignment", "message"),
    [
        ("drcn", "config.recursion=2", "DRCNConfig field 'recursion': did you mean "
         "recursions"),
        ("drrn", "config.unit=3", "did you mean units"),
        ("dsrn", "config.step=3", "did you mean steps"),
        ("mrnet", "config.widht=8", "did you mean width"),
        ("rrrn", "config.sub_network=2", "did you mean sub_networks"),
        ("drrn", "config.norm=bach", "did you mean batch"),
        ("mrnet", "config.width=wide", "width takes int, not 'wide'"),
        ("mrnet", "config.width.x=1", "width takes int"),
        ("mrnet", "config.recursions=4", "recursions takes 3 values"),
    ],
)  # fmt: skip
def test_wrong_fields_of_the_network_are_named_like_the_recipes(
    model, assignment, message
):
    recipe = load_recipe(model, "fast", parse_assignments([assignment]))
    with pytest.raises(UsageError, match=message):
        make_network(recipe)


def test_overrides_add_to_the_config_of_a_recipe():
    recipe = load_recipe("drrn", "paper", parse_assignments(["config.width=8"]))
    assert recipe.config == {"norm": "batch", "width": 8}
    assert make_network(recipe).config.norm == "batch"
    affine = load_recipe("drrn", "paper", parse_assignments(["config.norm=affine"]))
    assert make_network(affine).config.norm == "affine"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("step=7", "did you mean steps"),
        ("loss=l3", "known: l1, l2"),
        ("steps=many", "steps takes int"),
        ("steps=true", "steps takes int"),
        ("steps=0", "at least 1"),
        ("learning_rate=nan", "positive"),
        ("scales=[2.5]", "scales takes int"),
        ("recursions=[1, 2]", "recursions takes 2 values"),
        ("recursions=[[0.0, 2.5]]", "recursions takes int"),
        ("recursions=[[0.0, 0]]", "at least 1"),
        ("recursions=[[0.0, 4], [0.5, 6], [0.2, 8]]", "both rising"),
        ("recursions=[[0.0, 4], [0.5, 2]]", "both rising"),
        ("recursions=[[0.0, 2], [1.5, 4]]", "from 0 to 1"),
        ("recursions=[[0.5, 4]]", "begins at share 0"),
        ("decay_factor=0", "decay_factor must be positive"),
        ("min_rate=0.1", "min_rate must not be above the learning rate"),
        ("rescale=[7]", "between 0.1 and 1"),
        ("rescale=[]", "between 0.1 and 1"),
        ("momentum=2", r"momentum must be in \[0, 1\)"),
        ("weight_decay=-1", "weight_decay must not be negative"),
        ("clip_at=nan", "clip_at must not be negative"),
        ("degradation=bd", "bd is defined for x3 only"),
        ("config.scales=[2]", "field of its own"),
        ("model=drrn", "--model names it"),
        ("scales=[2,2]", "names one twice"),
        ("scale_odds=[1,2]", "one figure for each scale"),
        ("scale_odds=[1,0,2]", "must be positive"),
        ("alpha=1.5", "alpha must not be above 1"),
        ("decay_factor=2", "decay_factor must not be above 1"),
        ("config=5", "config takes dict"),
        ("steps.x=1", "steps takes int"),
        ("rate_batch=-1", "rate_batch must not be negative"),
    ],
)
def test_wrong_overrides_are_usage_errors(assignment, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("mrnet", "fast", parse_assignments([assignment]))


def test_assignment_without_equals_is_a_usage_error():
    with pytest.raises(UsageError, match="key=value"):
        parse_assignments(["steps"])


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


@pytest.mark.parametrize("name", ["paper", "fast"])
def test_every_variant_has_a_recipe_that_fits_and_ends_at_full_depth(name):
    for variant_name in variant_names():
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
        limit = recipe.recursions_at(recipe.steps - 1)
        assert limit is None or limit >= deepest


def test_a_batch_is_divided_evenly_over_the_scales():
    recipe = Recipe(model="drrn", batch=128)
    assert recipe.divide_batch((2, 3, 4)) == {2: 43, 3: 43, 4: 42}
    assert recipe.divide_batch((3,)) == {3: 128}
    few = Recipe(model="drrn", batch=1)
    assert few.divide_batch((2, 4)) == {2: 1, 4: 1}


def test_fingerprint_changes_with_any_field():
    recipe = load_recipe("mrnet")
    same = make_recipe(recipe.as_dict())
    other = make_recipe({**recipe.as_dict(), "batch": recipe.batch + 1})
    assert same.fingerprint == recipe.fingerprint != other.fingerprint
    assert math.isclose(same.learning_rate, recipe.learning_rate)


def test_hr_crops_are_rounded_up_to_the_scale():
    recipe = Recipe(model="drrn", crop=31, crop_of="hr")
    assert [recipe.lr_crop(scale) for scale in (2, 3, 4)] == [16, 11, 8]
