"""A run's weights beside bicubic and its own paper's row."""

import pytest
import torch
from PIL import Image

from srcli.errors import WeightsError
from srcli.evaluation.published import lookup
from srcli.models import variant
from srcli.pretrained.catalog import save_weights
from srcli.training.measure import make_request, measure_run
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network

TINY = {"config": {"width": 4, "units": 1}}


@pytest.fixture
def data_dir(tmp_path, picture):
    folder = tmp_path / "data" / "Set5"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(picture(24 + number, 30)).save(folder / f"{number}.png")
    return folder.parent


def weights(tmp_path, recipe):
    path = tmp_path / "best.safetensors"
    save_weights(make_network(recipe), path, {})
    return path


def test_every_scale_has_bicubic_and_the_run_in_fp32(tmp_path, data_dir):
    # Not the scales of the variant's paper, which leaves its name to the recipe.
    recipe = load_recipe("drrn-b1u9", "fast", {**TINY, "scales": [2, 4]})
    rows = measure_run(weights(tmp_path, recipe), recipe, "Set5", data_dir)
    assert [(row.model, row.dataset, row.scale) for row in rows] == [
        ("bicubic", "set5", 2),
        ("drrn-b1u9", "set5", 2),
        ("bicubic", "set5", 4),
        ("drrn-b1u9", "set5", 4),
    ]
    assert all(len(row.pictures) == 5 for row in rows)
    for row in rows[1::2]:
        assert row.precision == "fp32"
        assert row.paper == lookup("drrn-b1u9", "set5", row.scale)
    assert rows[1].paper != lookup("drrn", "set5", 2)
    assert rows[1].parameters < 2000  # the run's own network, not a bundled one


def test_request_repeats_the_degradation_and_the_device(tmp_path):
    recipe = load_recipe("mrnet", "fast", {"degradation": "bd", "scales": [3]})
    request = make_request(
        tmp_path / "w.safetensors", recipe, "set5", tmp_path, torch.device("cuda", 1)
    )
    assert request.selection.degradation == "bd"
    assert request.selection.scales == (3,)
    assert (request.engine.device, request.engine.precision) == ("cuda:1", "fp32")
    assert request.data_dir == tmp_path
    assert variant("mrnet")[0].arch in request.selection.models


@pytest.mark.parametrize("val", [None, "set14", "no-such-set", "own"])
def test_without_a_published_set_nothing_is_measured(tmp_path, data_dir, val):
    if val == "own":
        val = str(data_dir)  # a folder of pictures without a published name
    recipe = load_recipe("drrn", "fast", TINY)
    assert measure_run(tmp_path / "none.safetensors", recipe, val, data_dir) == []


def test_a_folder_that_is_a_published_set_counts_as_it(tmp_path, data_dir):
    recipe = load_recipe("drrn", "fast", {**TINY, "scales": [3]})
    path = weights(tmp_path, recipe)
    rows = measure_run(path, recipe, str(data_dir / "Set5"))
    assert [row.dataset for row in rows] == ["set5", "set5"]


def test_missing_weights_are_an_error(tmp_path, data_dir):
    recipe = load_recipe("drrn", "fast", TINY)
    with pytest.raises(WeightsError):
        measure_run(tmp_path / "none.safetensors", recipe, "set5", data_dir)
