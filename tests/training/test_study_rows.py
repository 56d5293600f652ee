"""Which variants stand in which table, beside which figures of the paper."""

import io
import json

import pytest
from rich.console import Console

from srcli.training import study_outcome
from srcli.training.study_member import Outcome
from srcli.training.study_outcome import read_result
from srcli.training.study_plan import load_study
from srcli.training.study_report import write_study_report
from srcli.training.study_table import build_study_document, print_study


@pytest.fixture
def result_of(tmp_path, monkeypatch):
    """A function that gives a study whose n-th variant has 30 dB and n tenths."""

    def make(model, overrides=None, **options):
        study = load_study(model, overrides, **options)
        figures = {name: 30 + n / 10 for n, name in enumerate(study.variants)}

        def read(member):
            return Outcome(finished=True, psnr=figures[member.variant])

        monkeypatch.setattr(study_outcome, "read_outcome", read)
        return read_result(study, tmp_path, measured_on="set5", precision="fp32")

    return make


def list_names(result):
    return {
        table.source: [row.variant for row in table.rows] for table in result.tables
    }


def draw(result):
    file = io.StringIO()
    print_study(Console(file=file, color_system=None, width=200), result)
    return file.getvalue()


def test_a_variant_of_two_tables_stands_in_each_in_its_place(result_of):
    result = result_of("dsrn")
    assert list_names(result) == {
        "DSRN Table 2": [
            "dsrn-single-state", "dsrn-untied", "dsrn-no-feedback", "dsrn",
        ],
        "DSRN Figure 3": [
            "dsrn-t1", "dsrn-t2", "dsrn-t3", "dsrn-t4", "dsrn-t5", "dsrn-t6",
            "dsrn", "dsrn-t8", "dsrn-t9",
        ],
    }  # fmt: skip
    assert (result.count, result.done) == (12, 12)
    table, curve = result.tables
    assert table.rows[3] is curve.rows[6]
    # Gains are over the first row of the table at hand: 30.3 - 30.0 and 30.3 - 30.4.
    assert (table.gain(table.rows[3]), curve.gain(curve.rows[6])) == (0.3, -0.1)
    assert table.gain_printed(table.rows[3]) == 0.3  # 34.96 - 34.66
    assert curve.gain_printed(curve.rows[6]) is None
    assert (table.labels["dsrn"], curve.labels["dsrn"]) == ("DSRN", "T = 7")


def test_both_tables_are_drawn_one_below_the_other(result_of):
    text = draw(result_of("dsrn"))
    table, curve = text.split("\nDSRN Figure 3\n")
    assert "\nDSRN Table 2\n" in table
    rows = {line.split()[0]: line.split() for line in curve.splitlines() if line}
    assert rows["dsrn"][1:4] == ["T", "=", "7"]
    assert rows["dsrn"][-2:] == ["-0.100", "37.66"]
    assert rows["dsrn-t1"][-2:] == ["+0.000", "-"]
    # No gain of a curve without figures; all of its networks have all components.
    assert "paper's" in table
    assert "paper's gain" not in curve.split("shown")[0].replace("\n", " ")
    assert "feedback" in table
    assert "feedback" not in curve[: curve.index("dsrn-t1")]
    assert "The paper's figures: DSRN Table 2, ntire2017-track1 x2. Note: DIV2K" in text
    assert "The paper's figures: DSRN Table 1, set5 x2. Note: a curve over T" in text
    feedback = next(line for line in text.splitlines() if "feedback from" in line)
    assert feedback.endswith("+0.100 dB, paper +0.07 dB")
    step = next(line for line in text.splitlines() if "a second step" in line)
    assert step.endswith(": +0.100 dB")


def test_the_document_and_the_report_have_both_tables(result_of, tmp_path):
    result = result_of("dsrn")
    document = json.loads(json.dumps(build_study_document(result)))
    table, curve = document["tables"]
    assert (curve["source"], curve["printed_on"]) == ("DSRN Figure 3", "set5")
    assert "none of whose values is printed" in curve["note"]
    row = curve["rows"][6]
    assert row["psnr"] == table["rows"][3]["psnr"] == 30.3
    assert (row["difference"], table["rows"][3]["difference"]) == (-0.1, 0.3)
    paper = {"psnr": 37.66, "difference": None, "source": "DSRN Table 1"}
    assert row["paper"] == paper
    assert [each["paper"] for each in curve["rows"]].count(None) == 8
    assert row["components"] == ["two states", "feedback", "shared weights"]
    text = write_study_report(result).read_text()
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == ["## DSRN Table 2", "## DSRN Figure 3", "## Claims", "## Recipe"]
    assert "| dsrn | T = 7 |" in text
    assert "A gain is over the first row of its table." in text


def test_what_no_table_has_comes_last_beside_the_first_variant(result_of):
    names = "vdsr-d28,drrn-b3u2,drrn-b3u4"
    result = result_of("drrn", {"variants": names})
    assert list_names(result) == {
        "DRRN Table 4": ["vdsr-d28", "drrn-b3u4"],
        None: ["vdsr-d28", "drrn-b3u2"],
    }
    last = result.tables[1]
    assert last.gain(last.rows[1]) == 0.1
    assert last.gain_printed(last.rows[1]) == -0.09  # 33.77 in section 4.3, and 33.86
    assert last.labels == {"vdsr-d28": "VDSR", "drrn-b3u2": "B3U2"}
    assert "\nNamed variants\n" in draw(result)
    assert build_study_document(result)["tables"][1]["source"] is None


