"""Claims judged by hand-made figures, and the tables that show them."""

import io

import pytest
from rich.console import Console

from srcli.training.study_outcome import Outcome, StudyResult, StudyRow, judge
from srcli.training.study_plan import Claim, load_study
from srcli.training.study_table import build_study_document, print_study


def make_row(name, *figures, study=None):
    outcomes = {
        seed: Outcome(steps=9 if psnr else 4, finished=psnr is not None, psnr=psnr)
        for seed, psnr in enumerate(figures)
    }
    return StudyRow(
        variant=name,
        components={
            "local residual": False,
            "recursive": name == "drrn-b3u4",
            "multi-path": False,
        },
        parameters=1234,
        macs_720p=5_600_000_000,
        outcomes=outcomes,
        printed=study and study.find_printed(name),
    )


def make_claim(at_least=False):
    return Claim(text="t", section="1", better="a", than="b", at_least=at_least)


@pytest.mark.parametrize(
    ("better", "than", "at_least", "difference", "text"),
    [
        ([30.02], [30.0], False, 0.02, "shown"),
        ([30.019], [30.0], False, 0.019, "not shown: no difference"),
        ([29.981], [30.0], False, -0.019, "not shown: no difference"),
        ([29.98], [30.0], False, -0.02, "not shown: it is worse"),
        ([29.981], [30.0], True, -0.019, "shown"),
        ([29.98], [30.0], True, -0.02, "not shown: it is worse"),
        ([31.0], [30.0], True, 1.0, "shown"),
        ([30.10, 30.10], [30.0, 30.05], False, 0.075, "shown"),
        ([30.30, 30.0], [30.0, 30.01], False, 0.145, "not shown: the seeds disagree"),
        # Only what both have been trained for.
        ([30.1, 99.0], [30.0, None], False, 0.1, "shown"),
        ([None], [30.0], False, None, "open"),
    ],
)
def test_verdicts(better, than, at_least, difference, text):
    rows = make_row("a", *better), make_row("b", *than)
    verdict = judge(make_claim(at_least), *rows, 0.02)
    assert (verdict.difference, verdict.text) == (difference, text)
    assert verdict.printed is None


def test_mean_and_spread_over_seeds():
    row = make_row("a", 30.0, 30.2, None)
    assert (row.psnr, row.spread) == (30.1, 0.141)  # 0.2 / sqrt 2
    assert row.steps == 9  # the run without a figure is not behind the mean
    assert make_row("a", None).steps == 4
    assert make_row("a", 30.0).spread is None
    assert make_row("a", None).psnr is None


@pytest.fixture
def result(tmp_path):
    study = load_study("drrn", {"variants": "vdsr-d28,drrn-ns-b3u4,drrn-b3u4"})
    rows = {
        "vdsr-d28": make_row("vdsr-d28", 30.0, study=study),
        "drrn-ns-b3u4": make_row("drrn-ns-b3u4", 30.25, study=study),
        "drrn-b3u4": make_row("drrn-b3u4", None, study=study),
    }
    verdicts = [
        judge(claim, rows[claim.better], rows[claim.than], study.margin)
        for claim in study.claims
    ]
    return StudyResult(
        study=study,
        out=tmp_path,
        measured_on="set5",
        precision="fp32",
        rows=tuple(rows.values()),
        verdicts=tuple(verdicts),
    )


def draw(result, **options):
    file = io.StringIO()
    print_study(Console(file=file, color_system=None, **options), result)
    return file.getvalue()


def test_the_table_has_both_ladders(result):
    lines = draw(result, width=200).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["vdsr-d28"] == [
        "VDSR", "1,234", "5.6G", "9", "30.000", "+0.000", "33.86", "+0.00",
    ]  # fmt: skip
    assert rows["drrn-ns-b3u4"][-5:] == ["9", "30.250", "+0.250", "33.97", "+0.11"]
    assert rows["drrn-b3u4"] == [
        "DRRN", "x", "1,234", "5.6G", "4", "-", "-", "33.99", "+0.13",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "2 of 3 runs" in text
    assert "DRRN Table 4, set5 x3" in text
    assert "shown: local residual learning helps (drrn-ns-b3u4 over vdsr-d28)" in text
    assert "+0.250 dB, paper +0.11 dB" in text
    assert "open: shared units cost nothing" in text


def test_a_narrow_terminal_keeps_the_figures(result):
    text = draw(result, width=66, force_terminal=True)
    table = [line for line in text.splitlines() if line.startswith("drrn-ns-b3u4 ")]
    assert len(table[0].rstrip()) <= 66
    assert "30.250" in table[0]
    assert "+0.11" in table[0]
    assert "5.6G" not in table[0]


def test_the_document_has_null_for_what_is_missing(result):
    document = build_study_document(result)
    assert document["finished"] is False
    first, second, third = document["rows"]
    assert first["difference"] == 0.0
    assert second["difference"] == 0.25
    assert second["paper"] == {
        "label": "DRRN_NS",
        "psnr": 33.97,
        "difference": 0.11,
        "source": "DRRN Table 4",
    }
    assert (third["psnr"], third["difference"]) == (None, None)
    assert third["components"] == ["recursive"]
    claims = {claim["better"]: claim for claim in document["claims"]}
    assert claims["drrn-ns-b3u4"]["verdict"] == "shown"
    assert claims["drrn-b3u4"]["verdict"] == "open"
    assert claims["drrn-b3u4"]["paper_difference"] == 0.02
