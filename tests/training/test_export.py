"""Exports: what is stored, what is measured, what is said, and what stays whole."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from srcli.errors import InputError, UsageError, WeightsError
from srcli.evaluation.measurement import run_benchmark
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.loading import load_model
from srcli.pretrained.weight_file import read_metadata, save_weights
from srcli.training.checkpoint import TrainRequest, find_weights
from srcli.training.export import export_run, keep_published
from srcli.training.recipe import load_recipe
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

    def make(scales=(2,), *, recipe="fast", edit=id, teachers=(), **overrides):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        values = {"config": CONFIG, "scales": list(scales), **overrides}
        made = load_recipe("mrnet-s", recipe, values)
        network = MRNet(MRNetConfig(scales=scales, **CONFIG))
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


def test_the_entry_is_what_the_file_says_and_measures(make_run, sets, caplog):
    folder = make_run((2, 3), edit=lambda network: network.limit_recursions(2))
    done = export_run(folder, data_dir=sets)
    assert caplog.text.count("the published set 5") == 1
    entry, path = json.loads(done.listing.read_text()), done.weights
    assert path == folder / "export" / "mrnet-s.safetensors"
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    said = read_metadata(path)
    assert read_metadata(find_weights(folder)).items() <= said.items()
    assert (entry["model"], entry["scales"]) == ("mrnet-s", [2, 3])
    assert (entry["recipe"], entry["steps"]) == (said["recipe_hash"], 7)
    for name in ("config", "psnr", "ssim"):
        assert json.loads(said[name]) == entry[name]
    assert load_model(path).recursion_limit == 2
    for row in run_benchmark(done.request)[1::2]:
        measured = entry["psnr"][row.dataset][str(row.scale)]
        assert measured == pytest.approx(row.psnr, abs=0.001)
    document = json.loads(json.dumps(done.as_document(), allow_nan=False))
    assert document["files"] == [str(path), str(done.listing)]
    assert (document["stored"], document["entry"]) == (done.stored, entry)
    assert {row["model"] for row in document["rows"]} == {"mrnet-s"}
    assert "benchmark -d set5 -d set14 -m mrnet-s -x 2,3" in document["command"]
    pairs = [(row.model, row.scale) for row in done.compared[:4]]
    assert pairs == [("bicubic", 2), ("mrnet-s", 2), ("bicubic", 3), ("mrnet-s", 3)]


@pytest.mark.parametrize(
    ("factor", "stored"), [(1, "fp16"), (1e7, "fp32"), (1e-5, "fp32")]
)
def test_fp16_where_set5_hardly_moves(make_run, sets, monkeypatch, factor, stored):
    """Two layers of which only the product, thrice what it was, is of usual size."""

    def edit(network):
        block = next(m for m in network.modules() if hasattr(m, "conv2"))
        with torch.no_grad():
            block.conv1.weight.mul_(factor)
            block.conv1.bias.zero_()
            block.conv2.weight.mul_(3 / factor)

    monkeypatch.setattr("srcli.training.export.HALF_TOLERANCE", 0.004)
    folder = make_run(edit=edit)
    done = export_run(folder, datasets=(), data_dir=sets)
    assert (done.stored, done.entry.psnr) == (stored, {})
    values, half = load_file(done.weights), stored == "fp16"
    for name, value in load_file(folder / "best.safetensors").items():
        assert torch.equal(values[name], value.half() if half else value)


def test_what_is_measured_is_what_is_named_and_there(make_run, sets, tmp_path):
    folder = make_run((3,), degradation="bd")
    (sets / "Set5").rename(tmp_path / "elsewhere")
    for named in (None, ("set14",)):
        done = export_run(folder, datasets=named, data_dir=sets)
        assert (list(done.entry.psnr), done.stored) == (["set14"], "fp32")
    assert done.weights.name == "mrnet-s_x3_bd.safetensors"
    assert done.rows[0].degradation == done.entry.degradation == "bd"
    with pytest.raises(UsageError, match="did you mean set5"):
        export_run(folder, datasets=("sett5",), data_dir=sets)
    for named, place in ((("b100",), sets), (None, tmp_path / "run")):
        with pytest.raises(InputError, match=r"not found|correct --data-dir"):
            export_run(folder, datasets=named, data_dir=place)
    assert keep_published("Set14", sets) == ("Set14",)
    for other in ("none", str(sets), "b100"):
        assert keep_published(other, sets) == ()


def test_who_speaks_for_the_pictures(make_run):
    """The user, else the recipe: srcli's own speaks for its own data sets only."""

    def words_of(folder, *, of_recipe=False, **words):
        done = export_run(folder, datasets=(), of_recipe=of_recipe, words=words)
        return done.entry.data, done.entry.data_licence

    folder, recipe = make_run(recipe="paper"), load_recipe("mrnet", "paper")
    theirs = (f"{COUNTED}: {recipe.data}", recipe.data_licence)
    assert words_of(folder, of_recipe=True) == theirs
    assert words_of(folder) == (COUNTED, "not stated")
    folder = make_run(data="my garden", data_licence="CC0-1.0")
    assert words_of(folder) == (f"{COUNTED}: my garden", "CC0-1.0")
    assert words_of(folder, data="a yard") == (f"{COUNTED}: a yard", "CC0-1.0")
    for wrong in ({"batch": 4}, {"data": 4}):
        with pytest.raises(UsageError, match="an export trains nothing"):
            words_of(folder, **wrong)


def test_terms_of_teachers_are_stated_where_their_files_do_not(make_run):
    fact = {"file": "a.pth", "sha256": "ab", "licence": "MIT", "scales": [2]}
    folder = make_run(teachers=[fact, {**fact, "licence": "not stated"}])
    done = export_run(folder, datasets=(), words={"teacher_licence": "CC0-1.0"})
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
    done, best = export_run(make_run(), datasets=()), find_weights(make_run())
    before = {path: path.read_bytes() for path in done.weights.parent.iterdir()}
    (sets / "Set14" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png"):
        export_run(best.parent, datasets=("set14",), data_dir=sets)
    for recipe in ("{", "[]", '{"model": 3}', '{"model": "mrnet-s"}'):
        save_weights(load_model(done.weights), best, {"recipe": recipe})
        with pytest.raises(WeightsError, match="does not say how it was trained"):
            export_run(best.parent, datasets=())
    assert {path: path.read_bytes() for path in done.weights.parent.iterdir()} == before


def test_a_finished_run_is_exported_and_can_be_again(
    tmp_path, sets, pictures, run, monkeypatch
):
    """What the run was given serves an export by the command line, too."""
    monkeypatch.chdir(tmp_path)
    request = TrainRequest(
        model="mrnet",
        out=Path("run"),
        data=(pictures,),
        val="sets/Set5",
        data_dir=sets,
        overrides={"config": CONFIG, "crop": 8, "batch": 2, "steps": 2},
        device="cpu",
        precision="fp32",
    )
    train(request)
    listing = request.out / "export" / "mrnet.json"
    entry = json.loads(listing.read_text())
    assert (entry["steps"], list(entry["psnr"])) == (2, ["set5"])
    assert (entry["data"][:12], entry["data_licence"]) == ("3 pictures, ", "not stated")
    assert "Not measured" not in (request.out / "report.md").read_text()
    again = run("train", "-m", "mrnet", "-o", "run", "--export", "--device", "cpu")
    assert again.exit_code == 0, again.stderr
    assert list(json.loads(listing.read_text())["psnr"]) == ["set5", "set14"]
