"""Studies as they are described: variants, claims, and what is refused."""

import dataclasses

import pytest

from srcli.errors import UsageError
from srcli.evaluation.published import find_table, results
from srcli.models import MODELS
from srcli.training import recipe as recipe_module
from srcli.training import study_plan
from srcli.training.recipe import NAMES, STUDY, load_recipe, read_bundled
from srcli.training.study_plan import Claim, load_study, outline_config


def _networks_with_a_study():
    for name in MODELS:
        try:
            read_bundled(name, STUDY)
        except UsageError:
            continue
        yield name


@pytest.mark.parametrize("name", list(_networks_with_a_study()))
def test_every_bundled_study_is_sound(name):
    values, study = read_bundled(name, STUDY), load_study(name)
    datasets = {result.dataset for result in results()}
    for source, dataset in values["tables"].items():
        assert set(find_table(source).labels) & set(study.variants)
        assert dataset in datasets
    # What `srcli train --export` says of the pictures knows those two alone.
    assert study.recipe.data in {load_recipe(name, each).data for each in NAMES}
    assert len(study.variants) > 1
    assert study.recipe.recursions == ()
    known = MODELS[name].variants
    for fields in values["components"].values():
        assert set(fields) <= set(MODELS[name].config_class().as_dict())
    for claim in values["claims"]:
        assert {claim["better"], claim["than"]} <= set(known)
        assert claim["better"] != claim["than"]
    assert study.claims  # of the variants that are trained unless others are named


def test_drrns_study_is_its_table_4():
    study = load_study("DRRN")
    assert study.variants == (
        "vdsr-d28", "drrn-ns-c-b3u4", "drrn-ns-b3u4", "drrn-c-b3u4", "drrn-b3u4",
    )  # fmt: skip
    printed = [study.find_printed(name, "set5").psnr for name in study.variants]
    assert printed == [33.86, 33.92, 33.97, 33.95, 33.99]
    assert (study.dataset, study.scale, study.margin) == ("set5", 3, 0.02)
    marks = [list(study.list_components(name).values()) for name in study.variants]
    assert marks == [
        [False, False, False],
        [True, False, False],
        [True, False, True],
        [True, True, False],
        [True, True, True],
    ]
    assert len(study.claims) == 6
    # Every claim is borne out by the paper's own figures.
    by_name = dict(zip(study.variants, printed, strict=True))
    assert all(by_name[claim.better] > by_name[claim.than] for claim in study.claims)


def test_variants_share_all_but_their_own_structure():
    study = load_study("drrn", {"steps": 7, "config": {"width": 4}})
    recipes = list(study.recipes.values())
    for recipe in recipes:
        assert dataclasses.replace(recipe, model="drrn") == dataclasses.replace(
            recipes[0], model="drrn"
        )
        assert outline_config(recipe)[1].width == 4
        assert (recipe.steps, recipe.scales) == (7, (3,))


def test_other_variants_bring_their_own_claims_and_figures():
    names = "drrn-b2u3, DRRN-B1U3,drrn"
    study = load_study("drrn", {"variants": names})
    assert study.variants == ("drrn-b2u3", "drrn-b1u3", "drrn")
    pairs = [(claim.better, claim.than) for claim in study.claims]
    assert pairs == [("drrn-b2u3", "drrn-b1u3")]
    assert study.find_printed("drrn-b2u3", "set5").psnr == 33.76  # section 4.3
    assert study.find_printed("drrn-b1u3", "set5") is None
    assert study.find_printed("drrn", "set5").source == "DRRN Table 2"
    listed = load_study("drrn", {"variants": ["drrn-b2u3", "drrn-b1u3", "drrn"]})
    assert listed.variants == study.variants


def test_another_scale_has_no_printed_figures():
    study = load_study("drrn", scales=(2,))
    assert study.recipe.scales == (2,)
    assert study.find_printed("drrn-b3u4", "set5") is None


def test_dsrns_study_is_its_table_2_and_its_figure_3():
    study = load_study("dsrn")
    assert study.variants == (
        "dsrn-single-state", "dsrn-untied", "dsrn-no-feedback", "dsrn",
        "dsrn-t1", "dsrn-t2", "dsrn-t3", "dsrn-t4", "dsrn-t5", "dsrn-t6",
        "dsrn-t8", "dsrn-t9",
    )  # fmt: skip
    assert (study.dataset, study.scale) == ("set5", 2)
    in_table = study.variants[:4]
    printed = [study.find_printed(n, "ntire2017-track1").psnr for n in in_table]
    assert printed == [34.66, 34.71, 34.89, 34.96]
    on_set5 = {name: study.find_printed(name, "set5") for name in study.variants}
    found = {name: result.psnr for name, result in on_set5.items() if result}
    assert found == {"dsrn": 37.66}  # the curve has no figures, Table 1 has T = 7's
    marks = [list(study.list_components(name).values()) for name in in_table]
    # Two states, feedback, shared weights.
    assert marks == [
        [False, False, True],
        [True, True, False],
        [True, False, True],
        [True, True, True],
    ]
    steps = [
        outline_config(study.recipes[n])[1].steps
        for n in ("dsrn", "dsrn-t1", "dsrn-t9")
    ]
    assert steps == [7, 1, 9]


