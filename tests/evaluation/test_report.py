"""Reports: every figure arrives, in a table, JSON, CSV, Markdown and LaTeX."""

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
from srcli.evaluation import tables as report
from srcli.evaluation.contenders import Engine, Selection
from srcli.evaluation.measurement import BenchmarkRequest, PictureResult, Row
from srcli.evaluation.published import PublishedResult
from srcli.evaluation.tables import print_table

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
MRNET = Row(
    dataset="set5",
    scale=2,
    degradation="bi",
    protocol="rgb",
    model="mrnet",
    parameters=1_061_705,
    macs_720p=776_487_000_000,
    paper=PAPER,
    pictures=(
        PictureResult(image="baby", psnr=38.5, ssim=0.962, ifc=None, seconds=1.5),
        PictureResult(image="bird", psnr=37.25, ssim=0.958, ifc=None, seconds=2.5),
    ),
)
BICUBIC = replace(
    MRNET,
    protocol="y",
    model="bicubic",
    parameters=None,
    macs_720p=None,
    paper=replace(PAPER, psnr=33.66, ssim=0.9299, source="DRRN Table 2"),
)
ROWS = [BICUBIC, MRNET]


def shown(rows, width, **options):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system=None
    )
    print_table(console, rows, **options)
    return console.file.getvalue()


def words(line):
    return " ".join(line.split())


def test_wide_table_has_every_figure():
    lines = shown(ROWS, 140).splitlines()
    group = next(n for n, line in enumerate(lines) if line.strip() == "set5 x2")
    assert words(lines[group + 2]) == (
        "mrnet (rgb) 37.88 38.14 -0.26 0.9600 0.9610 -0.0010"
        " 1.06M 776.5G 2.00 MRNet Table 3"
    )
    assert words(lines[group + 1]) == (
        "bicubic (y) 37.88 33.66 +4.22 0.9600 0.9299 +0.0301 2.00 DRRN Table 2"
    )


@pytest.mark.parametrize("width", [80, 100])
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
    text = shown(with_ifc, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for figure in ("37.88", "38.14", "-0.26", "0.9600", "0.9610", "-0.0010", "6.500"):
        assert figure in text
    assert "MRNet Table 3" in text
    assert "…" not in text


def test_narrow_table_runs_over_rather_than_cut_figures():
    text = shown(ROWS, 40)
    for figure in ("37.88", "38.14", "-0.26", "0.9600", "0.9610", "-0.0010"):
        assert figure in text


def test_table_shows_every_picture_if_asked():
    assert "bird" not in shown(ROWS, 100)
    lines = [words(line) for line in shown([MRNET], 140, per_image=True).splitlines()]
    assert "bird 37.25 0.9580 2.50" in lines


def test_paper_is_not_shown_for_what_was_not_measured():
    printed = replace(MRNET, paper=replace(PAPER, ifc=6.083))
    assert "6.083" not in shown([printed], 140)
    assert "6.083" not in report.format_markdown([printed], "x")


def test_table_without_paper_has_no_columns_for_it():
    text = shown([replace(MRNET, paper=None, dataset="own", degradation="bd")], 100)
    assert "paper" not in text
    assert "own bd x2" in text


def test_json_has_the_promised_keys():
    document = report.build_document(ROWS, "srcli benchmark")
    assert document["srcli"] == __version__
    row = json.loads(json.dumps(document, allow_nan=False))["rows"][1]
    assert {
        key: row[key]
        for key in ("dataset", "scale", "degradation", "protocol", "model", "images")
    } == {
        "dataset": "set5",
        "scale": 2,
        "degradation": "bi",
        "protocol": "rgb",
        "model": "mrnet",
        "images": 2,
    }
    assert row["psnr"] == pytest.approx(37.875)
    assert row["ssim"] == pytest.approx(0.960)
    assert row["seconds"] == pytest.approx(2.0)
    assert row["ifc"] is None
    assert {key: row["paper"][key] for key in ("psnr", "ssim", "source")} == {
        "psnr": 38.14,
        "ssim": 0.9610,
        "source": "MRNet Table 3",
    }
    assert row["difference"]["psnr"] == pytest.approx(37.875 - 38.14)
    assert row["difference"]["ssim"] == pytest.approx(-0.001)
    assert (row["parameters"], row["macs_720p"]) == (1_061_705, 776_487_000_000)
    assert "per_image" not in row


def test_json_of_pictures_and_without_paper():
    rows = [replace(MRNET, paper=None)]
    (row,) = report.build_document(rows, "srcli benchmark", per_image=True)["rows"]
    assert row["paper"] is None
    assert row["difference"] is None
    assert [picture["image"] for picture in row["per_image"]] == ["baby", "bird"]
    assert row["per_image"][1]["psnr"] == pytest.approx(37.25)


def test_json_has_null_for_infinite_figures():
    same = replace(MRNET.pictures[0], psnr=math.inf)
    rows = [replace(MRNET, pictures=(same,))]
    text = json.dumps(report.build_document(rows, "", per_image=True), allow_nan=False)
    row = json.loads(text)["rows"][0]
    assert row["psnr"] is None
    assert row["difference"]["psnr"] is None
    assert row["per_image"][0]["psnr"] is None
    for other in (report.format_markdown(rows, "x"), report.format_latex(rows, "x")):
        assert "inf" in other or r"\infty" in other


def test_csv_reads_back():
    text = report.format_csv(ROWS, per_image=True)
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [line["image"] for line in lines] == ["", "baby", "bird"] * 2
    assert float(lines[3]["psnr"]) == pytest.approx(37.875)
    assert float(lines[3]["paper_psnr"]) == 38.14
    assert float(lines[3]["difference_ssim"]) == pytest.approx(-0.001)
    assert lines[3]["paper_source"] == "MRNet Table 3"
    assert lines[3]["macs_720p"] == "776487000000"
    assert lines[0]["parameters"] == ""
    assert (lines[5]["model"], lines[5]["psnr"]) == ("mrnet", "37.25")
    assert len(list(csv.DictReader(io.StringIO(report.format_csv(ROWS))))) == 2


def test_markdown_reads_back_below_its_command():
    text = report.format_markdown(ROWS, "srcli benchmark -d set5 -m mrnet")
    assert text.index("srcli benchmark -d set5 -m mrnet") < text.index("| Set ")
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in table]
    assert {len(line) for line in cells} == {len(cells[0])}
    assert all(re.fullmatch(r"-{3,}:?", cell) for cell in cells[1])
    row = dict(zip(cells[0], cells[3], strict=True))
    assert row["Set"] == "set5"
    assert row["Model"] == "mrnet (rgb)"
    assert row["PSNR"] == "37.88"
    assert row["PSNR, paper"] == "38.14"
    assert row["PSNR, difference"] == "-0.26"
    assert row["Source"] == "MRNet Table 3"


