"""Exports: what is stored, what is measured, what is said, and what stays whole."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from srcli.errors import InputError, UsageError, WeightsError
from srcli.imaging.resize import imresize
from srcli.models import variant
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.catalog import load_model, save_weights
from srcli.training import export
from srcli.training.checkpoint import TrainRequest
from srcli.training.export import export_finished, export_run
from srcli.training.provenance import Provenance, find_weights, name_file
from srcli.training.recipe import load_recipe

CONFIG = {"width": 4, "blocks": 1, "recursions": (1, 1, 1)}


@pytest.fixture
def sets(tmp_path, picture):
    """A folder with a Set5 and a Set14, of one small picture each."""
    folder = tmp_path / "sets"
    for name, size in (("Set5", 24), ("Set14", 36)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(picture(size, size)).save(folder / name / "a.png")
    return folder


@pytest.fixture
def make_run(tmp_path):
    """A function that writes a run's folder as training leaves it."""

    def make(scales=(2,), *, recipe="fast", edit=None, **overrides):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        values = {"config": CONFIG, "scales": list(scales), **overrides}
        made = load_recipe("mrnet", recipe, values)
        network = MRNet(MRNetConfig(scales=scales, **CONFIG))
        if edit is not None:
            edit(network)
        metadata = {
            "recipe": json.dumps(made.as_dict()),
            "recipe_hash": made.fingerprint,
            "data": "12 pictures, 0123456789ab",
            "steps": "7",
            "scores": "as they were",
        }
        save_weights(network, folder / "best.safetensors", metadata)
        return folder

    return make


def remember(folder, *data):
    document = {"data": list(data), "val": "set5", "data_dir": None}
    (folder / "run.json").write_text(json.dumps({**document, "precision": "fp32"}))


def listing_of(done):
    return json.loads(done.listing.read_text())


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def psnr_by_hand(network, path, scale):
    """Luma of ITU-R BT.601, `scale` pixels off every edge, as the papers measure."""
    hr = np.array(Image.open(path))
    lr = torch.from_numpy(imresize(hr, 1 / scale) / 255.0).permute(2, 0, 1).float()
    with torch.no_grad():
        sr = network(lr[None], scale)[0].permute(1, 2, 0).double().numpy() * 255
    weights = np.array([65.481, 128.553, 24.966]) / 255
    gap = (np.clip(np.floor(sr + 0.5), 0, 255) - hr) @ weights
    return 10 * math.log10(255**2 / np.mean(gap[scale:-scale, scale:-scale] ** 2))


def test_the_entry_is_what_the_file_says(make_run, sets):
    done = export_run(make_run((2, 3)), data_dir=sets)
    entry, path = listing_of(done), done.weights
    assert (path.parent.name, path.name) == ("export", "mrnet.safetensors")
    assert {each.name for each in path.parent.iterdir()} == {path.name, "mrnet.json"}
    content = path.read_bytes()
    assert entry["file"] == path.name
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["bytes"] == len(content)
    said, tensors = metadata_of(path), load_file(path)
    assert entry["arch"] == said["arch"] == "mrnet"
    assert entry["scales"] == json.loads(said["scales"]) == [2, 3]
    assert entry["config"] == json.loads(said["config"])
    assert entry["parameters"] == sum(value.numel() for value in tensors.values())
    assert entry["recipe"] == said["recipe_hash"]
    assert (entry["steps"], said["steps"]) == (7, "7")
    assert entry["psnr"] == json.loads(said["psnr"])
    assert entry["ssim"] == json.loads(said["ssim"])
    source = metadata_of(find_weights(path.parent.parent))
    assert {name: said[name] for name in source} == source
    assert list(entry["psnr"]) == ["set5", "set14"]
    network = load_model(path)
    for name, folder in (("set5", "Set5"), ("set14", "Set14")):
        for scale in (2, 3):
            measured = entry["psnr"][name][str(scale)]
            by_hand = psnr_by_hand(network, sets / folder / "a.png", scale)
            assert measured == pytest.approx(by_hand, abs=0.002)


def dtypes_of(path):
    return {value.dtype for value in load_file(path).values()}


