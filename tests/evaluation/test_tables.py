"""Tables: every figure arrives on screen and in JSON, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from srcli import __version__
from srcli.errors import OutputError, UsageError
from srcli.evaluation.contenders import Engine, Selection
from srcli.evaluation.measurement import (
    BenchmarkRequest,
    PictureResult,
    Row,
    StageResult,
)
from srcli.evaluation.published import PublishedResult
from srcli.evaluation.tables import (
    build_document,
    check_reports,
    format_command,
    format_csv,
    format_latex,
    format_markdown,
    format_table,
    print_tables,
    quote_code,
    write_report,
)

PAPER = PublishedResult(
    model="mrnet", label="MRNet", dataset="set5", scale=2, degradation="bi",
    psnr=38.14, ssim=0.9610, paper="mrnet", kind="comparison", source="MRNet Table 3",
)  # fmt: skip


def result(image, *figures, seconds=1.0):
    """A picture whose stages have these PSNRs and SSIMs; a single one is no stage."""
    stages = tuple(StageResult(psnr=psnr, ssim=ssim) for psnr, ssim in figures)
    return PictureResult(
        image=image, psnr=figures[-1][0], ssim=figures[-1][1], ifc=None,
        seconds=seconds, stages=stages if len(stages) > 1 else (),
    )  # fmt: skip


MRNET = Row(
    dataset="set5", scale=2, degradation="bi", protocol="rgb", model="mrnet",
    parameters=1_061_705, macs_720p=776_487_000_000, paper=PAPER,
    pictures=(
        result("baby", (38.5, 0.962), seconds=1.5),
        result("bird", (37.25, 0.958), seconds=2.5),
    ),
)  # fmt: skip
BICUBIC = replace(
    MRNET, protocol="y", model="bicubic", parameters=None, macs_720p=None,
    paper=replace(PAPER, psnr=33.66, ssim=0.9299, source="DRRN Table 2"),
)  # fmt: skip
ROWS = [BICUBIC, MRNET]

# A network whose last stage is the sum of the others, and one that weighs nothing.
FIRST = replace(
    BICUBIC, paper=None,
    pictures=(result("baby", (33.0, 0.92)), result("bird", (34.0, 0.94))),
)  # fmt: skip
RRRN = replace(
    FIRST, protocol="rgb", model="rrrn",
    stage_names=("sub-network 1", "sub-network 2"),
    pictures=(
        result("baby", (36.0, 0.95), (36.5, 0.9504)),
        result("bird", (37.004, 0.96), (37.012, 0.9608)),
    ),
)  # fmt: skip
OTHER = replace(FIRST, model="mrnet", protocol="rgb")
STAGED = [FIRST, RRRN, OTHER]
WEIGHED = [
    replace(FIRST, pictures=FIRST.pictures[:1]),
    replace(
        RRRN, model="drcn", protocol="y",
        stage_names=("recursion 1", "recursion 2", "ensemble"),
        stage_weights=(-0.0625, 1.0625, 1.0),
        pictures=(result("baby", (36.0, 0.95), (36.5, 0.9504), (36.4, 0.9502)),),
    ),
]  # fmt: skip


def shown(rows, width=140, **options):
    """The lines on a terminal, each with single spaces."""
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None
    )
    print_tables(console, rows, **options)
    text = console.file.getvalue()
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def stages_shown(rows, width=140, **options):
    """The lines of the second table, below its head."""
    lines = shown(rows, width, **options)
    head = next(n for n, line in enumerate(lines) if line.startswith("stage "))
    return lines[head], lines[head + 2 :]


def read_csv(rows, **options):
    text = format_csv(rows, **options)
    return list(csv.DictReader(io.StringIO(text, newline="")))


def read_markdown(rows):
    """The cells of every table."""
    text = format_markdown(rows, "srcli benchmark")
    for part in text.split("\n\n"):
        if part.startswith("|"):
            lines = part.strip().splitlines()
            yield [[c.strip() for c in x.strip("|").split("|")] for x in lines]


def test_wide_table_has_every_figure():
    lines = shown(ROWS)
    group = lines.index("set5 x2")
    assert lines[group + 1] == (
        "bicubic (y) 37.88 33.66 +4.22 0.9600 0.9299 +0.0301 2.00 DRRN Table 2"
    )
    assert lines[group + 2] == (
        "mrnet (rgb) 37.88 38.14 -0.26 0.9600 0.9610 -0.0010"
        " 1.06M 776.5G 2.00 MRNet Table 3"
    )
    assert not any("bird" in line for line in lines)
    assert "bird 37.25 0.9580 2.50" in shown([MRNET], per_image=True)


@pytest.mark.parametrize("width", [40, 80, 100])
def test_table_fits_the_terminal_and_keeps_its_figures(width):
    with_ifc = [
        replace(
            row,
            dataset="div2k-valid",
            paper=replace(row.paper, ifc=6.083),
            pictures=tuple(replace(p, ifc=6.5) for p in row.pictures),
        )
        for row in ROWS
    ]
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    print_tables(console, with_ifc)
    text = re.sub("\x1b[^m]*m", "", console.file.getvalue())
    if width >= 80:  # else lines run over
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for figure in ("37.88", "38.14", "-0.26", "0.9600", "0.9610", "-0.0010", "6.500"):
        assert figure in text
    assert "MRNet Table 3" in " ".join(text.split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


def test_what_was_not_measured_or_printed_has_no_column():
    printed = replace(MRNET, paper=replace(PAPER, ifc=6.083))
    assert "6.083" not in " ".join(shown([printed]))
    assert "6.083" not in format_markdown([printed], "x")
    own = " ".join(shown([replace(MRNET, paper=None, dataset="own", degradation="bd")]))
    assert "paper" not in own
    assert "own bd x2" in own


def test_json_has_the_promised_keys():
    document = build_document(ROWS, "srcli benchmark", per_image=True)
    assert (document["srcli"], document["command"]) == (__version__, "srcli benchmark")
    row = json.loads(json.dumps(document, allow_nan=False))["rows"][1]
    pictures = row.pop("per_image")
    assert row == {
        "dataset": "set5", "scale": 2, "degradation": "bi", "protocol": "rgb",
        "model": "mrnet", "ensemble": False, "device": None, "precision": None,
        "images": 2, "psnr": 37.875, "ssim": 0.96, "ifc": None, "seconds": 2.0,
        "paper": {"psnr": 38.14, "ssim": 0.961, "ifc": None,
                  "source": "MRNet Table 3", "note": None},
        "difference": {"psnr": -0.265, "ssim": -0.001, "ifc": None},
        "parameters": 1_061_705, "macs_720p": 776_487_000_000,
    }  # fmt: skip
    assert pictures[1] == {
        "image": "bird", "psnr": 37.25, "ssim": 0.958, "ifc": None, "seconds": 2.5,
    }  # fmt: skip
    (row,) = build_document([replace(MRNET, paper=None)], "x")["rows"]
    assert row["paper"] is None is row["difference"]
    assert "per_image" not in row


def test_infinite_figures_are_null_in_json_and_shown_elsewhere():
    rows = [replace(MRNET, pictures=(replace(MRNET.pictures[0], psnr=math.inf),))]
    text = json.dumps(build_document(rows, "", per_image=True), allow_nan=False)
    row = json.loads(text)["rows"][0]
    assert row["psnr"] is row["difference"]["psnr"] is row["per_image"][0]["psnr"]
    assert row["psnr"] is None
    assert "inf" in format_markdown(rows, "x")
    assert "inf" in format_latex(rows, "x")


def test_csv_reads_back():
    lines = read_csv(ROWS, per_image=True)
    assert [line["image"] for line in lines] == ["", "baby", "bird"] * 2
    assert list(lines[0]) == [
        "dataset", "scale", "degradation", "protocol", "model", "ensemble", "image",
        "device", "precision", "images", "psnr", "ssim", "ifc", "seconds",
        "paper_psnr", "paper_ssim", "paper_ifc", "paper_source",
        "difference_psnr", "difference_ssim", "difference_ifc",
        "parameters", "macs_720p",
    ]  # fmt: skip
    row = lines[3]
    assert (row["psnr"], row["paper_psnr"]) == ("37.875", "38.14")
    assert (row["difference_ssim"], row["paper_source"]) == ("-0.001", "MRNet Table 3")
    assert (row["macs_720p"], lines[0]["parameters"]) == ("776487000000", "")
    assert (lines[5]["model"], lines[5]["psnr"]) == ("mrnet", "37.25")
    assert len(read_csv(ROWS)) == 2


def test_markdown_reads_back_below_its_command():
    text = format_markdown(ROWS, "srcli benchmark -d set5 -m mrnet")
    assert text.index("srcli benchmark -d set5 -m mrnet") < text.index("| Set ")
    (cells,) = read_markdown(ROWS)
    assert {len(line) for line in cells} == {len(cells[0])}
    assert all(re.fullmatch(r"-{3,}:?", cell) for cell in cells[1])
    row = dict(zip(cells[0], cells[3], strict=True))
    assert row == {
        "Set": "set5", "Scale": "x2", "Model": "mrnet (rgb)",
        "PSNR": "37.88", "PSNR, paper": "38.14", "PSNR, difference": "-0.26",
        "SSIM": "0.9600", "SSIM, paper": "0.9610", "SSIM, difference": "-0.0010",
        "Parameters": "1.06M", "MACs (720p)": "776.5G", "Seconds/picture": "2.00",
        "Source": "MRNet Table 3",
    }  # fmt: skip
    odd = format_markdown([replace(MRNET, dataset=r"a|b\c")], "x")
    assert r"a\|b\\c" in odd


def test_markdown_of_reports_keeps_backslashes_in_code():
    lines = format_table(["what", "value"], [["path", r"`a\b|c`"]])
    assert lines == ["| what | value |", "| --- | --- |", r"| path | `a\b\|c` |"]
    assert (quote_code("a"), quote_code("")) == ("`a`", "")
    assert quote_code("a`b\n").startswith("`` a`b")
    assert "\n" not in quote_code("a`b\n")


def test_latex_is_a_booktabs_table_with_every_special_character_escaped():
    odd = replace(MRNET, dataset=r"my_set 50% #1 & $2 ~^\{}", scale=3)
    lines = format_latex([*ROWS, odd], "srcli benchmark\n-d x").splitlines()
    assert lines[0] == "% srcli benchmark -d x"
    assert lines[1] == r"\begin{tabular}{lllrrrrrrrrrl}"
    assert lines[-1] == r"\end{tabular}"
    assert [line for line in lines if line.endswith("rule")] == [
        r"\toprule", r"\midrule", r"\midrule", r"\bottomrule",
    ]  # fmt: skip
    body = [line for line in lines if line.endswith(r" \\")]
    assert {len(re.split(r"(?<!\\)&", line)) for line in body} == {13}
    assert "$-0.26$" in body[2]
    assert "38.14" in body[2]
    escaped = r"my\_set 50\% \#1 \& \$2 \textasciitilde{}\textasciicircum{}"
    assert body[3].startswith(escaped + r"\textbackslash{}\{\} & x3 & ")


MEANS = [
    "bicubic (y) 33.500 0.9300",
    "sub-network 1 36.502 +3.002 0.9550",
    "sub-network 2 36.756 +0.254 0.9556",
]


@pytest.mark.parametrize("width", [20, 80])
def test_each_stage_stands_under_what_it_gains_on(width):
    head, lines = stages_shown(STAGED, width)
    assert head == "stage PSNR gain SSIM"
    assert lines == ["set5 x2 rrrn (rgb)", *MEANS]


def test_stages_of_every_scale_and_picture_gain_on_their_own_bicubic():
    worse = replace(FIRST, scale=4, pictures=(result("a", (30.0, 0.9)),) * 2)
    smaller = replace(RRRN, scale=4, ensemble=True)
    _, lines = stages_shown([*STAGED, worse, smaller])
    assert lines[4:] == [
        "set5 x4 rrrn+ (rgb)",
        "bicubic (y) 30.000 0.9000",
        "sub-network 1 36.502 +6.502 0.9550",
        MEANS[2],
    ]
    _, lines = stages_shown(STAGED, per_image=True)
    assert lines[1:] == [
        MEANS[0], "baby 33.000 0.9200", "bird 34.000 0.9400",
        MEANS[1], "baby 36.000 +3.000 0.9500", "bird 37.004 +3.004 0.9600",
        MEANS[2], "baby 36.500 +0.500 0.9504", "bird 37.012 +0.008 0.9608",
    ]  # fmt: skip


def test_weights_stand_beside_their_stages_and_nowhere_else():
    others = [replace(row, dataset="set14") for row in STAGED]
    head, lines = stages_shown([*WEIGHED, *others], per_image=True)
    assert head == "stage PSNR gain SSIM weight"
    assert [line for line in lines if "baby" not in line and "bird" not in line] == [
        "set5 x2 drcn (y)",
        "bicubic (y) 33.000 0.9200",
        "recursion 1 36.000 +3.000 0.9500 -0.062",
        "recursion 2 36.500 +0.500 0.9504 +1.062",
        "ensemble 36.400 -0.100 0.9502 +1.000",
        "set14 x2 rrrn (rgb)",
        *MEANS,
    ]
    assert "baby 36.500 +0.500 0.9504" in lines


def test_equal_stages_gain_nothing_and_break_nothing():
    perfect = replace(
        RRRN, stage_names=("one", "two", "three"),
        pictures=(result("a", (40.0, 0.9), (math.inf, 1.0), (math.inf, 1.0)),),
    )  # fmt: skip
    _, lines = stages_shown([FIRST, perfect])
    assert lines[2:] == [
        "one 40.000 +6.500 0.9000",
        "two inf +inf 1.0000",
        "three inf 1.0000",
    ]
    _, row = build_document([FIRST, perfect], "x")["rows"]
    assert [stage["psnr"] for stage in row["stages"]] == [40.0, None, None]


def test_json_has_stages_where_they_were_asked_for():
    document = build_document([*STAGED, *WEIGHED], "x", per_image=True)
    rows = json.loads(json.dumps(document, allow_nan=False))["rows"]
    assert [len(row["stages"]) for row in rows] == [0, 2, 0, 0, 3]
    assert rows[0]["per_image"][0]["stages"] == []
    assert rows[1]["stages"] == [
        {"stage": 1, "name": "sub-network 1", "psnr": 36.502, "ssim": 0.955},
        {"stage": 2, "name": "sub-network 2", "psnr": 36.756, "ssim": 0.9556},
    ]
    assert rows[1]["per_image"][1]["stages"][1]["psnr"] == 37.012
    for measured in (rows[4], rows[4]["per_image"][0]):
        weights = [stage["weight"] for stage in measured["stages"]]
        assert weights == [-0.0625, 1.0625, 1.0]
    for plain in build_document([FIRST, OTHER], "x", per_image=True)["rows"]:
        assert "stages" not in plain
        assert "stages" not in plain["per_image"][0]


def test_csv_has_a_line_for_each_stage():
    lines = read_csv(STAGED)
    assert [(line["model"], line["stage"]) for line in lines] == [
        ("bicubic", ""), ("rrrn", ""), ("rrrn", "1"), ("rrrn", "2"), ("mrnet", ""),
    ]  # fmt: skip
    assert (lines[3]["stage_name"], lines[3]["psnr"]) == ("sub-network 2", "36.756")
    assert lines[3]["parameters"] == ""
    assert "weight" not in lines[0]
    staged = [x for x in read_csv(STAGED, per_image=True) if x["model"] == "rrrn"]
    assert [(line["image"], line["stage"]) for line in staged] == [
        (image, stage) for image in ("", "baby", "bird") for stage in ("", "1", "2")
    ]
    assert staged[5]["ssim"] == "0.9504"
    weights = [line["weight"] for line in read_csv([*WEIGHED, RRRN]) if line["stage"]]
    assert weights == ["-0.0625", "1.0625", "1.0", "", ""]
    assert "stage" not in read_csv([FIRST, OTHER])[0]


def test_documents_have_a_second_table():
    _, cells = read_markdown(STAGED)
    assert cells[0][:5] == ["Set", "Scale", "Model", "Stage", "PSNR"]
    label = ["set5", "x2", "rrrn (rgb)"]
    assert cells[2:] == [
        [*label, "bicubic (y)", "33.500", "", "0.9300"],
        [*label, "sub-network 1", "36.502", "+3.002", "0.9550"],
        [*label, "sub-network 2", "36.756", "+0.254", "0.9556"],
    ]
    _, cells = read_markdown(WEIGHED)
    assert cells[0][-2:] == ["SSIM", "Weight"]
    assert cells[3][-1] == "-0.062"
    latex = format_latex(STAGED, "x")
    assert latex.count(r"\end{tabular}") == 2
    assert r"sub-network 2 & 36.756 & $+0.254$ & 0.9556 \\" in latex
    assert len(list(read_markdown([FIRST, OTHER]))) == 1


def test_command_says_everything_that_changes_a_figure():
    assert format_command(BenchmarkRequest()) == "srcli benchmark -d set5 -m mrnet"
    request = BenchmarkRequest(
        datasets=("set5", "my pictures"),
        selection=Selection(
            models=("mrnet", "bicubic"), scales=(3,), degradation="dn", protocol="rgb"
        ),
        engine=Engine(
            device="cpu", precision="fp32", tile=64, overlap=8, ensemble=True
        ),
        seed=7,
        ifc=True,
        stages=True,
        gray_as_rgb=True,
        data_dir=Path("/somewhere"),
        save_images=Path("/out"),
    )
    assert format_command(request) == (
        "srcli benchmark -d set5 -d 'my pictures' -m mrnet -m bicubic -x 3"
        " --degradation dn --protocol rgb --seed 7 --device cpu --precision fp32"
        " --tile 64 --tile-overlap 8 --ensemble --stages --ifc --gray-as-rgb"
    )
    # Without the degradation it would be what the file is for.
    weights = Selection(weights=Path("w.safetensors"), degradation="bi")
    assert format_command(BenchmarkRequest(selection=weights)) == (
        "srcli benchmark -d set5 --degradation bi --weights w.safetensors"
    )


def test_reports_are_checked_before(tmp_path):
    there = tmp_path / "there.csv"
    there.touch()
    check_reports((tmp_path / "new.csv", None, None), overwrite=False)
    check_reports((there, None), overwrite=True)
    write_report("\u00b1\n", there)
    assert there.read_bytes() == "\u00b1\n".encode()
    for paths, overwrite, error in (
        ((there,), False, OutputError),
        ((tmp_path,), True, OutputError),
        ((tmp_path / "nowhere" / "a.csv",), False, OutputError),
        ((tmp_path / "a", tmp_path / "a"), False, UsageError),
    ):
        with pytest.raises(error):
            check_reports(paths, overwrite=overwrite)
