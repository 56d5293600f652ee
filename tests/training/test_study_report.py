"""Studies as described and as judged: variants, claims, tables beside the papers'."""

import io

import pytest
from rich.console import Console

from srcli.errors import UsageError
from srcli.evaluation.published import find_table, lookup
from srcli.models import MODELS
from srcli.training.checkpoint import TrainRequest
from srcli.training.recipe import (
    NAMES,
    STUDY,
    load_recipe,
    outline_config,
    read_bundled,
)
from srcli.training.study import StudyRun, TrainedVariant, load_study
from srcli.training.study_report import (
    build_study_document,
    print_study,
    write_study_report,
)


@pytest.fixture
def run_of(tmp_path):
    """A function: a study whose n-th variant has 30 dB and n tenths, or such figures.

    `figures` are by variant, one for each seed; None is a run that is not done.
    """

    def make(model, overrides=None, figures=None, scales=(), **outcome):
        study = load_study(model, overrides, scales=scales)
        usual = {n: [30 + i / 10] for i, n in enumerate(study.recipes)}
        found = figures or usual
        outcomes = {
            name: {
                seed: TrainedVariant(steps=9 if psnr else 4, psnr=psnr, **outcome)
                for seed, psnr in zip(study.seeds, found[name], strict=True)
            }
            for name in study.recipes
        }
        request = TrainRequest(model=model, out=tmp_path, val="set5", precision="fp32")
        return StudyRun(study=study, request=request, outcomes=outcomes)

    return make


def draw(run, **options):
    file = io.StringIO()
    options = options or {"width": 200}
    print_study(Console(file=file, color_system=None, **options), run)
    return file.getvalue()


