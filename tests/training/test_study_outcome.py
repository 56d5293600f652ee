"""Claims judged by hand-made figures, and the tables that show them."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from srcli.training import study_outcome
from srcli.training.study_member import Outcome
from srcli.training.study_outcome import (
    StudyResult,
    judge,
    judge_claims,
    read_result,
)
from srcli.training.study_plan import Claim, load_study
from srcli.training.study_report import write_study_report
from srcli.training.study_rows import StudyRow, arrange_rows
from srcli.training.study_table import build_study_document, print_study


def make_row(name, *figures):
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
        ([30.0, 29.99], [30.0, 30.0], True, -0.005, "shown"),
        ([30.3, 29.9], [30.0, 30.0], True, 0.1, "not shown: the seeds disagree"),
        # Only what both have been trained for.
        ([30.1, 99.0], [30.0, None], False, 0.1, "shown"),
        ([None], [30.0], False, None, "open"),
    ],
)
def test_verdicts(better, than, at_least, difference, text):
    rows = make_row("a", *better), make_row("b", *than)
    # What the paper prints has no part in it.
    for printed in (None, -0.5, 0.5):
        verdict = judge(make_claim(at_least), *rows, 0.02, printed=printed)
        assert (verdict.difference, verdict.text) == (difference, text)
        assert verdict.printed == printed


def test_verdicts_stand_beside_what_the_paper_prints(tmp_path, monkeypatch):
    # Table 4, and figures of ours that are the other way round.
    paper = {
        "vdsr-d28": 33.86, "drrn-ns-c-b3u4": 33.92, "drrn-ns-b3u4": 33.97,
        "drrn-c-b3u4": 33.95, "drrn-b3u4": 33.99,
    }  # fmt: skip

    def read(member):
        return Outcome(finished=True, psnr=60 - paper[member.variant])

    monkeypatch.setattr(study_outcome, "read_outcome", read)
    study = load_study("drrn")
    result = read_result(study, tmp_path, measured_on="set5", precision="fp32")
    assert len(result.verdicts) == 6
    for verdict in result.verdicts:
        better, than = verdict.claim.better, verdict.claim.than
        expected = paper[better] - paper[than]
        assert verdict.printed == pytest.approx(expected, abs=1e-9)
        assert verdict.difference == pytest.approx(-expected, abs=1e-9)
        # By 0.02 dB or more, each.
        assert verdict.text == "not shown: it is worse"


@pytest.mark.parametrize(
    ("better", "than", "note"),
    [
        ([30.1], [30.0], ""),
        ([30.1, 30.1], [30.0, 30.0], ""),
        ([30.1, None], [30.0, 30.0], " (so far, 1 of 2 seeds)"),
        ([None, None], [30.0, 30.0], ""),
    ],
)
def test_a_verdict_says_on_how_many_seeds_it_rests(better, than, note):
    verdict = judge(make_claim(), make_row("a", *better), make_row("b", *than), 0.02)
    assert verdict.note == note


def test_means_and_gains_are_over_the_seeds_that_all_have(tmp_path, monkeypatch):
    study = load_study("drrn", {"variants": "drrn-b1u3,drrn-b2u3,drrn", "seeds": 2})
    figures = {("drrn-b1u3", 0): 30.0, ("drrn-b1u3", 1): 31.0, ("drrn-b2u3", 0): 30.2}

    def read(member):
        psnr = figures.get((member.variant, member.seed))
        return Outcome(finished=psnr is not None, psnr=psnr)

    monkeypatch.setattr(study_outcome, "read_outcome", read)
    found = read_result(study, tmp_path, measured_on="set5", precision="fp32")
    first, second, third = found.rows
    # 30.5 for the first row would not fit a gain of 0.2 beside 30.2.
    assert (first.psnr, second.psnr, third.psnr) == (30.0, 30.2, None)
    assert second.compare_mean(first) == 0.2
    assert first.figures == {0: 30.0, 1: 31.0}
    assert found.seeds == [0]
    text = draw(found, width=200)
    assert "Figures are of seed 0, which every variant shown has." in text
    assert "shown (so far, 1 of 2 seeds): a second block helps" in text
    figures["drrn-b2u3", 1], figures["drrn", 1] = 31.1, 31.5
    found = read_result(study, tmp_path, measured_on="set5", precision="fp32")
    # The seed that the third lacks is no longer counted for any.
    assert [row.psnr for row in found.rows] == [31.0, 31.1, 31.5]
    del figures["drrn-b1u3", 1], figures["drrn-b2u3", 1]
    found = read_result(study, tmp_path, measured_on="set5", precision="fp32")
    # No seed is common to all: the first row's counts.
    assert [row.psnr for row in found.rows] == [30.0, 30.2, None]


def test_mean_and_spread_over_seeds():
    row = make_row("a", 30.0, 30.2, None)
    assert (row.psnr, row.spread) == (30.1, 0.141)  # 0.2 / sqrt 2
    assert row.steps == 9  # the run without a figure is not behind the mean
    assert make_row("a", None).steps == 4
    assert make_row("a", 30.0).spread is None
    assert make_row("a", None).psnr is None


@pytest.fixture
def result():
    study = load_study("drrn", {"variants": "vdsr-d28,drrn-ns-b3u4,drrn-b3u4"})
    rows = {
        "vdsr-d28": make_row("vdsr-d28", 30.0),
        "drrn-ns-b3u4": make_row("drrn-ns-b3u4", 30.25),
        "drrn-b3u4": make_row("drrn-b3u4", None),
    }
    return make_result(study, rows.values(), judge_claims(study, rows))


def make_result(study, rows, verdicts=()):
    rows = tuple(rows)
    return StudyResult(
        study=study,
        out=Path("study"),
        measured_on="set5",
        precision="fp32",
        rows=rows,
        tables=arrange_rows(study, {row.variant: row for row in rows}),
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
    open_ = next(line for line in lines if line.startswith("open: shared units"))
    assert open_.endswith("(drrn-b3u4 no worse than drrn-ns-b3u4): paper +0.02 dB")


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
    (table,) = document["tables"]
    assert (table["source"], table["printed_on"]) == ("DRRN Table 4", "set5")
    first, second, third = table["rows"]
    assert first["difference"] == 0.0
    assert (second["difference"], second["label"]) == (0.25, "DRRN_NS")
    assert second["paper"] == {
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


def test_an_open_claim_without_printed_figures_names_none():
    study = load_study("drrn", {"variants": "drrn-b1u3,drrn-b2u3"})
    rows = (make_row("drrn-b1u3", None), make_row("drrn-b2u3", None))
    verdicts = [judge(claim, *reversed(rows), 0.02) for claim in study.claims]
    result = make_result(study, rows, verdicts)
    assert draw(result, width=200).splitlines()[-1] == (
        "open: a second block helps (drrn-b2u3 over drrn-b1u3)"
    )


def test_sixty_columns_have_room_for_two_seeds():
    study = load_study("drrn", {"seeds": 2})
    rows = [make_row(n, 30.0, 30.5) for n in study.variants]
    result = make_result(study, rows)
    text = draw(result, width=60, force_terminal=True)
    table = text[: text.index("The paper's figures")]
    assert all(len(line.rstrip()) <= 60 for line in table.splitlines())
    row = next(line for line in table.splitlines() if line.startswith("drrn-ns-c-b3u4"))
    assert row.split() == [
        "drrn-ns-c-b3u4", "9", "30.250", "0.354", "+0.000", "33.92", "+0.06",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "options", "text"),
    [
        ({"degradation": "bd"}, {}, "no figure of these networks on set5 x3 with deg"),
        ({}, {"scales": (2,)}, "print no figure of these networks on set5 x2."),
        ({"config": {"width": 4}}, {}, 'networks are not as published ({"width": 4})'),
    ],
)  # fmt: skip
def test_why_no_printed_figure_is_there(overrides, options, text):
    study = load_study("drrn", overrides, **options)
    rows = [make_row(name, 30.0) for name in study.variants]
    found = draw(make_result(study, rows), width=200)
    assert text in found
    assert "33." not in found


def test_a_variant_that_does_not_train_is_named(tmp_path):
    study = load_study("drrn", {"variants": "drrn-b1u3,drrn-b2u3"})
    row = make_row("drrn-b2u3", None)
    row = dataclasses.replace(row, outcomes={0: Outcome(setbacks=8, diverged=True)})
    result = make_result(study, (make_row("drrn-b1u3", 30.0), row))
    text = draw(result, width=200)
    assert "drrn-b2u3 does not train with seed 0" in text
    (line,) = (each for each in text.splitlines() if each.startswith("drrn-b2u3  "))
    assert "diverged" in line
    document = build_study_document(result)
    (table,) = document["tables"]
    assert [each["diverged"] for each in table["rows"]] == [[], [0]]
    result = dataclasses.replace(result, out=tmp_path)
    report = write_study_report(result).read_text()
    assert "- drrn-b2u3 does not train with seed 0" in report
    # Each run may have been on another machine.
    assert "trained on |" not in report
