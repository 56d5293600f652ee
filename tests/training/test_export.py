"""Exports: what is stored, what is measured, what is said, and what stays whole."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from srcli.errors import InputError, UsageError, WeightsError
from srcli.evaluation.published import lookup
from srcli.imaging.resize import imresize
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.catalog import load_model, save_weights
from srcli.pretrained.metadata import read_metadata
from srcli.training import export
from srcli.training.export import export_run, find_weights
from srcli.training.recipe import load_recipe
from srcli.training.request import TrainRequest
from srcli.training.run import train

CONFIG = {"width": 4, "blocks": 1, "recursions": (1, 1, 1)}
COUNTED = "12 pictures, 0123456789ab"


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

    def make(scales=(2,), *, recipe="fast", edit=None, teachers=(), **overrides):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        values = {"config": CONFIG, "scales": list(scales), **overrides}
        made = load_recipe("mrnet-s", recipe, values)
        network = MRNet(MRNetConfig(scales=scales, **CONFIG))
        if edit is not None:
            edit(network)
        metadata = {
            "recipe": json.dumps(made.as_dict()),
            "recipe_hash": made.fingerprint,
            "data": COUNTED,
            "steps": "7",
            "teachers": json.dumps(teachers),
        }
        save_weights(network, folder / "best.safetensors", metadata)
        return folder

    return make


def contents(done):
    return {path: path.read_bytes() for path in done.weights.parent.iterdir()}


def psnr_by_hand(network, path, scale):
    """Luma of ITU-R BT.601, `scale` pixels off every edge, as the papers measure."""
    hr = np.array(Image.open(path))
    lr = torch.from_numpy(imresize(hr, 1 / scale) / 255.0).permute(2, 0, 1).float()
    with torch.no_grad():
        sr = network(lr[None], scale)[0].permute(1, 2, 0).double().numpy() * 255
    weights = np.array([65.481, 128.553, 24.966]) / 255
    gap = (np.clip(np.floor(sr + 0.5), 0, 255) - hr) @ weights
    return 10 * math.log10(255**2 / np.mean(gap[scale:-scale, scale:-scale] ** 2))


def test_the_entry_is_what_the_file_says_and_measures(make_run, sets):
    folder = make_run((2, 3), edit=lambda network: network.limit_recursions(2))
    done = export_run(folder, data_dir=sets)
    entry, path = json.loads(done.listing.read_text()), done.weights
    assert path == folder / "export" / "mrnet-s.safetensors"
    assert set(contents(done)) == {path, path.with_suffix(".json")}
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    said = read_metadata(path)
    assert read_metadata(find_weights(folder)).items() <= said.items()
    assert (entry["model"], entry["scales"]) == ("mrnet-s", [2, 3])
    assert (entry["recipe"], entry["steps"]) == (said["recipe_hash"], 7)
    for name in ("config", "psnr", "ssim"):
        assert json.loads(said[name]) == entry[name]
    network = load_model(path)
    assert network.recursion_limit == 2
    for name, place in (("set5", "Set5"), ("set14", "Set14")):
        for scale in (2, 3):
            by_hand = psnr_by_hand(network, sets / place / "a.png", scale)
            assert entry["psnr"][name][str(scale)] == pytest.approx(by_hand, abs=0.002)
    document = json.loads(json.dumps(done.as_document(), allow_nan=False))
    assert document["files"] == [str(path), str(done.listing)]
    assert (document["stored"], document["entry"]) == (done.stored, entry)
    assert {row["model"] for row in document["rows"]} == {"mrnet-s"}
    assert document["command"] == (
        "srcli benchmark -d set5 -d set14 -m mrnet-s -x 2,3 --degradation bi "
        f"--weights {path} --precision fp32"
    )
    pairs = [(row.model, row.scale) for row in done.compared[:4]]
    assert pairs == [("bicubic", 2), ("mrnet-s", 2), ("bicubic", 3), ("mrnet-s", 3)]
    assert done.rows[0].paper == lookup("mrnet-s", "set5", 2)


def test_fp16_where_set5_hardly_moves(make_run, sets, monkeypatch):
    monkeypatch.setattr(export, "HALF_TOLERANCE", 1.0)
    done = export_run(make_run(), datasets=(), data_dir=sets)
    assert {value.dtype for value in load_file(done.weights).values()} == {torch.half}
    assert (done.stored, done.entry.psnr) == ("fp16", {})


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
    for name, value in source.items():
        assert torch.equal(stored[name], value)


def test_what_is_measured_is_what_is_named_and_there(make_run, sets, tmp_path, caplog):
    folder = make_run((3,), degradation="bd")
    (sets / "Set5").rename(tmp_path / "elsewhere")
    caplog.set_level("INFO", "srcli")
    for named in (None, ("set14",)):
        done = export_run(folder, datasets=named, data_dir=sets)
        assert (list(done.entry.psnr), done.stored) == (["set14"], "fp32")
        assert {row.degradation for row in done.rows} == {done.entry.degradation, "bd"}
    assert done.weights.name == "mrnet-s_x3_bd.safetensors"
    assert "no Set5 at hand" in caplog.text
    for named, place, error, said in (
        (("sett5",), sets, UsageError, "did you mean set5"),
        (("b100",), sets, InputError, "b100 not found"),
        (None, tmp_path / "run", InputError, "correct --data-dir"),
        (None, tmp_path / "nowhere", InputError, "does not exist"),
    ):
        with pytest.raises(error, match=said):
            export_run(folder, datasets=named, data_dir=place)


def test_who_speaks_for_the_pictures(make_run):
    """The user, else the recipe: srcli's own speaks for its own data sets only."""

    def words_of(folder, *, of_recipe=False, **words):
        done = export_run(folder, datasets=(), of_recipe=of_recipe, words=words)
        return done.entry.data, done.entry.data_licence

    folder, recipe = make_run(recipe="paper"), load_recipe("mrnet", "paper")
    theirs = f"{COUNTED}: {recipe.data}"
    assert words_of(folder, of_recipe=True) == (theirs, recipe.data_licence)
    assert words_of(folder) == (COUNTED, "not stated")
    folder = make_run(data="my garden", data_licence="CC0-1.0")
    assert words_of(folder) == (f"{COUNTED}: my garden", "CC0-1.0")
    said = words_of(folder, data="my yard", data_licence="MIT")
    assert said == (f"{COUNTED}: my yard", "MIT")
    for wrong in ({"batch": 4}, {"data": 4}):
        with pytest.raises(UsageError, match="an export trains nothing"):
            words_of(folder, **wrong)


