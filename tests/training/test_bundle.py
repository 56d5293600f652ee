"""Bundling: the file, its manifest entry, and what is not replaced."""

import json

import pytest
import torch
from PIL import Image

from srcli.errors import UsageError
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained import catalog
from srcli.pretrained.catalog import manifest, read_weights, save_weights
from srcli.training import bundle
from srcli.training.bundle import Provenance, bundle_weights


@pytest.fixture
def house(tmp_path, picture, monkeypatch):
    """An installation of its own, and a folder of pictures to measure on."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(picture(24, 24)).save(pictures / "a.png")
    package = tmp_path / "package"
    package.mkdir()
    path = package / "weights_manifest.json"
    path.write_text('{"weights": []}')
    for module in (catalog, bundle):
        monkeypatch.setattr(module, "bundled_folder", lambda: package)
        monkeypatch.setattr(module, "manifest_path", lambda: path)
    manifest.cache_clear()
    yield package
    manifest.cache_clear()


def weights(folder, scale, seed, recursions=None):
    torch.manual_seed(seed)
    network = MRNet(MRNetConfig(scales=(scale,), width=4, blocks=1))
    network.limit_recursions(recursions)
    path = folder / f"run-{scale}-{seed}.safetensors"
    save_weights(network, path, {"steps": "7", "recipe_hash": "abc"})
    return path


def bundled(house, path):
    provenance = Provenance(model="mrnet-s", data="none", data_licence="none")
    return bundle_weights(path, provenance, datasets=(str(house.parent / "pictures"),))


def test_one_scale_networks_get_a_file_for_each_scale(house, tmp_path):
    entries = [bundled(house, weights(tmp_path, scale, 1)) for scale in (2, 4)]
    assert [entry.file for entry in entries] == [
        "mrnet-s_x2.safetensors",
        "mrnet-s_x4.safetensors",
    ]
    assert [listed.sha256 for listed in manifest()] == [e.sha256 for e in entries]
    for entry in entries:
        network = read_weights(house / entry.file, entry)
        assert network.config.scales == entry.scales
        assert set(entry.psnr["pictures"]) == {str(s) for s in entry.scales}
    assert (entries[0].steps, entries[0].recipe) == (7, "abc")
    assert {path.suffix for path in house.iterdir()} == {".json", ".safetensors"}


def test_a_file_that_measures_better_stays(house, tmp_path):
    entry = bundled(house, weights(tmp_path, 2, 1))
    path = house / "weights_manifest.json"
    document = json.loads(path.read_text())
    document["weights"][0]["psnr"]["pictures"]["2"] = 99.0
    path.write_text(json.dumps(document))
    manifest.cache_clear()
    before = (house / entry.file).read_bytes()
    with pytest.raises(UsageError, match=r"stays: it has 99\.000 dB"):
        bundled(house, weights(tmp_path, 2, 2))
    assert (house / entry.file).read_bytes() == before


def test_the_recursion_limit_travels_along(house, tmp_path):
    entry = bundled(house, weights(tmp_path, 2, 1, recursions=2))
    assert read_weights(house / entry.file, entry).recursion_limit == 2
