"""From a request to a run: what a resumed run keeps, and what is refused early."""

import dataclasses
import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.errors import DeviceError, InputError, OutputError, UsageError
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.weight_file import save_weights
from srcli.training.checkpoint import TrainRequest, load_checkpoint
from srcli.training.recipe import load_recipe
from srcli.training.run import make_network, train

CONFIG = {"width": 4, "blocks": 1}
SMALL = {"config": CONFIG, "crop": 8, "batch": 2, "validate_every": 2, "steps": 3}


@pytest.fixture
def request_of(request_of):
    return partial(request_of, overrides=SMALL)


def test_resume_alone_goes_on_with_what_the_run_was_started_with(
    request_of, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    first = request_of(val="pictures", scales=(2,))
    summary = train(first)
    assert (summary.steps, set(summary.best)) == (3, {"mean", "x2"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = TrainRequest(
        model="mrnet", out=first.out, resume=True, overrides={"steps": 5}, device="cpu"
    )
    assert train(again).steps == 5
    kept = json.loads((first.out / "run.json").read_text())
    assert kept["precision"] == "fp32"
    assert kept["data"] == [str(tmp_path / "pictures")]
    state = load_checkpoint(first.out)
    assert state["recipe"]["scales"] == (2,)
    text = (first.out / "log.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["step"] for line in lines if "psnr" in line] == [2, 3, 4, 5]


def test_runs_without_the_file_are_resumed_with_the_pictures_named(request_of):
    first = request_of()
    train(first)
    (first.out / "run.json").unlink()
    more = {"resume": True, "overrides": {"steps": 4}}
    with pytest.raises(InputError, match="--data"):
        train(dataclasses.replace(first, data=(), **more))
    assert train(dataclasses.replace(first, **more)).steps == 4
    (first.out / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        train(dataclasses.replace(first, **more))


def test_a_run_is_not_resumed_as_another_network(request_of):
    first = request_of()
    train(first)
    before = (first.out / "checkpoint.pt").read_bytes()
    for values, message in (
        ({"model": "drrn"}, "the checkpoint is of mrnet, not of drrn"),
        ({"scales": (2,)}, "other scales"),
        ({"overrides": {"config": {"width": 8}}}, "other width"),
        ({"overrides": {"steps": 2}}, "done 3 steps: --steps must not be below"),
    ):
        with pytest.raises(UsageError, match=message):
            train(dataclasses.replace(first, resume=True, **values))
    assert (first.out / "checkpoint.pt").read_bytes() == before


def test_a_run_is_not_overwritten_whatever_is_left_of_it(request_of):
    first = request_of()
    train(first)
    (first.out / "checkpoint.pt").rename(first.out / "checkpoint.previous.pt")
    with pytest.raises(OutputError, match="holds a run already"):
        train(first)
    for path in first.out.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(OutputError, match="holds a run already"):
        train(first)
    file = first.out / "recipe.json"
    with pytest.raises(OutputError, match="is a file"):
        train(dataclasses.replace(first, out=file))


def test_what_makes_no_run_is_a_usage_error(request_of):
    for values, message in (
        ({"overrides": {"schedule": "plateau", "decay_every": 5}}, "--val"),
        ({"model": "dsrn", "scales": (2, 3), "overrides": {}}, "serves one scale"),
        ({"overrides": {"config": {"width": "wide"}}}, "width takes int"),
        ({"overrides": {"config": {"recursions": [4, 6]}}}, "takes 3 values"),
        ({"overrides": {"config": {"recursion": "mmr"}}}, "did you mean mrm"),
        ({"overrides": {"config": {"width": 0}}}, "at least 1"),
        ({"model": "dsrn", "overrides": {"config": {"width": 1}}}, "two channels"),
        ({"precision": "fp16"}, "fp16"),
    ):
        request = request_of(**values)
        with pytest.raises(UsageError, match=message):
            train(request)
        assert not request.out.exists()


def test_validation_pictures_that_are_too_small_are_named_before_training(
    request_of, tmp_path, picture
):
    folder = tmp_path / "small"
    folder.mkdir()
    Image.fromarray(picture(11, 40)).save(folder / "flat.png")
    with pytest.raises(InputError, match=r"flat\.png is too small"):
        train(request_of(val=str(folder)))


def test_too_little_memory_is_a_device_error(request_of, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(MRNet, "predictions", fail)
    with pytest.raises(DeviceError, match="--set batch=N"):
        train(request_of())


def test_trained_weights_to_start_from_keep_their_depth(tmp_path):
    path = tmp_path / "start.safetensors"
    start = MRNet(MRNetConfig(**CONFIG))
    save_weights(start, path)
    recipe = load_recipe("mrnet", "fast", {"config": CONFIG})
    assert make_network(recipe).recursion_limit == 2
    network = make_network(recipe, str(path))
    assert network.recursion_limit is None
    lr = torch.rand(1, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(network(lr, 4), start(lr, 4))


def test_a_run_that_diverges_leaves_a_report(request_of, monkeypatch):
    def overflow(self, lr, scale=None):
        return (self.recurse.encode.bias.sum() * float("nan") + lr.sum(),)

    monkeypatch.setattr(MRNet, "predictions", overflow)
    request = request_of(overrides={**SMALL, "scales": [2]})
    with pytest.raises(UsageError, match="whatever the learning rate"):
        train(request)
    text = (request.out / "report.md").read_text()
    assert text.count("back to step 0 with half the learning rate") == 8


def test_another_validation_set_is_not_compared_with_the_first(
    request_of, tmp_path, picture, caplog
):
    other = tmp_path / "other"
    other.mkdir()
    noise = np.random.default_rng(5).integers(0, 256, (40, 44, 3), dtype=np.uint8)
    Image.fromarray(noise).save(other / "noise.png")
    first = request_of(val=str(tmp_path / "pictures"), scales=(2,))
    train(first)
    before = load_checkpoint(first.out)["best"]
    more = {"resume": True, "val": str(other), "overrides": {"steps": 4}}
    summary = train(dataclasses.replace(first, scales=(), **more))
    assert "the best begins anew" in caplog.text
    assert summary.best_step == 4
    assert summary.best["x2"] != before["x2"]


def test_a_finished_run_without_its_export_gets_it_by_resuming(request_of):
    first = request_of()
    train(first)
    shutil.rmtree(first.out / "export")
    train(dataclasses.replace(first, resume=True, overrides={}))
    assert len(list((first.out / "export").glob("*.safetensors"))) == 1
    # What the report says to measure is what was measured for it.
    assert "export/mrnet.safetensors" in (first.out / "report.md").read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["drcn", "drrn", "dsrn", "mrnet", "rrrn"])
def test_a_gpu_trains_in_bf16_by_muon(request_of, model, caplog):
    fields = {"optimizer": "muon", "crop": 8, "crop_of": "lr", "batch": 4, "steps": 8}
    train(request_of(model=model, overrides=fields, device="cuda", precision="bf16"))
    assert "no CUDA graph here" not in caplog.text