def test_dsrns_claims_are_those_of_section_5_3():
    study = load_study("dsrn")
    claims = {(c.better, c.than): c.at_least for c in study.claims}
    curve = [f"dsrn-t{t}" for t in range(1, 7)] + ["dsrn"]
    assert claims == {
        ("dsrn", "dsrn-untied"): False,
        ("dsrn-no-feedback", "dsrn-single-state"): False,
        ("dsrn", "dsrn-no-feedback"): False,
        **{(curve[t], curve[t - 1]): False for t in range(1, 7)},
        ("dsrn", "dsrn-t8"): True,
        ("dsrn", "dsrn-t9"): True,
    }
    assert {claim.section for claim in study.claims} == {"5.3"}
    # As printed at every scale, where anything is.
    for scale, gains in ((2, (0.25, 0.23, 0.07)), (4, (0.22, 0.19, 0.04))):
        study = load_study("dsrn", scales=(scale,))
        found = [study.compare_printed(c.better, c.than) for c in study.claims]
        assert found[:3] == list(gains)
        assert set(found[3:]) == {None}


def test_drcns_study_is_its_figure_8():
    study = load_study("drcn")
    assert study.variants == ("drcn-d1", "drcn-d6", "drcn-d11", "drcn")
    assert list(study.tables) == ["DRCN Figure 8"]
    assert (study.dataset, study.scale) == ("set5", 3)
    configs = [outline_config(recipe)[1] for recipe in study.recipes.values()]
    assert [config.recursions for config in configs] == [1, 6, 11, 16]
    # Table 1 has the value of D = 16, and nothing that of the others.
    found = {name: study.find_printed(name, "set5") for name in study.variants}
    assert {n: r.psnr for n, r in found.items() if r} == {"drcn": 33.82}
    pairs = [(claim.better, claim.than) for claim in study.claims]
    assert pairs == [
        ("drcn-d6", "drcn-d1"), ("drcn-d11", "drcn-d6"), ("drcn", "drcn-d11"),
    ]  # fmt: skip
    assert {(claim.section, claim.at_least) for claim in study.claims} == {
        ("4.3", False)
    }


def test_drcns_extensions_are_looked_into_where_their_variants_are_named():
    names = [
        "drcn-basic", "drcn-no-skip", "drcn-no-supervision", "drcn-deep-supervision",
        "drcn",
    ]  # fmt: skip
    study = load_study("drcn", {"variants": names})
    claims = {claim.than: claim.at_least for claim in study.claims}
    assert claims == {
        "drcn-no-supervision": False,
        "drcn-no-skip": False,
        "drcn-basic": False,
        "drcn-deep-supervision": True,
    }
    assert {(claim.section, claim.better) for claim in study.claims} == {
        ("3.2", "drcn")
    }
    marks = {name: list(study.list_components(name).values()) for name in names}
    # Recursive supervision, which "deep supervision" is not, and the skip-connection.
    assert marks == {
        "drcn-basic": [False, False],
        "drcn-no-skip": [True, False],
        "drcn-no-supervision": [False, True],
        "drcn-deep-supervision": [False, True],
        "drcn": [True, True],
    }


def test_one_table_alone():
    study = load_study("dsrn", {"tables": "dsrn figure 3", "steps": 5})
    assert study.variants == tuple(
        "dsrn" if t == 7 else f"dsrn-t{t}" for t in range(1, 10)
    )
    assert study.recipe.steps == 5
    assert {claim.text for claim in study.claims} >= {"a second step helps"}
    assert all("untied" not in claim.text for claim in study.claims)
    both = load_study("dsrn", {"tables": "DSRN Figure 3, DSRN Table 2"})
    assert both.variants == load_study("dsrn").variants
    listed = load_study("dsrn", {"tables": ["DSRN Table 2"]})
    assert listed.variants == both.variants[:4]