def rows_of(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


def names_of(document):
    return {
        table["source"]: [row["variant"] for row in table["rows"]]
        for table in document["tables"]
    }


@pytest.mark.parametrize("name", ["drcn", "drrn", "dsrn"])
def test_every_bundled_study_is_sound(name):
    values, study = read_bundled(name, STUDY), load_study(name)
    for source, dataset in values["tables"].items():
        labels = find_table(source).labels
        assert set(labels) & set(study.recipes)
        assert any(lookup(label, dataset, study.scale) for label in labels)
    # What `srcli train --export` says of the pictures knows those two alone.
    assert study.recipe.data in {load_recipe(name, each).data for each in NAMES}
    assert study.recipe.recursions == ()
    for fields in values["components"].values():
        assert set(fields) <= set(MODELS[name].config_class().as_dict())
    known = MODELS[name].variants
    pairs = [(claim["better"], claim["than"]) for claim in values["claims"]]
    assert {each for pair in pairs for each in pair} <= set(known)
    assert len(set(pairs)) == len(pairs)
    assert study.claims  # of the variants that are trained unless others are named
    # Every claim is borne out by the paper's own figures, where it prints any.
    every = load_study(name, {"variants": sorted({n for pair in pairs for n in pair})})
    for claim in every.claims:
        if (difference := every.compare_printed(claim)) is not None:
            assert difference > (-every.margin if claim.at_least else 0)


def test_drrns_study_is_its_table_4():
    study = load_study("DRRN")
    assert list(study.recipes) == [
        "vdsr-d28", "drrn-ns-c-b3u4", "drrn-ns-b3u4", "drrn-c-b3u4", "drrn-b3u4",
    ]  # fmt: skip
    printed = [study.find_printed(name, "set5").psnr for name in study.recipes]
    assert printed == [33.86, 33.92, 33.97, 33.95, 33.99]
    assert (study.dataset, study.scale, study.margin) == ("set5", 3, 0.02)
    marks = [list(study.list_components(name).values()) for name in study.recipes]
    # Local residual learning, recursion, several paths.
    assert marks == [
        [False] * 3, [True, False, False], [True, False, True], [True, True, False],
        [True] * 3,
    ]  # fmt: skip
    assert len(study.claims) == 6


def test_dsrns_study_is_its_table_2_and_its_figure_3():
    study = load_study("dsrn")
    in_table = ["dsrn-single-state", "dsrn-untied", "dsrn-no-feedback", "dsrn"]
    assert list(study.recipes)[:4] == in_table
    assert len(study.recipes) == 12
    printed = [study.find_printed(n, "ntire2017-track1").psnr for n in in_table]
    assert printed == [34.66, 34.71, 34.89, 34.96]
    steps = [outline_config(study.recipes[f"dsrn-t{t}"])[1].steps for t in (1, 9)]
    assert steps == [1, 9]
    # As printed at every scale, where anything is.
    for scale, gains in ((2, (0.25, 0.23, 0.07)), (4, (0.22, 0.19, 0.04))):
        study = load_study("dsrn", scales=(scale,))
        found = [study.compare_printed(claim) for claim in study.claims]
        assert found[:3] == list(gains)
        assert set(found[3:]) == {None}


def test_variants_share_all_but_their_own_structure():
    names = "drrn-b2u3, DRRN-B1U3"
    study = load_study("drrn", {"steps": 7, "config": {"width": 4}, "variants": names})
    first, second = study.recipes.values()
    assert (first.model, second.model) == ("drrn-b2u3", "drrn-b1u3")
    assert first.as_dict() | {"model": ""} == second.as_dict() | {"model": ""}
    assert (first.steps, first.scales) == (7, (3,))
    # Changed networks have nothing of the paper's.
    assert (study.changed, study.claims) == (tuple(study.recipes), ())
    assert study.find_printed("drrn-b2u3", "set5") is None


def test_what_makes_no_study():
    for model, overrides, message in (
        ("drrnn", {}, "did you mean drrn"),
        ("rrrn", {}, "rrrn has no recipe ablation; what has one: drcn, drrn, dsrn"),
        ("drrn-b3u4", {}, "-m drrn --set variants=drrn-b3u4"),
        ("drrn", {"variants": "drrn-b1u3,mrnet-s"}, "mrnet-s is a variant of mrnet"),
        ("drrn", {"variants": "drrn-b1u33"}, "did you mean drrn-b1u3"),
        ("drrn", {"variants": "drrn,drrn"}, "one twice"),
        ("drrn", {"variants": ","}, "names none"),
        ("drrn", {"variants": 3}, "takes names"),
        ("dsrn", {"tables": "DSRN Figure 4"}, "did you mean DSRN Figure 3"),
        ("dsrn", {"tables": "DSRN Table 2", "variants": "dsrn"}, "not of both"),
        ("drrn", {"seeds": 0}, "1 to 99"),
        ("drrn", {"stepps": 3}, "did you mean steps"),
        ("drrn", {"variant": "drrn"}, "did you mean variants"),
        ("drrn", {"scales": [2]}, "-x names it"),
        ("drrn", {"schedule": "plateau", "decay_every": 5}, "as many steps"),
        ("drrn", {"config": {"units": 0, "blocks": 3}}, "the same network"),
    ):
        with pytest.raises(UsageError, match=message):
            load_study(model, overrides)


def test_several_scales_make_no_study():
    with pytest.raises(UsageError, match="one scale"):
        load_study("drrn", scales=(2, 3))


def test_verdicts(run_of):
    for better, than, at_least, difference, text in (
        ([30.02], [30.0], False, 0.02, "shown"),
        ([30.019], [30.0], False, 0.019, "not shown: no difference"),
        ([29.98], [30.0], False, -0.02, "not shown: it is worse"),
        ([29.981], [30.0], True, -0.019, "shown"),
        ([29.98], [30.0], True, -0.02, "not shown: it is worse"),
        ([30.10, 30.10], [30.0, 30.05], False, 0.075, "shown"),
        ([30.30, 30.0], [30.0, 30.01], False, 0.145, "not shown: the seeds disagree"),
        ([30.0, 29.99], [30.0, 30.0], True, -0.005, "shown"),
        ([30.3, 29.9], [30.0, 30.0], True, 0.1, "not shown: the seeds disagree"),
        # Only what both have been trained for.
        ([30.1, 99.0], [30.0, None], False, 0.1, "shown"),
        ([None], [30.0], False, None, "open"),
    ):
        names = (
            ("drrn-b3u4", "drrn-ns-b3u4") if at_least else ("drrn-b2u3", "drrn-b1u3")
        )
        overrides = {"variants": ",".join(names), "seeds": len(better)}
        figures = dict(zip(names, (better, than), strict=True))
        (claim,) = build_study_document(run_of("drrn", overrides, figures))["claims"]
        assert (claim["better"], claim["at_least"]) == (names[0], at_least)
        assert (claim["difference"], claim["verdict"]) == (difference, text)


def test_means_and_gains_are_over_the_seeds_that_all_have(run_of):
    overrides = {"variants": "drrn-b1u3,drrn-b2u3,drrn", "seeds": 2}
    figures = {"drrn-b1u3": [30.0, 31.0], "drrn-b2u3": [30.2, None], "drrn": [None] * 2}
    run = run_of("drrn", overrides, figures)
    document = build_study_document(run)
    rows = document["tables"][0]["rows"]
    # 30.5 for the first row would not fit a gain of 0.2 beside 30.2.
    assert [row["psnr"] for row in rows] == [30.0, 30.2, None]
    assert [row["difference"] for row in rows] == [0.0, 0.2, None]
    assert rows[0]["psnr_by_seed"] == {"0": 30.0, "1": 31.0}
    assert document["psnr_seeds"] == [0]
    text = draw(run)
    assert "Figures are of seed 0, which every variant shown has." in text
    assert "shown (so far, 1 of 2 seeds): a second block helps" in text
    figures |= {"drrn-b2u3": [30.2, 31.1], "drrn": [None, 31.5]}
    rows = build_study_document(run_of("drrn", overrides, figures))["tables"][0]["rows"]
    assert [row["psnr"] for row in rows] == [31.0, 31.1, 31.5]
    figures["drrn"] = [30.4, 31.5]
    rows = build_study_document(run_of("drrn", overrides, figures))["tables"][0]["rows"]
    assert (rows[2]["psnr"], rows[2]["spread"]) == (30.95, 0.778)  # 1.1 / sqrt 2


def test_the_table_has_both_ladders(run_of):
    overrides = {"variants": "vdsr-d28,drrn-ns-b3u4,drrn-b3u4"}
    figures = {"vdsr-d28": [30.0], "drrn-ns-b3u4": [30.25], "drrn-b3u4": [None]}
    run = run_of("drrn", overrides, figures, seconds_per_step=0.25)
    text = draw(run)
    rows = rows_of(text)
    assert rows["vdsr-d28"][-6:] == ["0.25", "9", "30.000", "+0.000", "33.86", "+0.00"]
    assert rows["drrn-ns-b3u4"][-5:] == ["9", "30.250", "+0.250", "33.97", "+0.11"]
    assert rows["drrn-b3u4"][-5:] == ["4", "-", "-", "33.99", "+0.13"]
    assert "2 of 3 runs" in text
    assert "DRRN Table 4, set5 x3" in text
    assert "(drrn-ns-b3u4 over vdsr-d28; section 4.5): +0.250 dB, paper +0.11" in text
    assert "open: shared units" in text
    narrow = draw(run, width=66, force_terminal=True)
    (row,) = (x for x in narrow.splitlines() if x.startswith("drrn-ns-b3u4 "))
    assert len(row.rstrip()) <= 66
    assert row.split()[-4:] == ["30.250", "+0.250", "33.97", "+0.11"]
    first, second, third = build_study_document(run)["tables"][0]["rows"]
    assert second["paper"] == {
        "psnr": 33.97, "difference": 0.11, "source": "DRRN Table 4",
    }  # fmt: skip
    assert (second["label"], third["psnr"]) == ("DRRN_NS", None)
    assert third["components"] == ["local residual", "recursive", "multi-path"]
    assert first["parameters"] > third["parameters"]


def test_a_variant_of_two_tables_stands_in_each_in_its_place(run_of, tmp_path):
    run = run_of("dsrn")
    document = build_study_document(run)
    table, curve = document["tables"]
    assert (table["source"], curve["source"]) == ("DSRN Table 2", "DSRN Figure 3")
    mine, again = table["rows"][3], curve["rows"][6]
    assert mine["variant"] == again["variant"] == "dsrn"
    # Gains are over the first row of the table at hand: 30.3 - 30.0 and 30.3 - 30.4.
    assert (mine["difference"], again["difference"]) == (0.3, -0.1)
    assert (mine["label"], again["label"]) == ("DSRN", "T = 7")
    assert mine["paper"]["difference"] == 0.3  # 34.96 - 34.66
    paper = {"psnr": 37.66, "difference": None, "source": "DSRN Table 1"}
    assert again["paper"] == paper
    first, second = draw(run).split("\nDSRN Figure 3\n")
    # No gain of a curve without figures; all of its networks have all components.
    assert "feedback" in first
    assert "feedback" not in second[: second.index("dsrn-t1")]
    assert rows_of(second)["dsrn"][-2:] == ["-0.100", "37.66"]
    assert "Note: a curve over T" in second
    write_study_report(run)
    report = (tmp_path / "report.md").read_text()
    heads = [line for line in report.splitlines() if line.startswith("## ")]
    assert heads == ["## DSRN Table 2", "## DSRN Figure 3", "## Notes", "## Claims"]
    assert "| dsrn | T = 7 |" in report


def test_tables_of_named_variants(run_of):
    for model, names, places in (
        # One row of a table compares nothing.
        ("drrn", "drrn-b3u2,drrn-b3u3,drrn-b3u4", [None]),
        # Nor does the only one that no table has, if it comes first.
        ("drrn", "drrn-b3u1,drrn-b3u4,drrn-c-b3u4", ["DRRN Table 4", None]),
        ("dsrn", "dsrn-t1,dsrn-t2,dsrn-untied", ["DSRN Figure 3", None]),
        ("dsrn", "dsrn", [None]),
        ("dsrn", "dsrn-untied,dsrn", ["DSRN Table 2"]),
        ("drcn", "drcn-basic,drcn-no-skip,drcn-no-supervision,drcn", [None]),
    ):
        run = run_of(model, {"variants": names})
        found = names_of(build_study_document(run))
        assert list(found) == places
        standing = {name for table in found.values() for name in table}
        assert standing == set(names.split(","))
        if len(standing) > 1:
            assert all(len(table) > 1 for table in found.values())
        if None in places:
            assert "\nNamed variants\n" in draw(run)


def test_why_no_printed_figure_is_there(run_of):
    for overrides, scales, text in (
        ({"degradation": "bd"}, (), "no figure of these networks on set5 x3 with deg"),
        ({}, (2,), "print no figure of these networks on set5 x2."),
        ({"config": {"width": 4}}, (), 'networks are not as published ({"width": 4})'),
    ):
        found = draw(run_of("drrn", overrides, scales=scales))
        assert text in found
        assert "33." not in found


def test_a_variant_that_does_not_train_is_named(run_of):
    overrides = {"variants": "drrn-b1u3,drrn-b2u3"}
    figures = {"drrn-b1u3": [None], "drrn-b2u3": [None]}
    text = draw(run_of("drrn", overrides, figures, diverged=True, setbacks=8))
    assert "drrn-b2u3 does not train with seed 0" in text
    assert " diverged" in text.partition("The paper")[0]
