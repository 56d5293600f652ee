"""Studies run: equal crops, stopped and gone on with, and never mixed with others."""

import dataclasses
import json
import signal

import pytest

from srcli.errors import InputError, OutputError, UsageError
from srcli.progress import SILENT
from srcli.training import study as study_module
from srcli.training.checkpoint import load_checkpoint
from srcli.training.request import TrainRequest
from srcli.training.run import train
from srcli.training.stopping import (
    DivergedError,
    TrainingStoppedError,
    TrainingTerminatedError,
)
from srcli.training.study import is_study, run_study
from srcli.training.study_outcome import read_outcome
from srcli.training.study_plan import load_study

TINY = {
    "variants": "drrn-b1u3,drrn-b2u3",
    "config": {"width": 4},
    "crop": 12,
    "batch": 2,
    "steps": 3,
}


@pytest.fixture
def request_of(tmp_path, pictures):
    """A function that makes a request for a tiny study."""

    def make(**values):
        overrides = {**TINY, **values.pop("overrides", {})}
        settings = {
            "model": "drrn",
            "recipe": "ablation",
            "out": tmp_path / "study",
            "data": (pictures,),
            "val": str(pictures),
            "overrides": overrides,
            "device": "cpu",
            "precision": "fp32",
        }
        return TrainRequest(**{**settings, **values})

    return make


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
    request = request_of()
    result = run_study(request)
    assert (result.done, result.count) == (2, 2)
    states = [load_checkpoint(request.out / name) for name in result.study.variants]
    assert [state["step"] for state in states] == [3, 3]
    assert states[0]["sampler"].equal(states[1]["sampler"])
    assert [state["config"]["blocks"] for state in states] == [1, 2]
    assert {state["config"]["width"] for state in states} == {4}
    for row in result.rows:
        folder = request.out / row.variant
        assert (folder / "report.md").is_file()
        assert not (folder / "export").exists()
        lines = (folder / "log.jsonl").read_text().splitlines()
        (last,) = (entry for entry in map(json.loads, lines) if "psnr" in entry)
        assert row.psnr == round(last["psnr"]["3"], 3)
    text = (request.out / "report.md").read_text()
    assert "2 of 2 runs are done, each of 3 steps of 2 crops" in text
    assert f"{result.rows[1].psnr:.3f}" in text
    assert "a second block helps (4.3)" in text
    assert "**steps** | **`3`**" in text


def test_the_figure_is_the_last_steps_and_not_the_best(request_of):
    request = request_of(overrides={"variants": "drrn-b1u3", "validate_every": 2})
    result = run_study(request)
    log = request.out / "drrn-b1u3" / "log.jsonl"
    log.write_text('{"step": 2, "psnr": {"3": 40}}\n{"step": 3, "psnr": {"3": 30}}\n')
    (member,) = result.study.list_members(request.out)
    outcome = read_outcome(member)
    assert (outcome.psnr, outcome.finished) == (30.0, True)


def test_minutes_are_for_the_whole_study_and_resume_goes_on_exactly(request_of):
    whole = run_study(request_of())
    request = request_of(out=whole.out.with_name("parts"))
    part = run_study(dataclasses.replace(request, max_minutes=0.0))
    assert [row.steps for row in part.rows] == [1, 0]
    assert [row.psnr for row in part.rows] == [None, None]
    text = (request.out / "report.md").read_text()
    assert f"--recipe ablation --resume --out {request.out}" in text
    part = run_study(go_on(request, max_minutes=0.0))
    done = run_study(go_on(request))
    assert part.done < done.done == 2
    assert [row.psnr for row in done.rows] == [row.psnr for row in whole.rows]


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, TrainingStoppedError),
        (signal.SIGTERM, TrainingTerminatedError),
    ],
)
def test_a_signal_keeps_what_is_done(request_of, number, error):
    request = request_of()
    with pytest.raises(error, match="while training drrn-b2u3") as caught:
        run_study(request, Interrupt(5, number))
    assert type(caught.value) is error
    assert "--recipe ablation --resume --out" in str(caught.value)
    assert "1 of 2 runs are done" in (request.out / "report.md").read_text()
    first = request.out / "drrn-b1u3" / "checkpoint.pt"
    before = first.stat().st_mtime_ns
    assert load_checkpoint(request.out / "drrn-b2u3")["step"] == 2
    result = run_study(go_on(request))
    assert result.done == 2
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
    assert run_study(same).done == 2


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
    (request.out / "study.json").write_text("{}")
    with pytest.raises(InputError, match=r"study\.json cannot be read"):
        run_study(go_on(request))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"val": "none"}, UsageError, "cannot be none"),
        ({"init": "bundled"}, UsageError, "leave --init out"),
        ({"precision": "fp16"}, UsageError, "fp16"),
        ({"val": "nowhere/x"}, InputError, "nowhere/x does not exist"),
    ],
)
def test_what_fails_early_leaves_nothing(request_of, values, error, message):
    request = request_of(**values)
    with pytest.raises(error, match=message):
        run_study(request)
    assert not request.out.exists()


