"""The report of a run: every fact in it, whatever the run came to."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.errors import OutputError
from srcli.evaluation.measurement import PictureResult, Row
from srcli.evaluation.published import PublishedResult
from srcli.training.checkpoint import TrainRequest
from srcli.training.log import Journal
from srcli.training.recipe import load_recipe
from srcli.training.report import write_report
from srcli.training.teacher import TeacherFacts

CPU = torch.device("cpu")
PAPER = PublishedResult(
    model="mrnet", label="MRNet", dataset="set5", scale=2, degradation="bi",
    psnr=38.14, ssim=0.9610, paper="mrnet", kind="comparison", source="MRNet Table 3",
)  # fmt: skip
NETWORK = Row(
    dataset="set5", scale=2, degradation="bi", protocol="rgb", model="mrnet",
    device="cpu", precision="fp32", parameters=1_061_705, paper=PAPER,
    pictures=(
        PictureResult(image="baby", psnr=38.5, ssim=0.962, ifc=None, seconds=1.0),
        PictureResult(image="bird", psnr=37.25, ssim=0.958, ifc=None, seconds=2.0),
    ),
)  # fmt: skip


@pytest.fixture
def report(tmp_path):
    """A function that writes the report of a run that came to this, and reads it."""

    def write(folder="run", rows=(), weights=None, request=None, fields=None, **facts):
        values = {"scales": [2], "steps": 5000, **(fields or {})}
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        sampler = SimpleNamespace(
            count=1234, pixels=56_700_000, fingerprint="0123456789ab", device=CPU,
            skipped=[Path("data/bad|one.png")], held_out={},
        )  # fmt: skip
        trainer = SimpleNamespace(**{
            "recipe": load_recipe("mrnet", "fast", values), "sampler": sampler,
            "step": 5000, "seconds": 7500.0, "finished": True, "best": {},
            "best_step": 0, "taught_by": (), "world": SimpleNamespace(size=1),
            "plateau": SimpleNamespace(is_over=False), **facts,
        })  # fmt: skip
        write_report(
            TrainRequest(model="mrnet", out=out, **(request or {})),
            trainer, folders=[Path("data")], precision="bf16", weights=weights,
            rows=rows,
        )  # fmt: skip
        return (out / "report.md").read_text("utf-8")

    return write


def test_a_finished_run_says_what_it_was_and_how_to_go_on(report, tmp_path):
    text = report(best={"mean": 37.5, "x2": 37.5}, best_step=4000)
    assert text.startswith("# mrnet at x2\n")
    assert "took all 5,000 steps, in 2 h 5 min of wall-clock." in text
    assert "at step 4,000: mean 37.500, x2 37.500 (PSNR in dB)" in text
    assert f"--resume --out {tmp_path / 'run'} --steps 10000" in text
    for fact in ("1,234, 56.7 megapixels", "0123456789ab", "`data/bad\\|one.png`",
                 "cpu, bf16", "`data`"):  # fmt: skip
        assert fact in text
    assert len(text.splitlines()) <= 80


def test_how_a_run_ended_is_said(report):
    for facts, fields, said in (
        ({"finished": False, "step": 70}, {},
         "took 70 steps of 5,000, in 2 h 5 min of wall-clock; there it was stopped."),
        ({"plateau": SimpleNamespace(is_over=True), "step": 70}, {},
         "took 70 steps of 5,000, in 2 h 5 min of wall-clock; there its plateau"),
        ({"step": 70}, {"minutes": 125.0}, "took all 70 steps within 2 h 5 min"),
        ({}, {"scales": [3], "degradation": "dn"}, "# mrnet at x3, degradation dn\n"),
        ({}, {}, "It was not validated"),
    ):  # fmt: skip
        assert said in report(fields=fields, **facts)


def test_table_against_the_paper_has_every_difference(report):
    bicubic = dataclasses.replace(
        NETWORK, protocol="y", model="bicubic", parameters=None,
        paper=dataclasses.replace(PAPER, psnr=33.66, ssim=0.9299, source="DRRN T. 2"),
    )  # fmt: skip
    weights = Path("run/export/mrnet.safetensors")
    text = report(rows=(bicubic, NETWORK), weights=weights)
    row = next(line for line in text.splitlines() if "| mrnet (rgb) |" in line)
    # 37.875 is the mean of 38.5 and 37.25: 0.265 below (rounded: -0.26), 0.001 of SSIM.
    for figure in ("37.88", "38.14", "-0.26", "0.9600", "0.9610", "-0.0010"):
        assert f"| {figure} |" in row, figure
    assert "srcli benchmark -d set5" in text
    assert "MRNet Table 3" in text
    changed = report(rows=(NETWORK,), weights=weights, fields={"config": {"width": 8}})
    assert "not mrnet as published: `{'width': 8}`" in changed
    alone = dataclasses.replace(NETWORK, paper=None)
    assert "No paper prints figures of mrnet" in report(rows=(alone,), weights=weights)


def test_changed_fields_and_teachers_are_named(report):
    teacher = TeacherFacts(file="t.pth", sha256="ab12", licence="CC0-1.0", scales=(2,))
    text = report(fields={"learning_rate": 0.00077}, taught_by=(teacher,))
    assert "changed: `scales = (2,), steps = 5000" in text
    assert "learning_rate = 0.00077" in text
    assert "teacher at x2 | `t.pth`, SHA-256 `ab12`, terms: CC0-1.0" in text
    gone = report(request={"recipe": "gone.toml"})
    assert "`gone.toml`, all in `recipe.json`" in gone


def test_the_course_is_a_table_with_the_best_in_bold_and_a_picture(report, tmp_path):
    (tmp_path / "run").mkdir()
    journal = Journal(tmp_path / "run", 0)
    for step in range(100, 10_100, 100):
        journal.write(step, loss=100.0 / step, rate=1e-3, seconds_per_step=0.5)
        journal.write(step, psnr={2: 30 + step / 1e4 - (step > 4200)})
    journal.write(5000, event="back to step 4900")
    text = report(best={"mean": 30.42}, best_step=4200)
    rows = [line for line in text.splitlines() if "| 0.001 |" in line]
    assert len(rows) <= 12
    assert "| **4,200** | **0.02381** | **0.001** | **30.420** |" in text
    assert "- step 5,000: back to step 4900" in text
    assert "A step took 0.5 s (median)." in text
    assert len(text.splitlines()) <= 80
    picture = np.asarray(Image.open(tmp_path / "run" / "curves.png").convert("RGB"))
    for color in ((0, 114, 178), (230, 159, 0), (213, 94, 0)):  # loss, rate, the best
        assert (np.abs(picture.astype(int) - color).sum(2) < 12).sum() > 100


@pytest.mark.parametrize(
    "lines",
    [
        [], [(100, {"loss": 1.0})], [(5, {"psnr": {2: 30.0}})],
        [(100, {"loss": 0.0, "rate": 0.0}), (100, {"psnr": {2: 30.0, 3: 30.0}})],
        [(1, {"event": "back"}), (9, {"psnr": {4: 9.0}}), (8, {"psnr": {4: 8.0}})],
    ],
)  # fmt: skip
def test_any_log_makes_a_report_without_a_warning(report, tmp_path, recwarn, lines):
    (tmp_path / "run").mkdir()
    journal = Journal(tmp_path / "run", 0)
    for step, values in lines:
        journal.write(step, **values)
    report()
    figures = any("event" not in values for _, values in lines)
    assert (tmp_path / "run" / "curves.png").exists() == figures
    assert not recwarn.list


def test_a_report_that_cannot_be_written_is_named(report, tmp_path):
    (tmp_path / "run" / "report.md").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"report\.md"):
        report()
