"""Studies run: equal crops, stopped and gone on with, and never mixed with others."""

import dataclasses
import json
import math
import shutil
import signal

import pytest

from srcli.errors import (
    InputError,
    OutputError,
    TrainingStoppedError,
    TrainingTerminatedError,
    UsageError,
    WeightsError,
)
from srcli.progress import SILENT
from srcli.training import study as study_module
from srcli.training.checkpoint import TrainRequest, load_checkpoint
from srcli.training.loop import DivergedError, Trainer
from srcli.training.run import train
from srcli.training.study import run_study
from srcli.training.study_folder import is_study
from srcli.training.study_member import read_outcome
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
    request = request_of(overrides={"config": {}, "batch": 1})
    result = run_study(request)
    assert (result.done, result.count) == (2, 2)
    states = [load_checkpoint(request.out / name) for name in result.study.variants]
    assert [state["step"] for state in states] == [3, 3]
    assert states[0]["sampler"].equal(states[1]["sampler"])
    assert [state["config"]["blocks"] for state in states] == [1, 2]
    for row in result.rows:
        folder = request.out / row.variant
        assert (folder / "report.md").is_file()
        assert not (folder / "export").exists()
        lines = (folder / "log.jsonl").read_text().splitlines()
        (last,) = (entry for entry in map(json.loads, lines) if "psnr" in entry)
        assert row.psnr == round(last["psnr"]["3"], 3)
    text = (request.out / "report.md").read_text()
    assert "2 of 2 runs are done, each of 3 steps of 1 crops" in text
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


def test_a_study_of_one_table_stays_one(request_of):
    overrides = {"tables": "DSRN Figure 3", "steps": 1}
    request = request_of(model="dsrn", overrides=overrides)
    del request.overrides["variants"]
    first = run_study(dataclasses.replace(request, max_minutes=0.0))
    assert first.count == 9
    again = dataclasses.replace(go_on(request), model="dsrn", max_minutes=0.0)
    result = run_study(again)
    assert result.done == 2
    assert [table.source for table in result.tables] == ["DSRN Figure 3"]
    for tables in ("DSRN Table 2", "DSRN Table 2,DSRN Figure 3"):
        with pytest.raises(UsageError, match=r'has tables \["DSRN Figure 3"\], not'):
            run_study(dataclasses.replace(again, overrides={"tables": tables}))
    with pytest.raises(UsageError, match="not of both"):
        run_study(dataclasses.replace(again, overrides={"variants": "dsrn"}))
    # Studies that were begun before their tables were kept go on all the same.
    path = request.out / "study.json"
    kept = json.loads(path.read_text())
    assert kept.pop("tables") == ["DSRN Figure 3"]
    path.write_text(json.dumps(kept))
    with pytest.raises(UsageError, match="has variants"):
        run_study(dataclasses.replace(again, overrides={"tables": "DSRN Table 2"}))
    assert [each.source for each in run_study(again).tables] == ["DSRN Figure 3"]


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


def test_drcns_extensions_are_trained_by_one_recipe(request_of):
    """Recursive supervision, of networks with one prediction and with several."""
    names = ["drcn-basic", "drcn-no-skip", "drcn-no-supervision", "drcn"]
    request = request_of(model="drcn", overrides={"variants": names, "steps": 2})
    result = run_study(request)
    assert (result.done, result.count) == (4, 4)
    assert None not in [row.psnr for row in result.rows]
    # Learned weights of the predictions, where there are several.
    states = [load_checkpoint(request.out / name)["model"] for name in names]
    assert ["weights" in state for state in states] == [False, True, False, True]


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


@pytest.mark.parametrize("lost", [("log.jsonl",), ("log.jsonl", "last.safetensors")])
def test_a_run_without_its_figure_is_measured_again(request_of, lost):
    """As one that was killed between its last checkpoint and its last validation."""
    request = request_of()
    before = run_study(request)
    member = before.study.list_members(request.out)[0]
    assert read_outcome(member).finished
    for name in lost:
        (member.folder / name).unlink()
    assert not read_outcome(member).finished
    done = run_study(go_on(request))
    assert (done.done, read_outcome(member).finished) == (2, True)
    assert [row.psnr for row in done.rows] == [row.psnr for row in before.rows]
    # Once is enough.
    log = member.folder / "log.jsonl"
    text = log.read_text()
    train(dataclasses.replace(go_on(request), model=member.variant, out=member.folder))
    assert log.read_text() == text


