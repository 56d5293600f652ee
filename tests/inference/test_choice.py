"""Noisy and blurred pictures: which weights make which pass."""

from __future__ import annotations

import numpy as np
import pytest

from srcli.errors import UsageError, WeightsError
from srcli.imaging.files import Picture
from srcli.imaging.resize import imresize
from srcli.inference.sizes import plan_steps
from srcli.inference.upscaler import Upscaler, upscale
from srcli.pretrained import catalog
from srcli.pretrained.weight_file import save_weights

CPU = {"device": "cpu", "precision": "fp32", "tile": 0}


@pytest.mark.parametrize(
    ("factor", "later", "steps"),
    [
        (1, (2, 3, 4), (3,)),
        (3.01, (2, 3, 4), (3, 2)),
        (8, (2, 4), (3, 4)),
        (8, (2,), (3, 2, 2)),
        (2, (), (3,)),
    ],
)
def test_the_first_step_can_be_given(factor, later, steps):
    assert plan_steps(factor, later, first=(3,)) == steps


def test_a_factor_that_one_pass_does_not_reach_needs_more_networks():
    with pytest.raises(UsageError, match="enlarges by 4"):
        plan_steps(4, (), first=(3,))


def test_noisy_pictures_are_cleaned_once_and_then_enlarged(picture, shelf):
    pixels = picture(7, 9)
    clean = upscale(pixels, shelf.networks["3dn"], 3, **CPU)
    left = upscale(pixels, shelf.networks["3bi"], 3, **CPU)
    assert np.count_nonzero(clean != left) > 100

    def enlarge(scale):
        return upscale(pixels, "rrrn", scale, degradation="dn", **CPU)

    np.testing.assert_array_equal(enlarge(None), clean)
    np.testing.assert_array_equal(enlarge(2), imresize(clean, size=(14, 18)))
    larger = upscale(clean, shelf.networks["2bi"], 2, **CPU)
    np.testing.assert_array_equal(enlarge(6), larger)
    np.testing.assert_array_equal(enlarge(4), imresize(larger, size=(28, 36)))
    largest = upscale(clean, shelf.networks["3bi"], 3, **CPU)
    np.testing.assert_array_equal(enlarge(8), imresize(largest, size=(56, 72)))


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("options", "description"),
    [
        ({}, "rrrn dn x3"),
        ({"scale": 2}, "rrrn dn x3, then bicubic to 24x20"),
        ({"scale": 8}, "rrrn dn x3, then rrrn x3, then bicubic to 96x80"),
        ({"width": 48}, "rrrn dn x3, then rrrn x2, then bicubic to 48x40"),
        ({"scale": 3, "degradation": "bi"}, "rrrn x3"),
    ],
)
def test_the_passes_are_described(options, description):
    upscaler = Upscaler("RRRN", **{"degradation": "dn", **options, **CPU})
    assert upscaler.describe(10, 12) == description


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize("options", [{}, {"width": 20}])
def test_a_model_without_such_weights_names_one_that_has_them(options):
    with pytest.raises(WeightsError, match="rrrn has: use -m rrrn"):
        Upscaler("mrnet", degradation="dn", device="cpu", **options)
    with pytest.raises(WeightsError, match="degradation=bd"):
        Upscaler("rrrn", degradation="bd", device="cpu", **options)


@pytest.mark.usefixtures("shelf")
def test_what_makes_no_sense_with_a_degradation():
    with pytest.raises(UsageError, match="bicubic is the same for every degradation"):
        Upscaler("bicubic", 2, degradation="dn")
    assert Upscaler("bicubic", 2, degradation="bi").plan(5, 5) == ()
    with pytest.raises(UsageError, match="unknown degradation 'db'"):
        Upscaler("rrrn", degradation="db", device="cpu")
    with pytest.raises(UsageError, match="did you mean mrnet"):
        Upscaler("mrnett", degradation="dn", device="cpu")


