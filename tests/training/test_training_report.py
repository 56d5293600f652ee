"""The report of a run: every fact in it, whatever the run came to."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from srcli.errors import OutputError
from srcli.evaluation.benchmark import PictureResult, Row
from srcli.evaluation.published import PublishedResult
from srcli.training.data import CropSampler, find_pictures
from srcli.training.recipe import load_recipe
from srcli.training.report import PictureFacts, RunFacts, write_report

CPU = torch.device("cpu")
RECIPE = load_recipe(
    "mrnet", "fast", {"scales": [2], "steps": 5000, "learning_rate": 0.00077}
)
FACTS = RunFacts(
    recipe=RECIPE,
    recipe_name="fast",
    pictures=PictureFacts(
        count=1234,
        pixels=56_700_000,
        fingerprint="0123456789ab",
        skipped=(Path("data/bad|one.png"), Path("data/bad two.png")),
        folders=(Path("data"),),
    ),
    step=5000,
    seconds=7500,
    finished=True,
    device=CPU,
    precision="bf16",
)
PAPER = PublishedResult(
    model="mrnet",
    label="MRNet",
    dataset="set5",
    scale=2,
    degradation="bi",
    psnr=38.14,
    ssim=0.9610,
    paper="mrnet",
    kind="comparison",
    source="MRNet Table 3",
)
NETWORK = Row(
    dataset="set5",
    scale=2,
    degradation="bi",
    protocol="rgb",
    model="mrnet",
    device="cpu",
    precision="fp32",
    parameters=1_061_705,
    paper=PAPER,
    pictures=(
        PictureResult(image="baby", psnr=38.5, ssim=0.962, ifc=None, seconds=1.0),
        PictureResult(image="bird", psnr=37.25, ssim=0.958, ifc=None, seconds=2.0),
    ),
)
BICUBIC = dataclasses.replace(
    NETWORK,
    protocol="y",
    model="bicubic",
    parameters=None,
    paper=dataclasses.replace(PAPER, psnr=33.66, ssim=0.9299, source="DRRN Table 2"),
    pictures=(
        PictureResult(image="baby", psnr=33.66, ssim=0.9299, ifc=None, seconds=0.0),
    ),
)


def report(folder, log=(), **changes):
    if log:
        text = "".join(json.dumps(line) + "\n" for line in log)
        (folder / "log.jsonl").write_text(text)
    path = write_report(folder, dataclasses.replace(FACTS, **changes))
    assert path == folder / "report.md"
    return path.read_text("utf-8")


def section(text, title):
    """The lines of a section that are not empty."""
    body = text.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line for line in body.splitlines() if line]


def table(lines):
    """The cells of every row, the head first."""
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert set("".join(rows[1])) <= set("-:")
    return [rows[0], *rows[2:]]


def validation(step, psnr):
    return {"step": step, "psnr": {"2": psnr}}


def test_a_finished_run_says_what_it_was_and_how_to_go_on(tmp_path):
    log = [
        {"step": 100, "loss": 0.5, "seconds_per_step": 0.25, "data_share": 0.004},
        validation(1000, 36.75),
    ]
    text = report(
        tmp_path, log, best={"mean": 36.75, "x2": 36.75}, best_step=1000, val="set5"
    )
    head = text.split("\n## ")[0]
    assert text.startswith("# mrnet at x2\n")
    assert "all 5,000 steps" in head
    assert "2 h 5 min" in head
    assert "`set5`, at step 1,000: mean 36.750, x2 36.750" in head
    assert "0.25 s (median), 0.4% of it" in head
    assert f"srcli train -m mrnet --resume --out {tmp_path} --steps 10000" in head


def test_title_names_every_scale_and_the_degradation(tmp_path):
    several = load_recipe("mrnet", "fast")
    assert report(tmp_path, recipe=several).startswith("# mrnet at x2, x3 and x4\n")
    blurred = load_recipe("mrnet", "fast", {"scales": [3], "degradation": "bd"})
    title = report(tmp_path, recipe=blurred).splitlines()[0]
    assert title == "# mrnet at x3, degradation bd"


def test_a_run_that_was_stopped_says_so(tmp_path):
    path = tmp_path / "last.safetensors"
    text = report(tmp_path, step=1234, finished=False, weights=path, val="b100")
    assert "1,234 of 5,000 steps" in text
    assert f"--resume --out {tmp_path}\n" in text
    # Not measured, so the command to do it is there.
    assert "Not measured" in section(text, "Against the paper")[0]
    assert "srcli benchmark -d b100 -m mrnet -x 2" in text
    assert f"--weights {path}" in text


def test_a_plateau_that_ended_the_run_leaves_nothing_to_resume(tmp_path):
    text = report(tmp_path, step=1234, finished=True)
    assert "1,234 steps" in text
    assert "plateau" in text.split("\n## ")[0]
    assert "--resume" not in text


def test_folders_with_spaces_are_quoted_in_commands(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    assert f"--out '{folder}'" in report(folder, finished=False)


def test_table_against_the_paper_has_every_difference(tmp_path):
    path = tmp_path / "best.safetensors"
    text = report(tmp_path, weights=path, rows=[BICUBIC, NETWORK], val="set5")
    lines = section(text, "Against the paper")
    head, bicubic, ours = table(lines)
    bicubic, ours = (dict(zip(head, row, strict=True)) for row in (bicubic, ours))
    assert bicubic["Model"] == "bicubic (y)"
    assert (bicubic["PSNR"], bicubic["PSNR, difference"]) == ("33.66", "+0.00")
    assert ours["Model"] == "mrnet (rgb)"
    assert (ours["PSNR"], ours["SSIM"]) == ("37.88", "0.9600")
    assert (ours["PSNR, paper"], ours["SSIM, paper"]) == ("38.14", "0.9610")
    assert ours["PSNR, difference"] == "-0.26"
    assert ours["SSIM, difference"] == "-0.0010"
    assert ours["Source"] == "MRNet Table 3"
    assert "srcli benchmark -d set5 -m mrnet -x 2" in "".join(lines)
    assert "chosen by their PSNR on this same set" in lines[-1]


def test_what_the_table_cannot_say_is_said(tmp_path):
    alone = dataclasses.replace(NETWORK, paper=None)
    recipe = load_recipe("mrnet", "fast", {"config": {"width": 32}})
    path = tmp_path / "last.safetensors"
    lines = section(
        report(tmp_path, recipe=recipe, weights=path, rows=[BICUBIC, alone]),
        "Against the paper",
    )
    assert "No paper prints figures of mrnet on set5 x2." in lines
    assert 'The network is not mrnet as published: `{"width": 32}`.' in lines
    assert not any("chosen" in line for line in lines)


def test_recipe_marks_what_differs_from_the_named_one(tmp_path):
    lines = section(report(tmp_path), "Recipe")
    rows = {row[0].strip("*"): row for row in table(lines)[1:]}
    assert set(rows) == {field.name for field in dataclasses.fields(RECIPE)}
    usual = load_recipe("mrnet", "fast")
    assert rows["learning_rate"] == [
        *("**learning_rate**", "**`0.00077`**", f"`{usual.learning_rate}`")
    ]
    assert rows["scales"] == ["**scales**", "**`[2]`**", f"`{list(usual.scales)}`"]
    assert rows["loss"][:2] == ["loss", f'`"{usual.loss}"`']
    bold = {name for name, row in rows.items() if row[0].startswith("**")}
    assert bold == {"learning_rate", "rate_batch", "scales", "steps"}
    assert "4 of its fields" in lines[0]


@pytest.mark.parametrize("name", [None, "gone.toml"])
def test_recipe_without_the_named_one_is_whole_and_unmarked(tmp_path, name):
    lines = section(report(tmp_path, recipe_name=name), "Recipe")
    assert len(table(lines)) == 1 + len(dataclasses.fields(RECIPE))
    assert "**" not in "".join(lines)
    assert ("gone.toml" in lines[0]) == (name is not None)


def test_pictures_are_counted_hashed_and_the_skipped_named(tmp_path):
    lines = section(report(tmp_path), "Data")
    rows = {row[0]: row[1] for row in table(lines)[1:]}
    assert rows["pictures"] == "1,234"
    assert rows["megapixels"] == "56.7"
    assert rows["hash of their values"] == "`0123456789ab`"
    assert rows["skipped: unreadable, or the same as another"] == "2"
    assert rows["found in"] == "`data`"
    assert lines[-2:] == ["- `data/bad|one.png`", "- `data/bad two.png`"]


def test_very_many_skipped_pictures_are_counted_in_full(tmp_path):
    skipped = tuple(Path(f"{n}.png") for n in range(1500))
    pictures = dataclasses.replace(FACTS.pictures, skipped=skipped)
    lines = section(report(tmp_path, pictures=pictures), "Data")
    assert "1,500" in "".join(lines)
    assert lines[-1] == "- and 1,400 more"


def test_picture_facts_come_from_a_sampler(tmp_path, picture):
    for number in range(2):
        Image.fromarray(picture(60 + number, 70)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_text("no picture")
    sampler = CropSampler(
        find_pictures([tmp_path]), load_recipe("drrn", "fast"), "y", CPU
    )
    facts = PictureFacts.of(sampler, [tmp_path])
    assert (facts.count, facts.pixels) == (2, (60 + 61) * 70)
    assert facts.skipped == (tmp_path / "bad.png",)
    assert facts.fingerprint == sampler.fingerprint
    assert facts.folders == (tmp_path,)


def test_names_that_are_no_text_do_not_stop_the_report(tmp_path):
    bad = Path(b"data/\xff.png".decode("utf-8", "surrogateescape"))
    pictures = dataclasses.replace(FACTS.pictures, skipped=(bad,))
    assert "data/" in section(report(tmp_path, pictures=pictures), "Data")[-1]


def test_curve_is_a_table_with_the_best_in_bold(tmp_path):
    log = [
        {"step": 100, "loss": 0.5, "rate": 0.001},
        {"step": 900, "loss": 0.25, "rate": 0.0005},
        validation(1000, 36.5),
        validation(2000, 36.25),
    ]
    text = report(tmp_path, log, best={"mean": 36.5}, best_step=1000)
    lines = section(text, "Curve")
    assert table(lines) == [
        ["step", "loss", "learning rate", "x2 (dB)"],
        ["**1,000**", "**0.25**", "**0.0005**", "**36.500**"],
        ["2,000", "0.25", "0.0005", "36.250"],
    ]
    assert "curves.png" not in text
    (tmp_path / "curves.png").write_bytes(b"")
    assert section(report(tmp_path, log), "Curve")[0] == "![curves](curves.png)"


def test_a_long_curve_is_thinned_but_keeps_its_corners(tmp_path):
    log = [validation(1000 * n, 30 + n / 1000) for n in range(1, 1001)]
    lines = section(report(tmp_path, log, best_step=777_000), "Curve")
    steps = [row[0] for row in table(lines)[1:]]
    assert 20 <= len(steps) <= 25
    assert steps[0] == "1,000"
    assert steps[-1] == "1,000,000"
    assert "**777,000**" in steps


def test_without_validation_the_curve_is_that_of_the_loss(tmp_path):
    text = report(tmp_path, [{"step": 100, "loss": 0.5, "rate": 0.001}])
    lines = section(text, "Curve")
    assert "no validation" in lines[0]
    assert table(lines)[1:] == [["100", "0.5", "0.001"]]
    assert "not validated" in text.split("\n## ")[0]


def test_a_run_too_short_for_any_figure_has_a_report(tmp_path):
    text = report(tmp_path, step=3, seconds=0.7, finished=False)
    assert "3 of 5,000 steps in 1 s" in text
    assert "too short" in section(text, "Curve")[-1]
    assert section(text, "Events") == ["None."]


def test_events_are_listed_with_their_steps(tmp_path):
    log = [
        {"step": 1200, "event": "rolled back\nto step 1000"},
        {"step": 3000, "event": "again"},
    ]
    assert section(report(tmp_path, log), "Events") == [
        "1. step 1,200: rolled back to step 1000",
        "2. step 3,000: again",
    ]


def test_machine_has_the_device_and_the_precision(tmp_path):
    lines = section(report(tmp_path, devices=2), "Machine")
    rows = dict(table(lines)[1:])
    assert rows["trained on"] == "cpu, 2 processes, bf16"
    assert rows["PyTorch"] == torch.__version__


def test_a_report_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "report.md").mkdir()
    with pytest.raises(OutputError, match=r"report\.md"):
        write_report(tmp_path, FACTS)