def test_fp16_where_set5_hardly_moves(make_run, sets, monkeypatch):
    folder = make_run()
    monkeypatch.setattr(export, "HALF_TOLERANCE", 1.0)
    done = export_run(folder, datasets=(), data_dir=sets)
    assert (dtypes_of(done.weights), done.stored) == ({torch.float16}, "fp16")
    monkeypatch.setattr(export, "HALF_TOLERANCE", 0.0)
    done = export_run(folder, datasets=(), data_dir=sets)
    assert (dtypes_of(done.weights), done.stored) == ({torch.float32}, "fp32")


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1e7, "fp16 cannot hold its values"), (1e-5, "dB in fp32")],
    ids=["overflow", "underflow"],
)
def test_fp32_where_fp16_would_harm(make_run, sets, factor, said, caplog):
    """Two layers of which only the product, thrice what it was, is of usual size."""

    def edit(network):
        block = next(m for m in network.modules() if hasattr(m, "conv2"))
        with torch.no_grad():
            block.conv1.weight.mul_(factor)
            block.conv1.bias.zero_()
            block.conv2.weight.mul_(3 / factor)

    caplog.set_level("INFO", "srcli")
    folder = make_run(edit=edit)
    done = export_run(folder, datasets=(), data_dir=sets)
    assert said in caplog.text
    source, stored = load_file(folder / "best.safetensors"), load_file(done.weights)
    assert source.keys() == stored.keys()
    for name, value in stored.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, source[name])


def test_without_set5_at_hand_fp32_is_stored(make_run, sets, tmp_path, caplog):
    (sets / "Set5").rename(tmp_path / "elsewhere")
    caplog.set_level("INFO", "srcli")
    done = export_run(make_run(), data_dir=sets)
    assert dtypes_of(done.weights) == {torch.float32}
    assert list(listing_of(done)["psnr"]) == ["set14"]
    assert "no Set5 at hand" in caplog.text


def test_only_what_is_named_is_measured(make_run, sets):
    done = export_run(make_run(), datasets=("set14",), data_dir=sets)
    assert list(listing_of(done)["psnr"]) == ["set14"]
    done = export_run(make_run(), datasets=(), data_dir=sets)
    assert listing_of(done)["psnr"] == {}
    with pytest.raises(UsageError, match="did you mean set5"):
        export_run(make_run(), datasets=("sett5",), data_dir=sets)
    with pytest.raises(InputError, match="b100 not found"):
        export_run(make_run(), datasets=("b100",), data_dir=sets)


def test_a_data_folder_without_any_set_is_an_error(make_run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: correct --data-dir"):
        export_run(make_run(), data_dir=tmp_path / "empty")
    with pytest.raises(InputError, match="does not exist"):
        export_run(make_run(), data_dir=tmp_path / "nowhere")


def test_the_runs_own_data_folder_serves(make_run, sets):
    folder = make_run()
    remember(folder, "pictures")
    document = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**document, "data_dir": str(sets)}))
    assert list(export_run(folder).entry.psnr) == ["set5", "set14"]


def words_of(folder, **said):
    done = export_run(folder, datasets=(), provenance=Provenance(**said))
    entry = listing_of(done)
    return entry["data"], entry["data_licence"]


COUNTED = "12 pictures, 0123456789ab"


def test_the_recipe_speaks_for_its_own_data_sets_only(make_run):
    folder = make_run(recipe="paper")
    recipe = load_recipe("mrnet", "paper")
    remember(folder)
    theirs = f"{COUNTED}: {recipe.data}"
    assert words_of(folder) == (theirs, recipe.data_licence)
    remember(folder, "my/pictures")
    assert words_of(folder) == (COUNTED, "not stated")
    (folder / "run.json").unlink()
    assert words_of(folder) == (COUNTED, "not stated")


def test_words_of_the_user_hold_for_any_pictures(make_run):
    folder = make_run(data="my garden", data_licence="CC0-1.0")
    remember(folder, "my/pictures")
    assert words_of(folder) == (f"{COUNTED}: my garden", "CC0-1.0")
    said = words_of(folder, data="my yard", data_licence="MIT")
    assert said == (f"{COUNTED}: my yard", "MIT")


def test_words_given_with_set():
    made = Provenance.from_overrides({"data": "a", "data_licence": "b"})
    assert made == Provenance(data="a", data_licence="b")
    assert Provenance.from_overrides({}) == Provenance()
    for wrong in ({"batch": 4}, {"data": 4}):
        with pytest.raises(UsageError, match="an export trains nothing"):
            Provenance.from_overrides(wrong)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("mrnet", (2, 3, 4), "bi"), "mrnet.safetensors"),
        (("drcn", (3,), "bi"), "drcn_x3.safetensors"),
        (("rrrn", (3,), "bd"), "rrrn_x3_bd.safetensors"),
        (("mrnet", (2, 3, 4), "dn"), "mrnet_dn.safetensors"),
    ],
)
def test_names(arguments, name):
    assert name_file(*arguments) == name


def test_another_degradation_is_measured_as_it_was_trained(make_run, sets):
    done = export_run(make_run((3,), degradation="bd"), data_dir=sets)
    assert done.weights.name == "mrnet_x3_bd.safetensors"
    assert done.entry.degradation == "bd"
    assert {row.degradation for row in done.rows} == {"bd"}


def test_a_shallow_run_keeps_its_depth(make_run):
    folder = make_run(edit=lambda network: network.limit_recursions(2))
    done = export_run(folder, datasets=())
    assert load_model(done.weights).recursion_limit == 2