@pytest.mark.parametrize(
    ("model", "names", "places"),
    [
        # One row of a table compares nothing.
        ("drrn", "drrn-b3u2,drrn-b3u3,drrn-b3u4", [None]),
        # Nor does the only one that no table has, if it comes first.
        ("drrn", "drrn-b3u1,drrn-b3u4,drrn-c-b3u4", ["DRRN Table 4", None]),
        ("drrn", "drrn-b3u4,drrn-c-b3u4,drrn-b3u1", ["DRRN Table 4", None]),
        ("dsrn", "dsrn-untied,dsrn-t1,dsrn-t2", ["DSRN Figure 3", None]),
        ("dsrn", "dsrn-t1,dsrn-t2,dsrn-untied", ["DSRN Figure 3", None]),
        ("dsrn", "dsrn-untied,dsrn-t2", [None]),
        ("dsrn", "dsrn", [None]),
        ("dsrn", "dsrn-t8,dsrn", ["DSRN Figure 3"]),
        ("dsrn", "dsrn-untied,dsrn", ["DSRN Table 2"]),
        ("dsrn", "dsrn,dsrn-t8,dsrn-untied", ["DSRN Table 2", "DSRN Figure 3"]),
    ],
)
def test_tables_of_named_variants(result_of, model, names, places):
    result = result_of(model, {"variants": names})
    assert list(list_names(result)) == places
    if places == [None]:
        assert list_names(result)[None] == names.split(",")
    if len(names.split(",")) > 1:
        assert all(len(table.rows) > 1 for table in result.tables)
    standing = {name for table in list_names(result).values() for name in table}
    assert standing == set(names.split(","))


@pytest.mark.parametrize(
    ("names", "last"),
    [
        ("dsrn-untied,dsrn-t1,dsrn-t2", "dsrn-untied,dsrn-t1,dsrn-t2"),
        ("dsrn-t1,dsrn-t2,dsrn-untied", "dsrn-t1,dsrn-untied"),
    ],
)
def test_the_only_variant_without_a_table_is_compared(result_of, names, last):
    result = result_of("dsrn", {"variants": names})
    table = result.tables[-1]
    assert [row.variant for row in table.rows] == last.split(",")
    assert table.gain(table.rows[0]) == 0.0
    assert table.gain(table.rows[1]) == (0.1 if "t2" in last else 0.2)


def test_changed_networks_have_no_figures_labels_or_notes(result_of):
    result = result_of("dsrn", {"config": {"width": 4}})
    for table in result.tables:
        assert (table.labels, table.printed, table.note) == ({}, {}, None)
    text = draw(result)
    assert "T = 7" not in text
    assert "37.66" not in text
    heads = [line for line in text.splitlines() if line.startswith("variant ")]
    assert len(heads) == 2
    assert all(head.split()[-1] == "gain" for head in heads)
    assert text.count("The papers print no figure of these networks") == 2
    # What leaves one of them as it is leaves its figure.
    config = {"feedback": False}
    names = {"variants": "dsrn-untied,dsrn-no-feedback", "config": config}
    (table,) = result_of("dsrn", names).tables
    assert list(table.labels) == list(table.printed) == ["dsrn-no-feedback"]
    assert table.note.startswith("DIV2K")


def test_drcns_curve_has_no_component_that_all_its_points_have(result_of):
    result = result_of("drcn")
    assert list_names(result) == {
        "DRCN Figure 8": ["drcn-d1", "drcn-d6", "drcn-d11", "drcn"]
    }
    (table,) = result.tables
    assert list(table.labels.values()) == ["D = 1", "D = 6", "D = 11", "D = 16"]
    text = draw(result)
    assert text.startswith("drcn on set5 x3: 4 of 4 runs of 200 steps done")
    assert "The paper's figures: DRCN Table 1, set5 x3. Note: a curve over D" in text
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert rows["drcn"][-2:] == ["+0.300", "33.82"]
    assert rows["drcn-d1"][-2:] == ["+0.000", "-"]
    assert text.count("recursions are better") == 3
    report = write_study_report(result).read_text()
    assert "## DRCN Figure 8" in report
    assert report.count("are better than") == report.count("(4.3)") == 3
    for name in result.study.components:
        assert name not in report
        assert name.split()[-1] not in text  # where a head may be on two lines


def test_drcns_extensions_stand_in_a_table_of_their_own(result_of):
    names = "drcn-basic,drcn-no-skip,drcn-no-supervision,drcn"
    result = result_of("drcn", {"variants": names})
    assert list_names(result) == {None: names.split(",")}
    text = draw(result)
    assert "\nNamed variants\n" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("drcn-")]
    # Before the parameters: neither extension, one each.
    assert [row.count("x") for row in rows] == [0, 1, 1]
    report = write_study_report(result).read_text()
    assert all(name in report for name in result.study.components)
    assert report.count("(3.2)") == 3


def test_another_scale_has_that_scales_figures(result_of):
    result = result_of("dsrn", scales=(4,))
    table, curve = result.tables
    assert table.printed["dsrn"].psnr == 29.03
    assert curve.printed["dsrn"].psnr == 31.40
    # Nobody takes the curve to be drawn at this scale.
    assert "drawn for x2 on Set5 alone" in draw(result)


def test_the_rows_of_one_table_alone(result_of):
    result = result_of("dsrn", {"tables": "DSRN Table 2"})
    assert list(list_names(result)) == ["DSRN Table 2"]
    assert result.count == 4
