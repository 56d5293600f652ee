"""Bundling: an export beside the code, its manifest entry, and what is refused."""

import json
import shutil

import pytest
import torch
from PIL import Image

from srcli.errors import InputError, UsageError, WeightsError
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained import catalog
from srcli.pretrained.catalog import load_model, manifest, save_weights
from srcli.training import bundle
from srcli.training.bundle import bundle_export
from srcli.training.export import export_run
from srcli.training.provenance import Provenance
from srcli.training.recipe import load_recipe

CONFIG = {"width": 4, "blocks": 1, "recursions": (1, 1, 1)}
SAID = Provenance(data="none", data_licence="CC0-1.0")
REAL_MANIFEST = catalog.manifest_path()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installation of its own, with the manifest of this one."""
    folder = tmp_path / "package"
    folder.mkdir()
    path = folder / "weights_manifest.json"
    shutil.copy(REAL_MANIFEST, path)
    for module in (catalog, bundle):
        monkeypatch.setattr(module, "bundled_folder", lambda: folder)
        monkeypatch.setattr(module, "manifest_path", lambda: path)
    manifest.cache_clear()
    yield folder
    manifest.cache_clear()


@pytest.fixture
def make_export(tmp_path, picture):
    """A function that exports a run of one-scale MRNets, measured on one picture."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(picture(24, 24)).save(pictures / "a.png")

    def make(scales=(2,), *, seed=1, said=SAID, recursions=None, measured=True):
        torch.manual_seed(seed)
        network = MRNet(MRNetConfig(scales=scales, **CONFIG))
        network.limit_recursions(recursions)
        recipe = load_recipe(
            "mrnet-s", "fast", {"config": CONFIG, "scales": list(scales)}
        )
        said_by_training = {
            "recipe": json.dumps(recipe.as_dict()),
            "recipe_hash": "abc",
            "data": "3 pictures, 0123456789ab",
            "steps": "7",
        }
        folder = tmp_path / f"run-{''.join(map(str, scales))}-{seed}"
        folder.mkdir(exist_ok=True)
        save_weights(network, folder / "best.safetensors", said_by_training)
        datasets = (str(pictures),) if measured else ()
        return export_run(folder, datasets=datasets, provenance=said)

    return make


def edit(path, **values):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **values}))


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def listed(package):
    return json.loads((package / "weights_manifest.json").read_text())["weights"]


def test_a_bundled_export_is_what_the_catalogue_loads(package, make_export):
    real = json.loads(REAL_MANIFEST.read_text())["weights"]
    lr = torch.rand(1, 3, 8, 8)
    for scale in (3, 2):
        done = make_export((scale,))
        entry = bundle_export(done.weights.parent)
        assert entry.file == f"mrnet-s_x{scale}.safetensors"
        assert (entry.steps, entry.recipe) == (7, "abc")
        assert entry.data == "3 pictures, 0123456789ab: none"
        assert (package / entry.file).read_bytes() == done.weights.read_bytes()
        network = load_model("mrnet-s", scale)
        with torch.no_grad():
            assert torch.equal(network(lr), load_model(done.weights)(lr))
        assert network.config.scales == (scale,)
        assert set(entry.psnr) == set(entry.ssim) == {"pictures"}
    assert {path.suffix for path in package.iterdir()} == {".json", ".safetensors"}
    now = listed(package)
    names = ["mrnet-s_x2.safetensors", "mrnet-s_x3.safetensors"]
    assert [each["file"] for each in now] == sorted(
        [*names, *(r["file"] for r in real)]
    )
    assert [each for each in now if each["file"] not in names] == real
    assert {tuple(each) for each in now} == {tuple(each) for each in real}


def test_the_place_may_be_the_run_the_folder_or_a_file(package, make_export):
    done = make_export()
    places = (done.weights, done.listing, done.listing.parent)
    for number, place in enumerate((*places, done.listing.parent.parent)):
        (package / done.weights.name).unlink(missing_ok=True)
        shutil.copy(REAL_MANIFEST, package / "weights_manifest.json")
        manifest.cache_clear()
        assert bundle_export(place) == done.entry, number