def test_the_last_weights_serve_where_none_were_validated(make_run):
    folder = make_run()
    (folder / "best.safetensors").rename(folder / "last.safetensors")
    assert export_run(folder, datasets=()).weights.is_file()
    (folder / "last.safetensors").unlink()
    for place in (folder, folder / "nowhere"):
        with pytest.raises(InputError, match=r"no weights in .*: --out names"):
            export_run(place)


def test_damaged_weights_are_named_and_an_earlier_export_stays(make_run, sets):
    folder = make_run()
    done = export_run(folder, datasets=())
    before = {path: path.read_bytes() for path in done.weights.parent.iterdir()}
    best = folder / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"best\.safetensors is no readable"):
        export_run(folder, data_dir=sets)
    network_class, _ = variant("mrnet")
    network = network_class(MRNetConfig(scales=(2,), **CONFIG))
    recipes = ["{", '{"model": "drcn"}', '{"model": "mrnett"}', "[]", '{"model": 3}']
    said = [{"recipe": r, "recipe_hash": "a", "steps": "1"} for r in recipes]
    good = json.dumps(load_recipe("mrnet").as_dict())
    said += [{}, {"recipe": good, "recipe_hash": "a", "steps": "many"}]
    for metadata in said:
        save_weights(network, best, metadata)
        with pytest.raises(WeightsError, match="does not say how it was trained"):
            export_run(folder, data_dir=sets)
    after = {path: path.read_bytes() for path in done.weights.parent.iterdir()}
    assert after == before


def test_an_export_that_fails_leaves_the_earlier_one(make_run, sets):
    folder = make_run()
    done = export_run(folder, datasets=())
    before = {path: path.read_bytes() for path in done.weights.parent.iterdir()}
    make_run(edit=lambda network: network.limit_recursions(1))
    (sets / "Set14" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png"):
        export_run(folder, datasets=("set14",), data_dir=sets)
    assert {p: p.read_bytes() for p in done.weights.parent.iterdir()} == before
    again = export_run(folder, datasets=())
    assert again.weights.read_bytes() != before[done.weights]
    assert again.entry.sha256 == hashlib.sha256(again.weights.read_bytes()).hexdigest()
    assert set(again.weights.parent.iterdir()) == set(before)


def test_the_model_named_must_be_the_runs(make_run):
    folder = make_run()
    assert export_run(folder, model="MRNet", datasets=()).entry.model == "mrnet"
    with pytest.raises(UsageError, match=r"a run of mrnet, not of drrn"):
        export_run(folder, model="drrn", datasets=())


def test_the_document_names_files_figures_and_how_to_measure_again(make_run, sets):
    done = export_run(make_run(), data_dir=sets)
    document = json.loads(json.dumps(done.as_document(), allow_nan=False))
    assert document["files"] == [str(done.weights), str(done.listing)]
    assert document["stored"] == done.stored
    assert document["entry"] == listing_of(done)
    assert [row["dataset"] for row in document["rows"]] == ["set5", "set14"]
    assert {row["model"] for row in document["rows"]} == {"mrnet"}
    assert all(row["paper"]["source"] for row in document["rows"])
    command = document["command"]
    assert command.startswith("srcli benchmark -d set5 -d set14 -m mrnet -x 2 ")
    assert f"--weights {done.weights} --precision fp32" in command


@pytest.mark.parametrize(
    ("val", "measured"), [("Set14", ["set14"]), ("none", []), ("./pictures", [])]
)
def test_the_export_that_ends_a_run_measures_a_named_set_only(
    make_run, sets, val, measured, tmp_path
):
    (sets / "Set5").rename(tmp_path / "elsewhere")
    request = TrainRequest(
        model="mrnet", out=make_run(), val=val, data_dir=sets, device="cpu"
    )
    done = export_finished(request)
    assert list(done.entry.psnr) == measured


def test_a_run_can_be_exported_as_training_leaves_it(tmp_path, sets, picture):
    """The loop's own files, from a run of two steps."""
    from srcli.training.run import train

    (tmp_path / "pictures").mkdir()
    Image.fromarray(picture(40, 44)).save(tmp_path / "pictures" / "a.png")
    request = TrainRequest(
        model="mrnet",
        out=tmp_path / "trained",
        data=(tmp_path / "pictures",),
        data_dir=sets,
        overrides={"config": CONFIG, "crop": 8, "batch": 2, "steps": 2},
        device="cpu",
        precision="fp32",
    )
    train(request)
    entry = export_finished(request).entry
    assert (entry.steps, entry.scales) == (2, (2, 3, 4))
    assert entry.data.startswith("1 pictures, ")
    assert entry.data_licence == "not stated"
    assert list(entry.psnr) == ["set5"]