def test_terms_of_teachers_are_stated_where_their_files_do_not(make_run):
    facts = [
        {"file": "a.pth", "sha256": "ab", "licence": licence, "scales": [2]}
        for licence in ("MIT", "not stated")
    ]
    folder, words = make_run(teachers=facts), {"teacher_licence": "CC0-1.0"}
    done = export_run(folder, datasets=(), words=words)
    said = json.loads(read_metadata(done.weights)["teachers"])
    for teachers in (done.entry.teachers, said):
        assert [each["licence"] for each in teachers] == ["MIT", "CC0-1.0"]


def test_the_last_weights_serve_where_none_were_validated(make_run):
    folder = make_run()
    (folder / "best.safetensors").rename(folder / "last.safetensors")
    assert export_run(folder, model="MRNet-S", datasets=()).weights.is_file()
    with pytest.raises(UsageError, match="a run of mrnet-s, not of drrn"):
        export_run(folder, model="drrn")
    with pytest.raises(InputError, match=r"no weights in .*: --out names"):
        export_run(folder / "nowhere")


def test_an_export_that_fails_leaves_the_earlier_one(make_run, sets):
    done = export_run(make_run(), datasets=())
    before, best = contents(done), find_weights(folder := make_run())
    (sets / "Set14" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png"):
        export_run(folder, datasets=("set14",), data_dir=sets)
    for recipe in ("{", "[]", '{"model": 3}', '{"model": "mrnet-s"}'):
        save_weights(load_model(done.weights), best, {"recipe": recipe})
        with pytest.raises(WeightsError, match="does not say how it was trained"):
            export_run(folder, datasets=())
    best.write_bytes(best.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"best\.safetensors is no readable"):
        export_run(folder, datasets=())
    assert contents(done) == before


@pytest.mark.parametrize(("val", "measured"), [("none", []), ("sets/Set5", ["set5"])])
def test_a_finished_run_is_exported_and_can_be_again(
    tmp_path, sets, pictures, run, monkeypatch, val, measured
):
    """What the run was given serves an export by the command line, too."""
    monkeypatch.chdir(tmp_path)
    request = TrainRequest(
        model="mrnet",
        out=tmp_path / "run",
        data=(pictures,),
        val=val,
        data_dir=sets,
        overrides={"config": CONFIG, "crop": 8, "batch": 2, "steps": 2},
        device="cpu",
        precision="fp32",
    )
    train(request)
    listing = request.out / "export" / "mrnet.json"
    entry = json.loads(listing.read_text())
    assert (entry["steps"], list(entry["psnr"])) == (2, measured)
    assert entry["data"].startswith("3 pictures, ")
    assert entry["data_licence"] == "not stated"
    report = (request.out / "report.md").read_text()
    assert ("Not measured" in report) != bool(measured)
    again = run(
        "train", "-m", "mrnet", "-o", request.out, "--export", "--device", "cpu"
    )
    assert again.exit_code == 0, again.stderr
    assert list(json.loads(listing.read_text())["psnr"]) == ["set5", "set14"]