def test_several_seeds_give_mean_and_spread(request_of):
    request = request_of(overrides={"seeds": 2, "steps": 1}, seed=3)
    result = run_study(request)
    assert result.count == result.done == 4
    row = result.rows[0]
    assert set(row.figures) == {3, 4}
    assert row.figures[3] != row.figures[4]
    assert row.spread > 0
    assert (request.out / "drrn-b2u3" / "seed-4" / "checkpoint.pt").is_file()
    assert "| ± |" in (request.out / "report.md").read_text()


def test_a_variant_that_does_not_train_does_not_stop_the_others(
    request_of, monkeypatch, caplog
):
    def fail_first(request, progress=SILENT):
        if request.model == "drrn-b1u3":
            raise DivergedError("the loss is no number any more")
        return train(request, progress)

    monkeypatch.setattr(study_module, "train", fail_first)
    result = run_study(request_of())
    assert "drrn-b1u3 does not train: the loss is no number" in caplog.text
    assert [row.psnr is None for row in result.rows] == [True, False]
    assert [verdict.text for verdict in result.verdicts] == ["open"]


def test_setbacks_and_other_pictures_are_said(request_of, tmp_path):
    request = request_of()
    run_study(request)
    log = request.out / "drrn-b1u3" / "log.jsonl"
    with log.open("a") as file:
        file.write('{"step": 3, "event": "back to step 0"}\n')
    (request.data[0] / "0.png").unlink()
    (request.out / "drrn-b2u3" / "last.safetensors").unlink()
    for path in (request.out / "drrn-b2u3").glob("checkpoint*"):
        path.unlink()
    (request.out / "drrn-b2u3" / "best.safetensors").unlink()
    run_study(go_on(request))
    text = (request.out / "report.md").read_text()
    assert "drrn-b1u3 went back once with" in text
    assert "The pictures were not the same for all: 3 pictures" in text


def test_a_run_gone_on_with_by_hand_is_no_longer_the_studys(request_of):
    request = request_of()
    run_study(request)
    folder = request.out / "drrn-b1u3"
    more = {"steps": 4}
    train(
        TrainRequest(
            model="drrn-b1u3",
            out=folder,
            resume=True,
            overrides=more,
            device="cpu",
            measured=False,
        )
    )
    with pytest.raises(UsageError, match="by another recipe than its study's"):
        run_study(go_on(request))


def test_a_variants_run_is_the_same_as_alone(request_of, tmp_path):
    request = request_of(seed=2)
    run_study(request)
    study = load_study("drrn", TINY, seed=2)
    train(
        TrainRequest(
            model="drrn-b2u3",
            out=tmp_path / "alone",
            data=request.data,
            val="none",
            recipe="ablation",
            overrides=study.overrides,
            seed=2,
            device="cpu",
            precision="fp32",
            measured=False,
        )
    )
    both = [
        load_checkpoint(folder)["model"]
        for folder in (tmp_path / "alone", request.out / "drrn-b2u3")
    ]
    assert all(both[0][name].equal(both[1][name]) for name in both[0])
