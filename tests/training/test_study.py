"""Studies run: equal crops, stopped and gone on with, and never mixed with others."""

import dataclasses
import json
import math
import shutil
import signal

import pytest
from PIL import Image

from srcli.errors import (
    InputError,
    OutputError,
    TrainingTerminatedError,
    UsageError,
    WeightsError,
)
from srcli.training import study_runs as study_module
from srcli.training.checkpoint import TrainRequest, load_checkpoint
from srcli.training.loop import Trainer
from srcli.training.study_report import build_study_document
from srcli.training.study_runs import is_study

TINY = {
    "variants": "drrn-b1u3,drrn-b2u3",
    "config": {"width": 4},
    "crop": 12,
    "batch": 2,
    "steps": 3,
}


@pytest.fixture
def request_of(tmp_path, pictures, picture):
    """A function that makes a request for a tiny study."""
    (tmp_path / "val").mkdir()
    Image.fromarray(picture(24, 24)).save(tmp_path / "val" / "a.png")

    def make(**values):
        overrides = {**TINY, **values.pop("overrides", {})}
        settings = {
            "model": "drrn",
            "recipe": "ablation",
            "out": tmp_path / "study",
            "data": (pictures,),
            "val": str(tmp_path / "val"),
            "overrides": overrides,
            "device": "cpu",
            "precision": "fp32",
        }
        return TrainRequest(**{**settings, **values})

    return make


def run_study(request, *args, **options):
    """The study's document, after training what is left of it."""
    return build_study_document(study_module.run_study(request, *args, **options))


def rows_of(document):
    return [row for table in document["tables"] for row in table["rows"]]


def psnr_of(document):
    return [row["psnr"] for row in rows_of(document)]


def go_on(request, **values):
    """The request that resumes, with nothing said again."""
    return TrainRequest(
        model="drrn", recipe="ablation", out=request.out, resume=True, device="cpu",
        **values,
    )  # fmt: skip


class Interrupt:
    """A progress that sends a signal to this process at one of the steps."""

    def __init__(self, at, number):
        self.left, self.number = at, number

    def start(self, description, total):
        self.training = description == "Training"

    def advance(self, amount=1):
        if self.training and amount == 1:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(self.number)

    def note(self, text):
        pass


def test_every_variant_is_a_run_on_the_same_crops(request_of):
    request = request_of(overrides={"config": {}, "batch": 1})
    document = run_study(request)
    assert document["runs"] == {"done": 2, "count": 2}
    rows = rows_of(document)
    states = [load_checkpoint(request.out / row["variant"]) for row in rows]
    assert [state["step"] for state in states] == [3, 3]
    assert states[0]["sampler"].equal(states[1]["sampler"])
    assert [state["config"]["blocks"] for state in states] == [1, 2]
    for row in rows:
        folder = request.out / row["variant"]
        assert (folder / "report.md").is_file()
        assert not (folder / "export").exists()
        lines = (folder / "log.jsonl").read_text().splitlines()
        (last,) = (entry for entry in map(json.loads, lines) if "psnr" in entry)
        assert row["psnr"] == round(last["psnr"]["3"], 3)
    text = (request.out / "report.md").read_text()
    assert "2 of 2 runs are done, each of 3 steps of 1 crops" in text
    assert f"{rows[1]['psnr']:.3f}" in text
    assert "a second block helps (drrn-b2u3 over drrn-b1u3; section 4.3)" in text
    assert "steps = 3" in text


def test_minutes_are_for_the_whole_study_and_resume_goes_on_exactly(request_of):
    whole = run_study(request_of())
    request = request_of(out=request_of().out.with_name("parts"))
    part = run_study(dataclasses.replace(request, max_minutes=0.0))
    assert [row["steps"] for row in rows_of(part)] == [1, 0]
    assert psnr_of(part) == [None, None]
    text = (request.out / "report.md").read_text()
    assert f"--recipe ablation --resume --out {request.out}" in text
    part = run_study(go_on(request, max_minutes=0.0))
    assert part["runs"]["done"] < 2
    done = run_study(go_on(request))
    assert done["finished"]
    assert psnr_of(done) == psnr_of(whole)


def test_a_signal_keeps_what_is_done(request_of):
    request = request_of()
    with pytest.raises(TrainingTerminatedError, match="training drrn-b2u3") as caught:
        run_study(request, Interrupt(5, signal.SIGTERM))
    assert "--recipe ablation --resume --out" in str(caught.value)
    assert "1 of 2 runs are done" in (request.out / "report.md").read_text()
    first = request.out / "drrn-b1u3" / "checkpoint.pt"
    before = first.stat().st_mtime_ns
    assert load_checkpoint(request.out / "drrn-b2u3")["step"] == 2
    assert run_study(go_on(request))["finished"]
    assert first.stat().st_mtime_ns == before