def test_another_networks_study_needs_no_more_than_a_file(monkeypatch):
    """Of MRNet, one of whose networks two tables print, after less or more training."""
    values = {
        "tables": {"MRNet Table 2": "set5", "MRNet Table 1": "set14"},
        "dataset": "set5",
        "scale": 2,
        "margin": 0.02,
        "recipe": {"steps": 9},
        "claims": [
            {
                "text": "the input encoder helps",
                "section": "4.2",
                "better": "mrnet-input-encoder",
                "than": "mrnet-baseline",
            }
        ],
    }
    for module in (recipe_module, study_plan):
        monkeypatch.setattr(module, "read_bundled", lambda *_: values)
    study = load_study("mrnet")
    # Table 2's other rows are no variants, but the same with other steps.
    assert study.variants == (
        "mrnet-conv-fusion", "mrnet-shuffle3x3", "mrnet-baseline", "mrnet-residual",
        "mrnet-input-encoder", "mrnet-memory-updater", "mrnet-s",
    )  # fmt: skip
    assert study.find_printed("mrnet-s", "set14").psnr == 33.63
    assert study.find_printed("mrnet-s", "b100").source == "MRNet Table 3"
    # What the table at hand prints counts before what another of the study's does.
    more = dataclasses.replace(study, tables={**study.tables, "MRNet Table 3": "set5"})
    for source, psnr in (("MRNet Table 1", 37.94), ("MRNet Table 3", 38.06)):
        assert more.find_printed("mrnet-s", "set5", source).psnr == psnr
    (claim,) = study.claims
    # 33.51 - 33.46 on Table 1's set, not 37.92 - 37.84 on Table 2's.
    assert study.compare_printed(claim.better, claim.than) == 0.05


def test_seeds_count_on_from_the_first(tmp_path):
    study = load_study("drrn", {"seeds": 2, "variants": "drrn-b1u3,drrn-b2u3"}, seed=5)
    members = study.list_members(tmp_path)
    # A study that stops half way has every variant once.
    assert [(member.variant, member.seed) for member in members] == [
        ("drrn-b1u3", 5), ("drrn-b2u3", 5), ("drrn-b1u3", 6), ("drrn-b2u3", 6),
    ]  # fmt: skip
    assert members[2].folder == tmp_path / "drrn-b1u3" / "seed-6"
    alone = load_study("drrn").list_members(tmp_path)
    assert alone[0].folder == tmp_path / "vdsr-d28"


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("drrnn", {}, "did you mean drrn"),
        ("rrrn", {}, "rrrn has no recipe ablation; what has one: drcn, drrn, dsrn"),
        ("drrn-b3u4", {}, "-m drrn --set variants=drrn-b3u4"),
        ("drrn", {"variants": "drrn-b1u3,mrnet-s"}, "mrnet-s is a variant of mrnet"),
        ("drrn", {"variants": "drrn-b1u33"}, "did you mean drrn-b1u3"),
        ("drrn", {"variants": "drrn,drrn"}, "one twice"),
        ("drrn", {"variants": ","}, "names none"),
        ("drrn", {"variants": 3}, "takes names"),
        ("dsrn", {"tables": "DSRN Figure 4"}, "did you mean DSRN Figure 3"),
        ("dsrn", {"tables": "DRRN Table 4"}, "known: DSRN Figure 3, DSRN Table 2"),
        ("dsrn", {"tables": "dsrn table 2,DSRN Table 2"}, "names one twice"),
        ("dsrn", {"tables": []}, "names none"),
        ("dsrn", {"tables": 2}, "--set tables takes names"),
        (
            "dsrn",
            {"tables": "DSRN Table 2", "variants": "dsrn"},
            "of tables or of named variants, not of both",
        ),
        ("dsrn", {"config": {"kernel": [4, 8, 8]}}, "from 3 to 7 for x3, not 8"),
        ("dsrn", {"config": {"steps": 0}}, "at least one step"),
        ("drrn", {"seeds": 0}, "1 to 99"),
        ("drrn", {"seeds": "two"}, "1 to 99"),
        ("drrn", {"stepps": 3}, "did you mean steps"),
        ("drrn", {"variant": "drrn"}, "did you mean variants"),
        ("drrn", {"scales": [2]}, "-x names it"),
        ("drrn", {"schedule": "plateau", "decay_every": 5}, "as many steps"),
        ("drrn", {"config": {"units": 0, "blocks": 3}}, "the same network"),
    ],
)
def test_what_makes_no_study(model, overrides, message):
    with pytest.raises(UsageError, match=message):
        load_study(model, overrides)


def test_several_scales_make_no_study():
    with pytest.raises(UsageError, match="one scale"):
        load_study("drrn", scales=(2, 3))


