"""How stages are shown: on screen, in JSON, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from srcli.evaluation import tables as report
from srcli.evaluation.measurement import (
    BenchmarkRequest,
    PictureResult,
    Row,
    StageResult,
)
from srcli.evaluation.tables import print_stages


def result(image, *figures):
    """A picture whose stages have these PSNRs and SSIMs; a single one is no stage."""
    stages = tuple(StageResult(psnr=psnr, ssim=ssim) for psnr, ssim in figures)
    psnr, ssim = figures[-1]
    return PictureResult(
        image=image,
        psnr=psnr,
        ssim=ssim,
        ifc=None,
        seconds=1.0,
        stages=stages if len(stages) > 1 else (),
    )


BICUBIC = Row(
    dataset="set5",
    scale=2,
    degradation="bi",
    protocol="y",
    model="bicubic",
    pictures=(result("baby", (33.0, 0.92)), result("bird", (34.0, 0.94))),
)
NETWORK = replace(
    BICUBIC,
    protocol="rgb",
    model="rrrn",
    stage_names=("sub-network 1", "sub-network 2"),
    pictures=(
        result("baby", (36.0, 0.95), (36.5, 0.9504)),
        result("bird", (37.004, 0.96), (37.012, 0.9608)),
    ),
)
OTHER = replace(BICUBIC, model="mrnet", protocol="rgb")
ROWS = [BICUBIC, NETWORK, OTHER]
WEIGHED = replace(
    NETWORK,
    model="drcn",
    protocol="y",
    stage_names=("recursion 1", "recursion 2", "ensemble"),
    stage_weights=(-0.0625, 1.0625, 1.0),
    pictures=(result("baby", (36.0, 0.95), (36.5, 0.9504), (36.4, 0.9502)),),
)
WEIGHED_ROWS = [replace(BICUBIC, pictures=BICUBIC.pictures[:1]), WEIGHED]


def shown(rows, width=80, **options):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None
    )
    print_stages(console, rows, **options)
    text = console.file.getvalue()
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


MEANS = [
    "bicubic (y) 33.500 0.9300",
    "sub-network 1 36.502 +3.002 0.9550",
    "sub-network 2 36.756 +0.254 0.9556",
]


@pytest.mark.parametrize("width", [20, 80])
def test_each_stage_stands_under_what_it_gains_on(width):
    lines = shown(ROWS, width)
    assert lines[0] == "stage PSNR gain SSIM"
    assert lines[2:] == ["set5 x2 rrrn (rgb)", *MEANS]


def test_every_row_has_its_own_bicubic():
    other = [
        replace(row, scale=4, pictures=(result("a", (30.0, 0.9)),) * 2)
        for row in (BICUBIC, OTHER)
    ]
    smaller = replace(NETWORK, scale=4, ensemble=True)
    lines = shown([*ROWS, other[0], smaller, other[1]])
    assert lines[2:6] == ["set5 x2 rrrn (rgb)", *MEANS]
    assert lines[6:9] == [
        "set5 x4 rrrn+ (rgb)",
        "bicubic (y) 30.000 0.9000",
        "sub-network 1 36.502 +6.502 0.9550",
    ]


def test_pictures_are_shown_below_each_stage():
    lines = shown(ROWS, per_image=True)
    assert lines[3:] == [
        MEANS[0], "baby 33.000 0.9200", "bird 34.000 0.9400",
        MEANS[1], "baby 36.000 +3.000 0.9500", "bird 37.004 +3.004 0.9600",
        MEANS[2], "baby 36.500 +0.500 0.9504", "bird 37.012 +0.008 0.9608",
    ]  # fmt: skip


def test_weights_stand_beside_their_stages_and_nowhere_else():
    lines = shown(WEIGHED_ROWS)
    assert lines[0] == "stage PSNR gain SSIM weight"
    assert lines[2:] == [
        "set5 x2 drcn (y)",
        "bicubic (y) 33.000 0.9200",
        "recursion 1 36.000 +3.000 0.9500 -0.062",
        "recursion 2 36.500 +0.500 0.9504 +1.062",
        "ensemble 36.400 -0.100 0.9502 +1.000",
    ]
    # Pictures have none, nor has a network that does not sum its stages up.
    assert "baby 36.500 +0.500 0.9504" in shown(WEIGHED_ROWS, per_image=True)
    others = [replace(row, dataset="set14") for row in ROWS]
    assert shown([*WEIGHED_ROWS, *others])[-len(MEANS) :] == MEANS


def test_equal_pictures_gain_nothing_and_break_nothing():
    perfect = replace(
        NETWORK, pictures=(result("a", (40.0, 0.9), (math.inf, 1.0), (math.inf, 1.0)),)
    )
    rows = [replace(perfect, stage_names=("one", "two", "three"))]
    assert shown(rows)[3:] == [
        "one 40.000 0.9000",
        "two inf +inf 1.0000",
        "three inf 1.0000",
    ]
    (row,) = report.build_document(rows, "x")["rows"]
    assert [stage["psnr"] for stage in row["stages"]] == [40.0, None, None]


def test_json_has_stages_where_they_were_asked_for():
    document = report.build_document(ROWS, "x", per_image=True)
    rows = json.loads(json.dumps(document, allow_nan=False))["rows"]
    assert [len(row["stages"]) for row in rows] == [0, 2, 0]
    assert [len(picture["stages"]) for picture in rows[0]["per_image"]] == [0, 0]
    assert rows[1]["stages"] == [
        {"stage": 1, "name": "sub-network 1", "psnr": 36.502, "ssim": 0.955},
        {"stage": 2, "name": "sub-network 2", "psnr": 36.756, "ssim": 0.9556},
    ]
    assert rows[1]["per_image"][1]["stages"][1] == {
        "stage": 2,
        "name": "sub-network 2",
        "psnr": 37.012,
        "ssim": 0.9608,
    }
    assert "per_image" not in report.build_document(ROWS, "x")["rows"][1]
    plain = report.build_document([BICUBIC, OTHER], "x", per_image=True)["rows"]
    assert all("stages" not in row for row in plain)
    assert all("stages" not in row["per_image"][0] for row in plain)


def test_csv_has_a_line_for_each_stage():
    def lines(rows, **options):
        text = report.format_csv(rows, **options)
        return list(csv.DictReader(io.StringIO(text, newline="")))

    found = lines(ROWS)
    assert [(line["model"], line["stage"]) for line in found] == [
        ("bicubic", ""), ("rrrn", ""), ("rrrn", "1"), ("rrrn", "2"), ("mrnet", ""),
    ]  # fmt: skip
    assert (found[3]["stage_name"], float(found[3]["psnr"])) == (
        "sub-network 2",
        pytest.approx(36.756),
    )
    assert found[3]["parameters"] == ""
    staged = [line for line in lines(ROWS, per_image=True) if line["model"] == "rrrn"]
    assert [(line["image"], line["stage"]) for line in staged] == [
        (image, stage) for image in ("", "baby", "bird") for stage in ("", "1", "2")
    ]
    assert float(staged[5]["ssim"]) == 0.9504
    assert "stage" not in lines([BICUBIC, OTHER])[0]


def test_files_have_the_weights():
    rows = [*WEIGHED_ROWS, NETWORK]
    weights = [-0.0625, 1.0625, 1.0]
    described = report.build_document(rows, "x", per_image=True)["rows"]
    for measured in (described[1], described[1]["per_image"][0]):
        assert [stage["weight"] for stage in measured["stages"]] == weights
    assert "weight" not in described[2]["stages"][0]

    text = report.format_csv(rows)
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["weight"] for line in lines if line["stage"]] == [
        *map(str, weights), "", "",
    ]  # fmt: skip
    assert "weight" not in report.format_csv(ROWS)

    table = report.format_markdown(rows, "x").split("\n\n")[-1].splitlines()
    assert table[0].endswith("| SSIM | Weight |")
    assert table[2].endswith("| bicubic (y) | 33.000 |  | 0.9200 |  |")
    assert table[3].endswith("| 0.9500 | -0.062 |")
    assert r"0.9504 & $+1.062$ \\" in report.format_latex(rows, "x")
    assert "Weight" not in report.format_markdown(ROWS, "x")


def test_documents_have_a_second_table():
    text = report.format_markdown(ROWS, "srcli benchmark --stages")
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tables[1].splitlines()
    ]
    assert cells[0][:5] == ["Set", "Scale", "Model", "Stage", "PSNR"]
    label = ["set5", "x2", "rrrn (rgb)"]
    assert cells[2:] == [
        [*label, "bicubic (y)", "33.500", "", "0.9300"],
        [*label, "sub-network 1", "36.502", "+3.002", "0.9550"],
        [*label, "sub-network 2", "36.756", "+0.254", "0.9556"],
    ]
    latex = report.format_latex(ROWS, "x")
    assert latex.count(r"\end{tabular}") == 2
    assert r"sub-network 2 & 36.756 & $+0.254$ & 0.9556 \\" in latex
    for plain in (report.format_markdown, report.format_latex):
        assert "Stage" not in plain([BICUBIC, OTHER], "x")


def test_command_asks_for_stages():
    assert report.format_command(BenchmarkRequest(stages=True)).endswith(" --stages")