def test_a_study_is_not_gone_on_with_as_another(request_of):
    request = request_of()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    before = (request.out / "study.json").read_bytes()
    again = go_on(request)
    other = request.out.parent / "pictures" / ".."
    for values, message in (
        ({"overrides": {"steps": 4}}, "has steps 3, not 4"),
        ({"overrides": {"variants": "drrn-b1u3"}}, "has variants"),
        ({"overrides": {"seeds": 2}}, r"has seeds \[0\], not \[0, 1\]"),
        ({"overrides": {"config": {"norm": "batch"}}}, "has config"),
        ({"scales": (2,)}, "has scale 3, not 2"),
        ({"precision": "bf16"}, 'has --precision "fp32", not "bf16"'),
        ({"data": (other,)}, "has --data"),
        ({"val": str(other)}, "has --val"),
        ({"model": "mrnet"}, "is of drrn"),
    ):
        with pytest.raises(UsageError, match=message):
            run_study(dataclasses.replace(again, **values))
    assert (request.out / "study.json").read_bytes() == before
    # What was asked before may be said again.
    same = dataclasses.replace(again, overrides=TINY, data=request.data)
    assert run_study(same)["finished"]


def test_a_folder_of_something_else_is_not_written_to(request_of):
    request = request_of()
    with pytest.raises(InputError, match="no study in"):
        run_study(go_on(request))
    assert not request.out.exists()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    assert is_study(request.out)
    with pytest.raises(OutputError, match="holds a study or runs already"):
        run_study(request)
    with pytest.raises(OutputError, match="holds a run already"):
        run_study(dataclasses.replace(request, out=request.out / "drrn-b1u3"))
    for damaged in ("{}", "[]", "null", '{"model": "drrn", "asked": 3}', "{"):
        (request.out / "study.json").write_text(damaged)
        with pytest.raises(InputError, match=r"study\.json cannot be read"):
            run_study(go_on(request))


def test_what_fails_early_leaves_nothing(request_of):
    for values, error, message in (
        ({"val": "none"}, UsageError, "cannot be none"),
        ({"init": "bundled"}, UsageError, "leave --init out"),
        ({"overrides": {"minutes": 3.0}}, UsageError, "equal steps"),
        ({"overrides": {"teacher_megapixels": 3.0}}, UsageError, "leave --teacher"),
        ({"teachers": ("t.pth",)}, UsageError, "leave --teacher"),
        ({"precision": "fp16"}, UsageError, "fp16"),
        ({"val": "nowhere/x"}, InputError, "nowhere/x does not exist"),
    ):
        request = request_of(**values)
        with pytest.raises(error, match=message):
            run_study(request)
        assert not request.out.exists()
    with pytest.raises(UsageError, match="leave --devices out"):
        run_study(request_of(), devices=2)


def test_several_seeds_give_mean_and_spread(request_of):
    request = request_of(overrides={"seeds": 2, "steps": 1}, seed=3)
    document = run_study(request)
    assert document["runs"] == {"done": 4, "count": 4}
    row = rows_of(document)[0]
    figures = row["psnr_by_seed"]
    assert set(figures) == {"3", "4"}
    assert figures["3"] != figures["4"]
    assert row["spread"] > 0
    assert (request.out / "drrn-b2u3" / "seed-4" / "checkpoint.pt").is_file()
    assert "| ± |" in (request.out / "report.md").read_text()


def test_setbacks_and_other_pictures_are_said(request_of):
    request = request_of()
    run_study(request)
    log = request.out / "drrn-b1u3" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"step": 3, "event": "back to step 0"}\n')
    (request.data[0] / "0.png").unlink()
    shutil.rmtree(request.out / "drrn-b2u3")
    run_study(go_on(request))
    text = (request.out / "report.md").read_text()
    assert "drrn-b1u3 went back once with" in text
    assert "The pictures were not the same for all: 3 pictures" in text


def test_a_run_without_its_figure_is_measured_again(request_of):
    """As one that was killed between its last checkpoint and its last validation."""
    request = request_of()
    before = run_study(request)
    folder = request.out / "drrn-b1u3"
    (folder / "log.jsonl").unlink()
    done = run_study(go_on(request))
    assert psnr_of(done) == psnr_of(before)


def test_a_run_given_up_is_remembered_and_the_others_go_on(request_of, monkeypatch):
    take = Trainer.train_step

    def diverge(self):
        loss = take(self)
        return loss * math.nan if self.recipe.model == "drrn-b1u3" else loss

    monkeypatch.setattr(Trainer, "train_step", diverge)
    request = request_of()
    first, second = rows_of(run_study(request))
    assert not (request.out / "drrn-b1u3" / "last.safetensors").exists()
    assert (first["diverged"], second["diverged"]) == ([0], [])
    assert second["psnr"] is not None
    assert "drrn-b1u3 does not train with seed 0" in (
        (request.out / "report.md").read_text()
    )
    monkeypatch.undo()
    # Another attempt may get further.
    document = run_study(go_on(request))
    assert [row["diverged"] for row in rows_of(document)] == [[], []]
    assert document["finished"]


@pytest.mark.parametrize(
    ("name", "error"),
    [("last.safetensors", WeightsError), ("checkpoint.pt", InputError)],
)
def test_damaged_files_of_a_run_name_its_folder_and_a_remedy(request_of, name, error):
    request = request_of()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    folder = request.out / "drrn-b1u3"
    (folder / name).write_bytes(b"damaged")
    (folder / "checkpoint.previous.pt").write_bytes(b"damaged")
    with pytest.raises(error, match=f"delete {folder}, and --resume trains it anew"):
        run_study(go_on(request))
    shutil.rmtree(folder)
    assert run_study(go_on(request))["finished"]
