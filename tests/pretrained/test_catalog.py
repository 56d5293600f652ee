"""The catalogue: which weights serve what, verified, loaded, or said to be missing."""

import dataclasses

import pytest

from srcli.errors import UsageError, WeightsError
from srcli.models.counting import count_parameters
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained import catalog
from srcli.pretrained.catalog import (
    find_entry,
    locate,
    manifest,
    served_scales,
)
from srcli.pretrained.loading import load_model
from srcli.pretrained.weight_file import read_weights, save_weights

SMALL = MRNetConfig(scales=(2, 4), width=4, blocks=1, recursions=(1, 2, 2))


@pytest.fixture
def entries(tmp_path, monkeypatch, make_entry):
    """A manifest of one file in the cache: as `mrnet-s`, and as DRRN for noise."""
    path = tmp_path / "weights" / "small.safetensors"
    path.parent.mkdir()
    save_weights(MRNet(SMALL), path)
    own = make_entry(path.name, path.read_bytes(), "mrnet-s", scales=(2, 4))
    noise = dataclasses.replace(own, model="drrn", scales=(2,), degradation="dn")
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path))
    listed = [own, noise]
    monkeypatch.setattr(catalog, "manifest", lambda: tuple(listed))
    return listed


@pytest.mark.usefixtures("entries")
def test_weights_are_found_by_name_scale_and_degradation():
    assert load_model("mrnet-s", 4).config == SMALL
    assert load_model("MRNet-S").config == SMALL
    assert load_model("drrn", degradation="dn").config == SMALL
    assert served_scales("mrnet-s", installed=True) == (2, 4)
    assert served_scales("DRRN", "dn") == (2,)
    assert served_scales("drrn") == ()


def test_weights_that_are_here_come_before_those_that_are_not(entries):
    entries.insert(0, dataclasses.replace(entries[0], file="gone", scales=(3,)))
    assert find_entry("mrnet-s").scales == (2, 4)
    assert find_entry("mrnet-s", 3).file == "gone"
    assert served_scales("mrnet-s") == (2, 3, 4)
    assert served_scales("mrnet-s", installed=True) == (2, 4)


def test_the_weights_of_another_file_are_refused(entries):
    path = locate(entries[0])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_model("mrnet-s", 4)
    path.unlink()
    with pytest.raises(WeightsError, match="srcli download mrnet-s"):
        load_model("mrnet-s", 4)


@pytest.mark.parametrize(
    ("model", "scale", "degradation", "said"),
    [
        ("drcn", 2, "bi", "no weights are bundled yet"),
        ("mrnet-s", 3, "bi", r"mrnet-s x3 \(trained: x2, x4\)"),
        ("drrn", 4, "dn", r"drrn x4 dn \(trained: x2 dn\)"),
        ("MRNet-S", 4, "dn", "mrnet-s has no weights for dn; drrn has: use -m drrn"),
        ("mrnet-s", None, "dn", "mrnet-s has no weights for dn; drrn has"),
        ("drrn", 2, "bd", "srcli train -m drrn -x 3 --set degradation=bd"),
    ],
)
@pytest.mark.usefixtures("entries")
def test_missing_weights_say_what_to_do(model, scale, degradation, said):
    with pytest.raises(WeightsError, match=said):
        load_model(model, scale, degradation=degradation)


@pytest.mark.usefixtures("entries")
def test_unknown_names_and_scales_are_usage_errors():
    with pytest.raises(UsageError, match="did you mean mrnet"):
        load_model("mrnett", 4)
    with pytest.raises(UsageError, match="not 5"):
        load_model("mrnet-s", 5)
    with pytest.raises(UsageError, match="did you mean dn"):
        load_model("mrnet-s", 4, degradation="dm")


def test_damaged_manifest_is_a_weights_error(tmp_path, monkeypatch):
    path = tmp_path / "weights_manifest.json"
    path.write_text("{")
    monkeypatch.setattr(catalog, "manifest_path", lambda: path)
    manifest.cache_clear()
    try:
        with pytest.raises(WeightsError, match="damaged"):
            manifest()
    finally:
        manifest.cache_clear()


@pytest.mark.parametrize("listed", manifest(), ids=lambda e: e.file)
def test_bundled_files_are_what_the_manifest_says(listed):
    path = locate(listed)
    assert path is not None
    assert path.stat().st_size == listed.bytes
    network = read_weights(path, listed)
    config = network.config
    assert network.arch == listed.arch
    assert config.as_dict() == type(config).from_dict(listed.config).as_dict()
    assert config.scales == listed.scales
    assert count_parameters(network) == listed.parameters
