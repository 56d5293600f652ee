"""`srcli train` from outside: it trains, resumes, and refuses in a sentence."""

import json

import pytest

from srcli.cli.options import read_duration
from srcli.errors import UsageError
from srcli.pretrained.weight_file import read_weights

pytestmark = pytest.mark.usefixtures("elsewhere")

ON_CPU = ("--device", "cpu", "--precision", "fp32")
TINY = (
    "--set", "config.width=4", "--set", "config.blocks=1", "--set", "crop=8",
    "--set", "batch=2", "--set", "validate_every=4", *ON_CPU,
)  # fmt: skip
STUDY = (
    "--set", "config.width=4", "--set", "crop=12", "--set", "batch=2", *ON_CPU,
)  # fmt: skip


def test_trains_validates_resumes_and_starts_from_weights(run, pictures, tmp_path):
    out = tmp_path / "run"
    first = ("train", "-m", "mrnet", "--data", pictures, *TINY)
    common = (*first, "--val", pictures, "-o", out)
    result = run(*common, "--steps", "4", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["steps"], document["out"]) == (4, str(out))
    assert set(document["psnr"]) == {"mean", "x2", "x3", "x4"}
    network = read_weights(out / "best.safetensors")
    assert (network.config.width, network.config.blocks) == (4, 1)
    refused = run(*common, "--steps", "8")
    assert refused.exit_code == 4
    assert "--resume" in refused.stderr
    # Pictures, validation and precision are those of the first call.
    again = ("train", "-m", "mrnet", "-o", out, "--resume", "--device", "cpu")
    resumed = run(*again, "--steps", "5", "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["steps"] == 5
    # Another run takes over what fits.
    start = out / "last.safetensors"
    options = ("--init", start, "--set", "learning_rate=1e-12", "--steps", "1")
    result = run(*first, "--val", "none", "-o", tmp_path / "b", "-x", "2", *options)
    assert result.exit_code == 0, result.stderr
    before, after = map(read_weights, (start, tmp_path / "b" / start.name))
    assert after.config.scales == (2,)
    drift = (before.recurse.encode.weight - after.recurse.encode.weight).abs().max()
    assert drift < 1e-6


def test_a_perfect_validation_is_null_in_json(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("srcli.training.validation.psnr", lambda *_: float("inf"))
    result = run(
        "train", "-m", "mrnet", "-x", "2", "--data", pictures, "--val", pictures, "-o",
        tmp_path / "run", "--steps", "1", "--json", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["psnr"]["mean"] is None


def test_a_study_in_parts(run, pictures):
    study = ("train", "-m", "drrn", "--recipe", "ablation")
    first = run(
        *study, "--data", pictures, "--val", pictures, "--steps", "2",
        "--max-minutes", "0", "--set", "variants=vdsr-d16,drrn-b1u3", *STUDY,
    )  # fmt: skip
    assert first.exit_code == 0, first.stderr
    assert "0 of 2 runs of 2 steps done" in first.stdout
    # The folder says what it is.
    done = run("train", "-m", "drrn", "--resume", "-o", "runs/drrn-ablation", "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["finished"] is True
    (table,) = document["tables"]
    assert [row["steps"] for row in table["rows"]] == [2, 2]
    # A figure of the table is what a benchmark of that variant's weights gives.
    measured = run(
        "benchmark", "-d", pictures, "-x", "3", "-m", "drrn-b1u3", "--json",
        "--weights", "runs/drrn-ablation/drrn-b1u3/last.safetensors", *ON_CPU,
    )  # fmt: skip
    assert measured.exit_code == 0, measured.stderr
    rows = json.loads(measured.stdout)["rows"]
    (psnr,) = (row["psnr"] for row in rows if row["model"] == "drrn-b1u3")
    assert table["rows"][1]["psnr"] == pytest.approx(psnr, abs=0.001)
    assert json.loads(run(*study, "--resume", "--json").stdout) == document


# Arguments, exit code and a word of the message
REFUSED = {
    "-m mrnett": (2, "did you mean mrnet"),
    "-m mrnet --recipe papr": (2, "did you mean paper"),
    "-m mrnet --set stepps=3": (2, "did you mean steps"),
    "-m mrnet --set config.width=wide": (2, "takes int"),
    "-m mrnet --set model=drrn": (2, "--model names it"),
    "-m mrnet -x 5": (2, "2, 3 and 4"),
    "-m dsrn -x 2 -x 3": (2, "serves one scale"),
    "-m drcn -x 2.5": (2, "--scale takes"),
    "-m mrnet --resume --init bundled": (2, "leave --init out"),
    "-m drcn --recipe paper --data .": (2, "--val"),
    "-m mrnet --seed -1": (2, "--seed"),
    "-m mrnet --for 8": (2, "say 8h, 25m or 1h30m"),
    "-m mrnet --for 8h --steps 9": (2, "name one"),
    "-m mrnet --export --steps 3": (2, "leave --steps out"),
    "-m mrnet": (3, "--data"),
    "-m mrnet --data nowhere": (3, "nowhere"),
    "-m mrnet --resume": (3, "nothing to resume"),
    "-m mrnet --init gone.safetensors": (5, "gone.safetensors"),
    "-m mrnet --device cuda:99": (6, "CUDA"),
}
REFUSED_STUDIES = {
    "-m rrrn": (2, "has no recipe ablation; what has one: drcn, drrn, dsrn"),
    "-m drrn-b3u4": (2, "-m drrn --set variants=drrn-b3u4"),
    "-m drrn --set variants=mrnet": (2, "is a variant of mrnet"),
    "-m dsrn --set tables=DSRN_Table_3": (2, "did you mean DSRN Table 2"),
    "-m drrn --val none": (2, "cannot be none"),
    "-m drrn --init bundled": (2, "leave --init out"),
    "-m drrn --devices 2": (2, "leave --devices out"),
    "-m drrn --export": (2, "leave --recipe out"),
    "-m drrn -x 2,3": (2, "one scale"),
    "-m drrn --resume --seed 1": (2, "leave --recipe and --seed out"),
    "-m drrn --resume": (3, "no study in"),
    "-m drrn --data nowhere --val .": (3, "nowhere"),
    "-m dsrn --data . --val . --set config.steps=0": (2, "at least one step"),
    "-m dsrn --data . --val . --set config.kernel=[4,8,8]": (2, "takes sizes from"),
}


@pytest.mark.parametrize(("listed", "more"), [
    (REFUSED, ("--val", "none")), (REFUSED_STUDIES, ("--recipe", "ablation")),
])  # fmt: skip
def test_refusals_are_a_sentence_and_leave_nothing(
    run, tmp_path, monkeypatch, listed, more
):
    monkeypatch.chdir(tmp_path)
    for words, (code, message) in listed.items():
        arguments = [word.replace("_", " ") for word in words.split()]
        result = run("train", *more, *arguments)
        assert (result.exit_code, result.stdout) == (code, ""), words
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert list(tmp_path.iterdir()) == []


def test_times_are_read_as_people_type_them():
    said = {"8h": 28_800, "25m": 1500, "1h30m": 5400, "1.5h": 5400, "90S": 90,
            " .5d": 43_200}  # fmt: skip
    assert {text: read_duration(text) for text in said} == said
    for wrong in ("", "8", "h", "0m", "8x", "1.2.3h", "-5m", "8h late"):
        with pytest.raises(UsageError, match="say 8h, 25m or 1h30m"):
            read_duration(wrong)