def test_markdown_escapes_what_would_end_a_cell():
    text = report.format_markdown([replace(MRNET, dataset="a|b")], "x")
    assert r"a\|b" in text


def test_latex_is_a_booktabs_table_with_every_special_character_escaped():
    rows = [
        BICUBIC,
        MRNET,
        replace(MRNET, dataset=r"my_set 50% #1 & $2 ~^\{}", scale=3),
    ]
    text = report.format_latex(rows, "srcli benchmark\n-d x")
    lines = text.splitlines()
    assert lines[0] == "% srcli benchmark -d x"
    assert lines[1] == r"\begin{tabular}{lllrrrrrrrrrl}"
    assert lines[-1] == r"\end{tabular}"
    assert [line for line in lines if line.endswith("rule")] == [
        r"\toprule",
        r"\midrule",
        r"\midrule",
        r"\bottomrule",
    ]
    body = [line for line in lines if line.endswith(r" \\")]
    assert {len(re.split(r"(?<!\\)&", line)) for line in body} == {13}
    assert "$-0.26$" in body[2]
    assert "38.14" in body[2]
    escaped = r"my\_set 50\% \#1 \& \$2 \textasciitilde{}\textasciicircum{}"
    assert body[3].startswith(escaped + r"\textbackslash{}\{\} & x3 & ")


def test_command_says_everything_that_changes_a_figure():
    assert (
        report.format_command(BenchmarkRequest()) == "srcli benchmark -d set5 -m mrnet"
    )
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
        gray_as_rgb=True,
        data_dir=Path("/somewhere"),
        save_images=Path("/out"),
    )
    assert report.format_command(request) == (
        "srcli benchmark -d set5 -d 'my pictures' -m mrnet -m bicubic -x 3"
        " --degradation dn --protocol rgb --seed 7 --device cpu --precision fp32"
        " --tile 64 --tile-overlap 8 --ensemble --ifc --gray-as-rgb"
    )
    weights = replace(request.selection, models=None, weights=Path("w.safetensors"))
    command = report.format_command(replace(BenchmarkRequest(), selection=weights))
    assert " -m " not in command
    assert "--weights w.safetensors" in command
    # Without the word it would be what the file is for.
    ordinary = replace(weights, degradation="bi")
    command = report.format_command(replace(BenchmarkRequest(), selection=ordinary))
    assert "--degradation bi" in command


def test_reports_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    report.write_report("first", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "first"

    def fail(*_):
        raise OSError(5, "io")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"a\.csv: io"):
        report.write_report("second", tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "first"


def test_reports_are_checked_before(tmp_path):
    there = tmp_path / "there.csv"
    there.touch()
    report.check_reports((tmp_path / "new.csv", None, None), overwrite=False)
    report.check_reports((there, None), overwrite=True)
    with pytest.raises(OutputError, match="--overwrite"):
        report.check_reports((there,), overwrite=False)
    with pytest.raises(OutputError, match="is a folder"):
        report.check_reports((tmp_path,), overwrite=True)
    with pytest.raises(OutputError, match="no folder"):
        report.check_reports((tmp_path / "nowhere" / "a.csv",), overwrite=False)
    with pytest.raises(UsageError, match="two reports"):
        report.check_reports((tmp_path / "a", tmp_path / "a"), overwrite=False)