def test_a_file_that_measures_better_stays(package, make_export):
    bundle_export(make_export().listing)
    path = package / "weights_manifest.json"
    document = json.loads(path.read_text())
    mine = next(e for e in document["weights"] if e["model"] == "mrnet-s")
    new = make_export(seed=2)
    score = new.entry.psnr["pictures"]["2"]
    for before in (99.0, score):
        mine["psnr"]["pictures"]["2"] = before
        path.write_text(json.dumps(document))
        manifest.cache_clear()
        old = content_of(package)
        with pytest.raises(UsageError, match=rf"stays: it has {before:.3f} dB on pict"):
            bundle_export(new.listing)
        assert content_of(package) == old
    mine["psnr"]["pictures"]["2"] = score - 0.001
    path.write_text(json.dumps(document))
    manifest.cache_clear()
    assert bundle_export(new.listing) == new.entry
    assert new.entry in manifest()
    assert (package / new.entry.file).read_bytes() == new.weights.read_bytes()


def test_a_file_that_serves_more_scales_stays(package, make_export):
    bundle_export(make_export((2, 3, 4)).listing)
    old = content_of(package)
    fewer = make_export((2, 3), seed=2)
    edit(fewer.listing, psnr={"pictures": {"2": 98.0, "3": 98.0}})
    with pytest.raises(UsageError, match="stays: it serves x4 too"):
        bundle_export(fewer.listing)
    assert content_of(package) == old


def test_figures_that_go_away_are_named(package, make_export, caplog):
    export = make_export()
    edit(export.listing, psnr={"pictures": {"2": 1.0}, "b100": {"2": 1.0}})
    bundle_export(export.listing)
    bundle_export(make_export(seed=2).listing)
    assert "figures on b100 go away" in caplog.text


def test_a_second_file_for_the_same_scale_is_refused(package, make_export):
    bundle_export(make_export().listing)
    old = content_of(package)
    both = make_export(scales=(2, 3))
    with pytest.raises(UsageError, match=r"mrnet-s_x2\.safetensors serves mrnet-s x2"):
        bundle_export(both.listing)
    assert content_of(package) == old


def test_the_recursion_limit_travels_along(package, make_export):
    entry = bundle_export(make_export(recursions=2).listing)
    assert load_model(entry.model, 2).recursion_limit == 2


def test_weights_that_are_not_the_entrys_are_refused(package, make_export):
    done = make_export()
    old, whole = content_of(package), done.weights.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-50], b""):
        done.weights.write_bytes(damaged)
        with pytest.raises(
            WeightsError, match=r"is not what mrnet-s_x2\.json describes"
        ):
            bundle_export(done.listing)
    done.weights.write_bytes(whole)
    for wrong in ({"parameters": 5}, {"arch": "drcn"}, {"bytes": 5}, {"config": {}}):
        edit(done.listing, **{**json.loads(json.dumps(wrong))})
        with pytest.raises(WeightsError, match="is not what"):
            bundle_export(done.listing)
        done = make_export()
    done.weights.unlink()
    with pytest.raises(WeightsError, match="cannot read"):
        bundle_export(done.listing)
    assert content_of(package) == old


def test_damaged_entries_are_refused(package, make_export, tmp_path):
    done = make_export()
    old, whole = content_of(package), done.listing.read_text()
    wrong = [
        "{",
        "[]",
        "{}",
        json.dumps({**json.loads(whole), "more": 1}),
        json.dumps({**json.loads(whole), "file": "../../elsewhere.safetensors"}),
        json.dumps({**json.loads(whole), "psnr": {"set5": {"3": 30.0}}}),
        json.dumps({**json.loads(whole), "psnr": {"set5": {"2": "good"}}}),
        json.dumps({**json.loads(whole), "psnr": 4}),
    ]
    for text in wrong:
        done.listing.write_text(text)
        with pytest.raises(InputError, match="is no whole manifest entry"):
            bundle_export(done.listing)
    done.listing.unlink()
    with pytest.raises(InputError, match="cannot read"):
        bundle_export(done.listing)
    for place in (done.listing.parent.parent, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no export in .*--export"):
            bundle_export(place)
    assert content_of(package) == old


def test_of_several_exports_one_is_to_be_named(package, make_export):
    one = make_export()
    for suffix in (".json", ".safetensors"):
        shutil.copy(
            one.listing.with_suffix(suffix), one.listing.with_name("b" + suffix)
        )
    with pytest.raises(
        UsageError, match=r"several exports, name one of b\.json, mrnet"
    ):
        bundle_export(one.listing.parent)


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        ({"measured": False}, "has no figures"),
        ({"said": Provenance()}, "does not say on whose pictures"),
    ],
)
def test_weights_nobody_knows_enough_of_are_refused(
    package, make_export, export, reason
):
    old = content_of(package)
    with pytest.raises(UsageError, match=reason):
        bundle_export(make_export(**export).listing)
    assert content_of(package) == old