def test_the_shared_recipe_can_be_read_for_one_variant():
    recipe = load_recipe("drrn-b3u4", STUDY)
    assert recipe == load_study("drrn").recipes["drrn-b3u4"]


def test_every_variant_of_drrn_has_its_components():
    names = ["drrn-batch" if n == "drrn" else n for n in MODELS["drrn"].variants]
    names = list(dict.fromkeys(names))
    study = load_study("drrn", {"variants": names, "batch": 2})
    found = {name: study.list_components(name).items() for name in names}
    marks = {
        name: "".join(key[0] for key, there in each if there)
        for name, each in found.items()
    }
    assert marks == {
        "drrn-batch": "lrm",
        "drrn-b1u9": "lrm",
        **dict.fromkeys(("drrn-b1u3", "drrn-b2u3", "drrn-b3u3", "drrn-b4u3"), "lrm"),
        **dict.fromkeys(("drrn-b3u2", "drrn-b3u4", "drrn-b3u8"), "lrm"),
        # A single unit is applied once, and begins where its block does.
        **dict.fromkeys(("drrn-b3u1", "drrn-b17u1"), "l"),
        **dict.fromkeys(("drrn-ns-b3u2", "drrn-ns-b3u3", "drrn-ns-b3u4"), "lm"),
        **dict.fromkeys(("drrn-c-b3u2", "drrn-c-b3u3", "drrn-c-b3u4"), "lr"),
        **dict.fromkeys(("drrn-ns-c-b3u2", "drrn-ns-c-b3u3", "drrn-ns-c-b3u4"), "l"),
        **dict.fromkeys(("vdsr-d16", "vdsr-d22", "vdsr-d28", "vdsr"), ""),
    }


@pytest.mark.parametrize(
    ("config", "marks"),
    [
        ({"shared": False}, [True, False, True]),
        ({"path": "chain"}, [True, True, False]),
        ({"units": 1}, [True, False, False]),
        ({"units": 0}, [False, False, False]),
        ({"width": 4}, [True, True, True]),
    ],
)
def test_components_are_those_of_what_is_trained(config, marks):
    study = load_study("drrn", {"variants": "drrn-b2u3,drrn-b3u2", "config": config})
    assert list(study.list_components("drrn-b2u3").values()) == marks


def test_changed_networks_have_nothing_of_the_papers():
    names = "drrn-b2u3,drrn-b3u3"
    study = load_study("drrn", {"variants": names})
    assert (study.changed, len(study.claims)) == ((), 1)
    for config in ({"width": 4}, {"norm": "batch"}, {"units": 1}, {"shared": False}):
        study = load_study("drrn", {"variants": names, "config": config})
        assert study.changed == ("drrn-b2u3", "drrn-b3u3")
        assert study.find_printed("drrn-b2u3", "set5") is None
        assert study.claims == ()
    # What leaves a network as it is changes nothing, and one alone is one alone.
    study = load_study("drrn", {"variants": names, "config": {"width": 128}})
    assert study.changed == ()
    names = "drrn-b2u3,drrn-b3u2,drrn-b3u1"
    study = load_study("drrn", {"variants": names, "config": {"blocks": 3}})
    assert study.changed == ("drrn-b2u3",)
    assert study.find_printed("drrn-b3u2", "set5").psnr == 33.77
    assert [claim.better for claim in study.claims] == ["drrn-b3u2"]


def test_drrns_claims_are_the_papers():
    claims = [Claim(**values) for values in read_bundled("drrn", STUDY)["claims"]]
    pairs = {(each.better, each.than) for each in claims}
    assert len(pairs) == len(claims)
    # Figure 8: the chain is compared with units unshared, at all three depths.
    for units in (2, 3, 4):
        assert (f"drrn-ns-b3u{units}", f"drrn-ns-c-b3u{units}") in pairs
        assert (f"drrn-b3u{units}", f"drrn-ns-b3u{units}") in pairs
    assert not {("drrn-b3u3", "drrn-c-b3u3"), ("drrn-b3u2", "drrn-c-b3u2")} & pairs
    # 4.3: three structures of 52 layers, comparable, and above the shallower ones.
    deep = ("drrn", "drrn-b3u8", "drrn-b17u1")
    assert {(name, "drrn-b3u4") for name in deep} <= pairs
    among = [each for each in claims if {each.better, each.than} <= set(deep)]
    assert len(among) == 3
    assert all(each.at_least for each in among)
    every = load_study(
        "drrn", {"variants": sorted({n for pair in pairs for n in pair})}
    )
    for claim in claims:
        difference = every.compare_printed(claim.better, claim.than)
        if difference is not None:
            assert difference > (-every.margin if claim.at_least else 0)
