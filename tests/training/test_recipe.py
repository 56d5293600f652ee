"""Recipes: the bundled ones, overriding, schedules at their corners."""

import math

import pytest

from srcli.errors import InputError, UsageError
from srcli.models import MODELS, variant, variant_names
from srcli.training.recipe import Recipe, load_recipe, make_recipe, parse_assignments


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["paper", "fast"])
def test_every_network_has_both_recipes(model, name):
    recipe = load_recipe(model, name)
    assert recipe.model == model
    model_class, _ = variant(model)
    # One file for all scales, or one scale a file.
    assert (len(recipe.scales) > 1) == model_class.multi_scale


def test_paper_recipes_say_what_the_papers_say():
    mrnet = load_recipe("mrnet", "paper")
    assert (mrnet.batch, mrnet.crop, mrnet.crop_of) == (16, 48, "lr")
    assert mrnet.learning_rate_at(0) == 1e-4
    assert mrnet.learning_rate_at(199_999) == 1e-4
    assert mrnet.learning_rate_at(200_000) == 5e-5
    assert mrnet.learning_rate_at(999_999) == pytest.approx(1e-4 / 16)
    drrn = load_recipe("drrn", "paper")
    assert drrn.learning_rate_at(10 * 6536 - 1) == 0.1
    assert drrn.learning_rate_at(10 * 6536) == 0.05
    assert (drrn.momentum, drrn.weight_decay, drrn.batch) == (0.9, 1e-4, 128)
    assert load_recipe("dsrn", "paper").clip_at == 0.5
    assert load_recipe("drcn", "paper").supervision == "recursive"
    rrrn = load_recipe("rrrn", "paper")
    assert rrrn.learning_rate_at(rrrn.steps - 1) == pytest.approx(1e-4 / 16)


def test_cosine_rises_falls_and_ends_where_it_should():
    recipe = Recipe(model="mrnet", steps=1100, warmup=100, learning_rate=0.2)
    assert recipe.learning_rate_at(0) == pytest.approx(0.002)
    assert recipe.learning_rate_at(99) == pytest.approx(0.2)
    assert recipe.learning_rate_at(600) == pytest.approx(0.1)
    assert recipe.learning_rate_at(1100) == pytest.approx(0.0, abs=1e-12)
    rates = [recipe.learning_rate_at(step) for step in range(100, 1100)]
    assert rates == sorted(rates, reverse=True)


def test_recursions_rise_at_their_share_of_the_steps():
    recipe = Recipe(model="mrnet", steps=100, recursions=((0.0, 2), (0.45, 4)))
    assert [recipe.recursions_at(step) for step in (0, 44, 45, 99)] == [2, 2, 4, 4]
    assert Recipe(model="mrnet").recursions_at(5) is None


def test_alpha_decays_to_zero_and_stays():
    recipe = Recipe(model="drcn", alpha=0.8, alpha_steps=10)
    assert recipe.alpha_at(0) == 0.8
    assert recipe.alpha_at(5) == pytest.approx(0.4)
    assert recipe.alpha_at(10) == recipe.alpha_at(1000) == 0.0


def test_overrides_reach_fields_and_the_model_config():
    overrides = parse_assignments(
        ["steps=7", "learning_rate=1", "loss=l2", "config.width=8", "scales=[2,4]"]
    )
    recipe = load_recipe("mrnet", "fast", overrides)
    assert (recipe.steps, recipe.loss, recipe.scales) == (7, "l2", (2, 4))
    assert isinstance(recipe.learning_rate, float)
    assert recipe.config == {"width": 8}


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
        ("recursions=[[0.5, 4], [0.2, 8]]", "both rising"),
        ("recursions=[[0.0, 4], [0.5, 2]]", "both rising"),
        ("recursions=[[1.5, 4]]", "from 0 to 1"),
        ("rescale=[7]", "between 0.1 and 1"),
        ("rescale=[]", "between 0.1 and 1"),
        ("momentum=2", r"momentum must be in \[0, 1\)"),
        ("weight_decay=-1", "weight_decay must not be negative"),
        ("clip_at=nan", "clip_at must not be negative"),
        ("degradation=bd", "bd is defined for x3 only"),
        ("config.scales=[2]", "field of its own"),
        ("model=drrn", "--model names it"),
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
@pytest.mark.parametrize("variant_name", variant_names())
def test_every_variant_has_a_recipe_that_fits_and_ends_at_full_depth(
    variant_name, name
):
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