def test_weights_that_are_listed_but_not_here(shelf):
    (shelf.folder / "2bi.safetensors").unlink()
    upscaler = Upscaler("rrrn", 4, degradation="dn", **CPU)
    assert upscaler.plan(5, 5) == (3, 3)
    (shelf.folder / "3bi.safetensors").unlink()
    with pytest.raises(WeightsError, match="srcli download rrrn"):
        Upscaler("rrrn", 4, degradation="dn", **CPU)
    (shelf.folder / "3dn.safetensors").unlink()
    for options in ({}, {"scale": 2}, {"width": 20}):
        with pytest.raises(WeightsError, match=r"3dn\.safetensors are not installed"):
            Upscaler("rrrn", degradation="dn", **options, **CPU)


# Weight files


def test_a_weight_file_says_what_it_is_for(picture, shelf, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    own = save_rrrn(path, 3, "dn")
    for options in ({}, {"degradation": "dn"}):
        upscaler = Upscaler(weights=path, **options, **CPU)
        assert (upscaler.scale, upscaler.degradation) == (3, "dn")
        assert upscaler.describe(5, 5) == "mine x3"
    pixels = picture(6, 5)
    expected = upscale(upscale(pixels, own, 3, **CPU), shelf.networks["2bi"], 2, **CPU)
    upscaler = Upscaler(path, 6, **CPU)
    np.testing.assert_array_equal(upscaler(Picture(pixels)).pixels, expected)
    assert upscaler.describe(6, 5) == "mine x3, then rrrn x2"


@pytest.mark.parametrize(("made_for", "named"), [("dn", "bi"), ("bd-bicubic", "dn")])
def test_a_file_for_another_degradation_is_refused(
    made_for, named, tmp_path, save_rrrn
):
    path = tmp_path / "mine.safetensors"
    save_rrrn(path, 3, made_for)
    said = f"is for degradation {made_for.removesuffix('-bicubic')}, not {named}"
    with pytest.raises(UsageError, match=said):
        Upscaler(weights=path, degradation=named, device="cpu")
    # One for the blur with bicubic is one for the blur.
    known = Upscaler(path, degradation=None, device="cpu").degradation
    assert known == made_for.removesuffix("-bicubic")


@pytest.mark.parametrize("recipe", [None, "[]", "{}"])
def test_a_file_that_says_nothing_is_what_the_user_says(recipe, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    network = save_rrrn(path)
    save_weights(network, path, {} if recipe is None else {"recipe": recipe})
    assert Upscaler(path, **CPU).degradation == "bi"
    # An ordinary network may go on by itself.
    assert Upscaler(path, 8, **CPU).describe(5, 5) == (
        "mine x3, then mine x3, then bicubic to 40x40"
    )
    if recipe != "{}":  # a recipe that does not say is for the usual
        assert Upscaler(path, degradation="dn", **CPU).degradation == "dn"


def test_enlarging_further_needs_ordinary_weights(
    picture, tmp_path, monkeypatch, save_rrrn
):
    path = tmp_path / "mine.safetensors"
    save_rrrn(path, 3, "dn")
    monkeypatch.setattr(catalog, "manifest", tuple)
    message = "mine makes the first pass, x3; .* use -x 3 or less"
    with pytest.raises(WeightsError, match=message):
        Upscaler(path, 4, **CPU)
    wide = Upscaler(path, width=30, **CPU)
    assert wide(Picture(picture(8, 10))).pixels.shape == (24, 30, 3)
    with pytest.raises(WeightsError, match=message):
        wide(Picture(picture(8, 9)))


def test_files_that_are_no_weights(tmp_path):
    path = tmp_path / "mine.safetensors"
    # What the system says of such a name is told, or taken for a file that is missing.
    for missing in (path, tmp_path / f"{'a' * 300}.safetensors"):
        with pytest.raises(WeightsError, match=r"cannot read .*long|no weight file at"):
            Upscaler(missing, device="cpu")
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="no readable safetensors"):
        Upscaler(weights=path, degradation="dn", device="cpu")


def test_a_network_may_be_called_made_for_noise(picture, shelf, tmp_path, save_rrrn):
    own, pixels = save_rrrn(tmp_path / "mine.safetensors"), picture(6, 5)
    upscaler = Upscaler(own, 6, degradation="dn", **CPU)
    assert upscaler.describe(6, 5) == "rrrn dn x3, then rrrn x2"
    expected = upscale(upscale(pixels, own, 3, **CPU), shelf.networks["2bi"], 2, **CPU)
    np.testing.assert_array_equal(upscaler(Picture(pixels)).pixels, expected)