def test_a_run_given_up_is_remembered(request_of, monkeypatch):
    take = Trainer.train_step

    def diverge(self):
        loss = take(self)
        return loss * math.nan if self.recipe.model == "drrn-b1u3" else loss

    monkeypatch.setattr(Trainer, "train_step", diverge)
    request = request_of()
    result = run_study(request)
    assert not (request.out / "drrn-b1u3" / "last.safetensors").exists()
    first, second = result.rows
    assert (first.diverged, second.diverged) == ((0,), ())
    assert first.outcomes[0].setbacks == 8
    assert "drrn-b1u3 does not train with seed 0" in (
        (request.out / "report.md").read_text()
    )
    monkeypatch.undo()
    # Another attempt may get further.
    result = run_study(go_on(request))
    assert [row.diverged for row in result.rows] == [(), ()]
    assert result.done == 2


def test_the_study_is_gone_on_with_without_its_last_calls_record(request_of):
    request = request_of()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    (request.out / "run.json").unlink()
    result = run_study(go_on(request))
    assert result.done == 2
    kept = json.loads((request.out / "study.json").read_text())
    assert (kept["data"], kept["precision"]) == ([str(request.data[0])], "fp32")


def test_a_study_described_without_settings_is_gone_on_with(request_of):
    request = request_of()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    path = request.out / "study.json"
    kept = json.loads(path.read_text())
    for name in ("data", "val", "precision"):
        del kept[name]
    path.write_text(json.dumps(kept))
    assert run_study(go_on(request)).done == 2
    with pytest.raises(UsageError, match='has --precision "fp32", not "bf16"'):
        run_study(go_on(request, precision="bf16"))


def test_the_data_set_has_one_name_in_all_calls(request_of, monkeypatch):
    request = request_of()
    monkeypatch.chdir(request.data[0].parent)
    first = run_study(dataclasses.replace(request, val="./pictures", max_minutes=0.0))
    again = run_study(go_on(request))
    assert first.measured_on == again.measured_on == str(request.data[0])


@pytest.mark.parametrize(
    "values",
    [
        [], None, 3, {"model": 3}, {"asked": []}, {"scale": "3"}, {"seeds": []},
        {"seeds": ["0"]}, {"seeds": 0}, {"variants": [3]}, {"recipe": []},
        {"tables": "DRRN Table 4"}, {"tables": [4]},
        {"data": [3]}, {"val": None}, {"precision": 32},
    ],
)  # fmt: skip
def test_a_damaged_description_is_one_line(request_of, values):
    request = request_of()
    request.out.mkdir()
    kept = {
        "model": "drrn", "asked": {}, "scale": 3, "seeds": [0], "recipe": {},
        "variants": ["drrn-b1u3"],
    }  # fmt: skip
    text = json.dumps({**kept, **values} if isinstance(values, dict) else values)
    (request.out / "study.json").write_text(text)
    with pytest.raises(InputError, match=r"study\.json cannot be read"):
        run_study(go_on(request))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("last.safetensors", WeightsError),
        ("checkpoint.pt", InputError),
        ("run.json", InputError),
    ],
)
def test_damaged_files_of_a_run_name_its_folder_and_a_remedy(request_of, name, error):
    request = request_of()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    folder = request.out / "drrn-b1u3"
    (folder / name).write_bytes(b"damaged")
    (folder / "checkpoint.previous.pt").write_bytes(b"damaged")
    with pytest.raises(error, match=f"delete {folder}, and --resume trains it anew"):
        run_study(go_on(request))


def test_weights_without_a_checkpoint_name_the_remedy(request_of):
    request = request_of()
    run_study(dataclasses.replace(request, max_minutes=0.0))
    folder = request.out / "drrn-b1u3"
    for path in folder.glob("checkpoint*"):
        path.unlink()
    with pytest.raises(OutputError, match=f"delete {folder}, and --resume"):
        run_study(go_on(request))
    shutil.rmtree(folder)
    assert run_study(go_on(request)).done == 2


def test_several_devices_are_refused(request_of):
    with pytest.raises(UsageError, match="leave --devices out"):
        run_study(request_of(), devices=2)
