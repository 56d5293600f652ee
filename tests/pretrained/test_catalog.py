"""Weights: found, verified, loaded, refused."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from srcli.errors import OutputError, UsageError, WeightsError
from srcli.models import MODELS, variant
from srcli.models.counting import count_parameters
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained import catalog
from srcli.pretrained.catalog import WeightEntry, locate, manifest
from srcli.pretrained.loading import load_model
from srcli.pretrained.weight_file import read_weights, save_weights, sha256_of

SMALL = MRNetConfig(scales=(2, 4), width=4, blocks=1, recursions=(1, 2, 2))


@pytest.fixture
def network():
    return MRNet(SMALL)


@pytest.fixture
def weight_file(network, tmp_path):
    path = tmp_path / "small.safetensors"
    save_weights(network, path, {"steps": "12"})
    return path


@pytest.fixture
def entry(weight_file, network, monkeypatch, tmp_path):
    """A manifest of one entry, `mrnet-s`, whose file lies in the user's cache."""
    cache = tmp_path / "cache"
    (cache / "weights").mkdir(parents=True)
    weight_file.rename(cache / "weights" / weight_file.name)
    path = cache / "weights" / weight_file.name
    made = WeightEntry(
        file=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        model="mrnet-s",
        arch="mrnet",
        scales=(2, 4),
        config=SMALL.as_dict(),
        parameters=count_parameters(network),
        data="none",
        data_licence="none",
        recipe="none",
        steps=12,
    )
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(cache))
    monkeypatch.setattr(catalog, "manifest", lambda: (made,))
    return made


def test_saved_weights_load_to_an_equal_network(weight_file, network):
    loaded = read_weights(weight_file)
    assert loaded.config == SMALL
    assert not loaded.training
    lr = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        assert torch.equal(loaded(lr, 4), network(lr, 4))


def test_half_precision_files_load_as_float32(network, tmp_path):
    path = tmp_path / "half.safetensors"
    save_weights(network, path, dtype=torch.float16)
    loaded = read_weights(path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("arch", MODELS)
def test_every_network_survives_the_round_trip(arch, tmp_path):
    model_class, config = variant(arch, 2)
    small = dataclasses.replace(config, width=8)
    torch.manual_seed(1)
    network = model_class(small).eval()
    path = tmp_path / f"{arch}.safetensors"
    save_weights(network, path)
    loaded = read_weights(path)
    assert loaded.config == small
    lr = torch.rand(1, network.channels, 6, 5)
    with torch.no_grad():
        assert torch.equal(loaded(lr, 2), network(lr, 2))


def test_cached_weights_are_found_by_name_and_scale(entry):
    assert load_model("mrnet-s", 4).config == SMALL
    assert load_model("MRNet-S").config == SMALL
    assert catalog.served_scales("mrnet-s", installed=True) == (2, 4)


def test_wrong_hash_is_refused(entry):
    path = locate(entry)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        load_model("mrnet-s", 4)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x10" * 64])
def test_files_that_are_no_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"no readable safetensors|is empty"):
        read_weights(path)


def test_cut_file_is_refused(weight_file):
    weight_file.write_bytes(weight_file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="no readable safetensors"):
        read_weights(weight_file)


def test_foreign_files_and_wrong_shapes_are_refused(network, tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="which network"):
        read_weights(path)
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    wrong = {"arch": "mrnet", "config": json.dumps({**SMALL.as_dict(), "width": 8})}
    save_file(state, path, wrong)
    with pytest.raises(WeightsError, match="do not fit"):
        read_weights(path)
    unknown = {"arch": "mrnet", "config": json.dumps({"depth": 8})}
    save_file(state, path, unknown)
    with pytest.raises(WeightsError, match="config"):
        read_weights(path)


@pytest.mark.parametrize("arch", ["dsrn", "rrrn", "drrn"])
def test_weights_of_fewer_recursions_run_as_many(arch, tmp_path):
    model_class, config = variant(arch, 2)
    network = model_class(dataclasses.replace(config, width=4)).eval()
    network.limit_recursions(1)
    path = tmp_path / "shallow.safetensors"
    save_weights(network, path)
    loaded = read_weights(path)
    assert loaded.recursion_limit == 1
    lr = torch.rand(1, network.channels, 6, 5)
    with torch.no_grad():
        assert torch.equal(loaded(lr, 2), network(lr, 2))


