"""Weight files: written, read to an equal network, refused where they are no such."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from srcli.errors import OutputError, WeightsError
from srcli.models import MODELS, variant
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.loading import read_file
from srcli.pretrained.weight_file import read_metadata, read_weights, save_weights

SMALL = MRNetConfig(scales=(2, 4), width=4, blocks=1, recursions=(1, 2, 2))


@pytest.fixture
def network():
    return MRNet(SMALL).eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(("arch", "limit"), [*((a, None) for a in MODELS), ("drrn", 1)])
def test_every_network_survives_the_round_trip(arch, limit, path):
    model_class, config = variant(arch, 2)
    small = dataclasses.replace(config, width=8)
    network = model_class(small).eval()
    if limit:
        network.limit_recursions(limit)
    save_weights(network, path, {"steps": "12"})
    loaded = read_weights(path)
    assert (loaded.config, loaded.recursion_limit) == (small, limit)
    assert not loaded.training
    assert read_metadata(path)["steps"] == "12"
    lr = torch.rand(1, network.channels, 6, 5)
    with torch.no_grad():
        assert torch.equal(loaded(lr, 2), network(lr, 2))


def test_half_precision_files_load_as_float32_and_counters_stay_whole(path):
    model_class, config = variant("drrn-batch", 2)
    network = model_class(dataclasses.replace(config, width=4, units=1))
    counter = "reconstruct.norm.num_batches_tracked"
    network.get_buffer(counter).fill_(70001)  # no fp16 number
    save_weights(network, path, dtype=torch.float16)
    loaded = read_weights(path)
    assert loaded.get_buffer(counter) == 70001
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", b"\x10" * 64, b"\x02" + bytes(7) + b"[]", b"\xff" * 8 + b"{}"],
)
def test_files_that_are_no_safetensors_are_refused(path, content):
    path.write_bytes(content)
    for read in (read_weights, read_file):
        with pytest.raises(WeightsError, match=r"no readable safetensors|is empty"):
            read(path)


def test_cut_and_missing_files_are_refused(network, path, monkeypatch):
    with pytest.raises(WeightsError, match="no weight file"):
        read_file(path)
    save_weights(network, path)
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(WeightsError, match="no readable safetensors"):
        read_file(path)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    path.write_bytes(data)
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(WeightsError, match="Permission denied"):
        read_file(path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({}, "which network"),
        ({"arch": "foonet", "config": "{}"}, "which network"),
        ({"config": "[]"}, "unreadable config"),
        ({"config": "{"}, "unreadable config"),
        ({"config": json.dumps({"depth": 8})}, "unreadable config"),
        ({"config": json.dumps({**SMALL.as_dict(), "width": "wide"})}, "unreadable"),
        ({"config": json.dumps({**SMALL.as_dict(), "fusion_kernel": 2})}, "unreadable"),
        ({"config": json.dumps({**SMALL.as_dict(), "width": 8})}, "do not fit"),
        ({"config": json.dumps(SMALL.as_dict()), "recursions": "0"}, "unreadable"),
        ({"config": json.dumps(SMALL.as_dict()), "recursions": "all"}, "unreadable"),
    ],
)
def test_metadata_that_make_no_network_are_refused(network, path, metadata, said):
    own = {"arch": "mrnet"} if metadata else {}
    save_file(network.state_dict(), path, {**own, **metadata})
    with pytest.raises(WeightsError, match=said):
        read_weights(path)


def test_values_that_are_no_numbers_are_refused(network, path):
    with torch.no_grad():
        network.recurse.encode.bias[0] = float("nan")
    save_weights(network, path)
    with pytest.raises(WeightsError, match="no numbers"):
        read_weights(path)


def test_weights_appear_whole_or_not_at_all(network, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("none", "file"):
        with pytest.raises(OutputError):
            save_weights(network, tmp_path / folder / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
