"""`srcli train --recipe ablation` from outside: the paper's table beside ours."""

import json

import pytest

TINY = (
    "--set", "config.width=4", "--set", "crop=12", "--set", "batch=2",
    "--set", "variants=vdsr-d16,drrn-b1u3", "--device", "cpu", "--precision", "fp32",
)  # fmt: skip


def test_a_study_in_parts(run, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = ("train", "-m", "drrn", "--recipe", "ablation")
    first = run(
        *study, "--data", pictures, "--val", pictures, "--steps", "2",
        "--max-minutes", "0", *TINY,
    )  # fmt: skip
    assert first.exit_code == 0, first.stderr
    assert "0 of 2 runs of 2 steps done" in first.stdout
    out = tmp_path / "runs" / "drrn-ablation"
    # The folder says what it is.
    done = run("train", "-m", "drrn", "--resume", "-o", out, "--json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["finished"] is True
    (table,) = document["tables"]
    assert [row["steps"] for row in table["rows"]] == [2, 2]
    # A figure of the table is what a benchmark of that variant's weights gives.
    measured = run(
        "benchmark", "-d", pictures, "-x", "3", "-m", "drrn-b1u3", "--json",
        "--weights", out / "drrn-b1u3" / "last.safetensors",
        "--device", "cpu", "--precision", "fp32",
    )  # fmt: skip
    assert measured.exit_code == 0, measured.stderr
    rows = json.loads(measured.stdout)["rows"]
    (psnr,) = (row["psnr"] for row in rows if row["model"] == "drrn-b1u3")
    assert table["rows"][1]["psnr"] == pytest.approx(psnr, abs=0.001)
    again = run(*study, "--resume", "--json")
    assert json.loads(again.stdout) == document | {"out": "runs/drrn-ablation"}


def test_a_study_of_two_tables(run, pictures, tmp_path):
    out = tmp_path / "study"
    done = run(
        "train", "-m", "dsrn", "--recipe", "ablation", "-o", out, "--steps", "1",
        "--data", pictures, "--val", pictures, *TINY, "--set",
        "variants=dsrn-t8,dsrn-single-state,dsrn-t6,dsrn",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "4 of 4 runs of 1 steps done" in done.stdout
    assert done.stdout.index("DSRN Table 2") < done.stdout.index("DSRN Figure 3")
    names = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    rows = [name for name in names if name.startswith("dsrn-") or name == "dsrn"]
    # Below the title, both tables in the paper's order; T = 7 stands in each.
    assert rows[1:] == ["dsrn-single-state", "dsrn", "dsrn-t6", "dsrn", "dsrn-t8"]
    again = run("train", "-m", "dsrn", "--resume", "-o", out, "--json")
    assert again.exit_code == 0, again.stderr
    first, second = json.loads(again.stdout)["tables"]
    assert first["rows"][1] == second["rows"][1] | {
        "difference": first["rows"][1]["difference"]
    }
    assert first["rows"][1]["psnr"] is not None
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "dsrn", "dsrn-single-state", "dsrn-t6", "dsrn-t8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["-m", "rrrn"], 2, "has no recipe ablation; what has one: drcn, drrn, dsrn"),
        (["-m", "drrn-b3u4"], 2, "-m drrn --set variants=drrn-b3u4"),
        (["-m", "drrn", "--set", "variants=mrnet"], 2, "is a variant of mrnet"),
        (
            ["-m", "dsrn", "--set", "tables=DSRN Table 3"],
            2,
            "did you mean DSRN Table 2",
        ),
        (["-m", "drrn", "--val", "none"], 2, "cannot be none"),
        (["-m", "drrn", "--init", "bundled"], 2, "leave --init out"),
        (["-m", "drrn", "--devices", "2"], 2, "leave --devices out"),
        (["-m", "drrn", "--export"], 2, "leave --recipe out"),
        (["-m", "drrn", "-x", "2,3"], 2, "one scale"),
        (["-m", "drrn", "-x", "5"], 2, "2, 3 and 4"),
        (["-m", "drrn", "--resume", "--seed", "1"], 2, "leave --recipe and --seed out"),
        (["-m", "drrn", "--resume"], 3, "no study in"),
        (["-m", "drrn", "--data", "nowhere", "--val", "."], 3, "nowhere"),
    ],
)
def test_refusals_of_a_study(run, tmp_path, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    result = run("train", "--recipe", "ablation", *arguments)
    assert result.exit_code == code, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            "config.kernel=[4,8,8]",
            "error: kernel takes sizes from 3 to 7 for x3, not 8: it reaches beyond",
        ),
        ("config.steps=0", "at least one step"),
    ],
)
def test_a_config_that_makes_no_network_begins_nothing(
    run, pictures, tmp_path, setting, text
):
    out = tmp_path / "study"
    result = run(
        "train", "-m", "dsrn", "--recipe", "ablation", "-o", out, "--data", pictures,
        "--val", pictures, "--device", "cpu", "--set", setting,
    )  # fmt: skip
    assert result.exit_code == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert text in line
    assert not out.exists()