@pytest.mark.parametrize(
    "metadata",
    [
        {"config": "[]"},
        {"config": "3"},
        {"config": "{"},
        {"config": json.dumps({**SMALL.as_dict(), "width": "wide"})},
        {"config": json.dumps({**SMALL.as_dict(), "fusion_kernel": 2})},
        {"config": json.dumps(SMALL.as_dict()), "recursions": "0"},
        {"config": json.dumps(SMALL.as_dict()), "recursions": "all"},
    ],
)
def test_metadata_that_make_no_network_are_refused(network, tmp_path, metadata):
    path = tmp_path / "x.safetensors"
    save_file(network.state_dict(), path, {"arch": "mrnet", **metadata})
    with pytest.raises(WeightsError, match="unreadable config"):
        read_weights(path)


def test_values_that_are_no_numbers_are_refused(network, tmp_path):
    with torch.no_grad():
        network.recurse.encode.bias[0] = float("nan")
    path = tmp_path / "nan.safetensors"
    save_weights(network, path)
    with pytest.raises(WeightsError, match="no numbers"):
        read_weights(path)


def test_counters_stay_whole_numbers_in_half_precision(tmp_path):
    model_class, config = variant("drrn-batch", 2)
    network = model_class(dataclasses.replace(config, width=4, units=1))
    counter = "reconstruct.norm.num_batches_tracked"
    network.get_buffer(counter).fill_(70001)  # no fp16 number
    path = tmp_path / "batch.safetensors"
    save_weights(network, path, dtype=torch.float16)
    assert read_weights(path).get_buffer(counter) == 70001


def test_a_file_that_cannot_be_read_is_a_weights_error(entry, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(WeightsError, match="Permission denied"):
        load_model("mrnet-s", 4)


def test_missing_weights_say_what_to_do(entry, tmp_path):
    with pytest.raises(WeightsError, match="no weights are bundled yet"):
        load_model("drcn", 2)
    with pytest.raises(WeightsError, match="trained: x2, x4"):
        load_model("mrnet-s", 3)
    locate(entry).unlink()
    with pytest.raises(WeightsError, match="srcli download mrnet-s"):
        load_model("mrnet-s", 4)
    with pytest.raises(WeightsError, match="no weight file"):
        load_model(tmp_path / "gone.safetensors")


def test_unknown_names_and_scales_are_usage_errors(entry, tmp_path):
    with pytest.raises(UsageError, match="did you mean mrnet"):
        load_model("mrnett", 4)
    with pytest.raises(UsageError, match="not 5"):
        load_model("mrnet-s", 5)
    with pytest.raises(UsageError, match="unknown degradation 'dm': did you mean dn"):
        load_model("mrnet-s", 4, degradation="dm")


@pytest.fixture
def for_noise(entry, monkeypatch):
    """The same file once more, said to be DRRN's for x2 with noise."""
    made = dataclasses.replace(entry, model="drrn", scales=(2,), degradation="dn")
    monkeypatch.setattr(catalog, "manifest", lambda: (entry, made))
    return made


def test_weights_are_found_by_degradation(for_noise):
    assert catalog.served_scales("drrn", "dn") == (2,)
    assert catalog.served_scales("mrnet-s") == (2, 4)
    assert catalog.find_entry("drrn", 2, "dn") is for_noise
    assert load_model("drrn", degradation="dn").config == SMALL
    locate(for_noise).unlink()
    assert catalog.served_scales("drrn", "dn", installed=True) == ()
    assert catalog.served_scales("DRRN", "dn") == (2,)
    with pytest.raises(WeightsError, match="srcli download drrn"):
        load_model("drrn", degradation="dn")


def test_a_missing_degradation_names_the_models_that_have_it(for_noise, monkeypatch):
    def refusal(model, scale, degradation):
        with pytest.raises(WeightsError) as caught:
            load_model(model, scale, degradation=degradation)
        return str(caught.value)

    expected = "mrnet-s has no weights for dn; drrn has: use -m drrn"
    assert refusal("MRNet-S", 4, "dn") == expected
    assert refusal("mrnet-s", None, "dn") == expected
    assert "no weights for drrn x4 dn (trained: x2 dn)" in refusal("drrn", 4, "dn")
    assert refusal("drrn", 2, "bd") == (
        "drrn has no weights for bd; nor has any other model: "
        "`srcli train -m drrn -x 3 --set degradation=bd` makes your own"
    )
    also = dataclasses.replace(for_noise, model="dsrn")
    monkeypatch.setattr(catalog, "manifest", lambda: (for_noise, also))
    assert refusal("mrnet", 2, "dn").endswith("dn; drrn, dsrn have: use -m drrn")


def test_weights_appear_whole_or_not_at_all(network, tmp_path):
    with pytest.raises(OutputError):
        save_weights(network, tmp_path / "none" / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_weights(network, tmp_path / "file" / "x.safetensors")


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
    assert network.arch == listed.arch
    assert (
        network.config.as_dict()
        == type(network.config).from_dict(listed.config).as_dict()
    )
    assert network.config.scales == listed.scales
    assert count_parameters(network) == listed.parameters
