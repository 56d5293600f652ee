"""The papers' numbers: complete, plausible, and consistent with each other."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import pytest

from srcli.errors import UsageError
from srcli.evaluation.published import every, find_table, lookup

FOUR = ("set5", "set14", "b100", "urban100")

# Source and degradation: models x scales x data sets, less what is printed as a dash;
# then the sums of all PSNR, SSIM and IFC, added up from the papers' text, None where
# the table has none.
TABLES = {
    ("DRCN Table 1", "bi"): (6 * 3 * 4, 2116.39, 59.5693, None),
    ("DRRN Table 2", "bi"): (8 * 3 * 4, 2860.82, 80.2291, None),
    ("DRRN Table 3", "bi"): (8 * 3 * 3, None, None, 381.426),
    ("DRRN Table 4", "bi"): (5, 169.69, None, None),
    # DRRN's three IFCs on B100 are printed as N.A.
    ("DSRN Table 1", "bi"): (12 * 3 * 4, 4294.56, 120.497, 719.017),
    ("DSRN Table 2", "bi"): (9 * 3, 848.53, None, None),
    ("MRNet Table 1", "bi"): (5 * 2, 357.12, None, None),
    ("MRNet Table 2", "bi"): (2 * 5, 379.65, None, None),
    # 12 rows at x2 and x3, 14 at x4; SRDenseNet has no Manga109.
    ("MRNet Table 3", "bi"): ((12 + 12 + 14) * 5 - 1, 5864.41, 163.5368, None),
    # D-DBPN has no x3.
    ("RRRN Table 1", "bi"): (9 * 3 * 5 - 5, 4025.41, 112.4678, None),
    ("RRRN Table 2", "bd"): (9 * 5, 1331.89, 37.5658, None),
    ("RRRN Table 2", "dn"): (9 * 5, 1144.21, 31.2486, None),
}

# What the file holds, read here without the module.
DOCUMENT = json.loads(
    files("srcli.evaluation").joinpath("published.json").read_text("utf-8")
)


@pytest.fixture(scope="module")
def results():
    """Every printed result, as the module finds it."""
    places = [
        (row["model"], dataset, row["scale"], table["degradation"])
        for table in DOCUMENT["tables"]
        for row in table["rows"]
        for dataset, cell in row["results"].items()
        if cell is not None
    ]
    return [result for place in dict.fromkeys(places) for result in every(*place)]


def cell(source, model, dataset, scale, degradation="bi"):
    """(PSNR, SSIM, IFC) that one table prints; exactly one result must match."""
    found = [r for r in every(model, dataset, scale, degradation) if r.source == source]
    assert len(found) == 1, f"{source} {model} {dataset} x{scale}: {len(found)} cells"
    return found[0].psnr, found[0].ssim, found[0].ifc


def test_every_table_has_all_its_cells_and_adds_up(results):
    keys = [(r.source, r.degradation, r.model, r.dataset, r.scale) for r in results]
    assert len(set(keys)) == len(keys)
    tables = [r for r in results if " Table " in r.source]
    counts = {key: count for key, (count, *_) in TABLES.items()}
    assert Counter((r.source, r.degradation) for r in tables) == counts
    for key, (count, *sums) in TABLES.items():
        for metric, expected in zip(("psnr", "ssim", "ifc"), sums, strict=True):
            values = [
                getattr(r, metric) for r in tables if (r.source, r.degradation) == key
            ]
            printed = [value for value in values if value is not None]
            absent = 3 if (key[0], metric) == ("DSRN Table 1", "ifc") else 0
            assert len(printed) == (count - absent if expected else 0)
            assert sum(printed) == pytest.approx(expected or 0, abs=1e-6)


@pytest.mark.parametrize(
    ("source", "letter", "field", "points", "scale"),
    [
        ("DRCN Figure 8", "D", "recursions", [1, 6, 11, 16], 3),
        ("DSRN Figure 3", "T", "steps", list(range(1, 10)), 2),
    ],
)
def test_a_curve_has_its_points_and_no_values(source, letter, field, points, scale):
    """Of the network itself, which is one of them, Table 1 prints a value."""
    from srcli.models import variant

    table = find_table(source)
    assert f"drawn for x{scale} on Set5" in table.note
    assert list(table.labels.values()) == [f"{letter} = {n}" for n in points]
    assert [getattr(variant(name)[1], field) for name in table.labels] == points
    printed = {name: lookup(name, "set5", scale) for name in table.labels}
    network = source.split()[0].lower()
    assert [name for name, result in printed.items() if result] == [network]
    assert printed[network].source == f"{network.upper()} Table 1"


def test_a_table_is_found_by_its_name():
    labels = find_table("DSRN Table 2").labels
    assert list(labels)[:4] == [
        "dsrn-single-state", "dsrn-untied", "dsrn-no-feedback", "dsrn",
    ]  # fmt: skip
    assert labels["dsrn-untied"] == "DSRN w/o parameter sharing"
    # One of two degradations, with the rows of both.
    assert {"bicubic", "rrrn"} <= set(find_table("RRRN Table 2").labels)
    with pytest.raises(UsageError, match="unknown table 'DSRN Table 3'"):
        find_table("DSRN Table 3")


def test_own_variants_have_the_names_that_the_program_knows(results):
    from srcli.models import MODELS, variant_names

    known = variant_names()
    for name in {r.model for r in results if r.model.split("-")[0] in MODELS}:
        # Table 2 of MRNet sweeps the recursions: "-t2" and so on are not variants.
        stem, _, last = name.rpartition("-")
        assert name in known or (last in ("t2", "t6", "t8", "t10") and stem in known)


@pytest.mark.parametrize("metric", ["psnr", "ssim", "ifc"])
def test_quality_falls_as_the_scale_rises(results, metric):
    compared = 0
    for small in results:
        for large in every(small.model, small.dataset, small.scale + 1):
            values = getattr(small, metric), getattr(large, metric)
            if small.source != large.source or None in values:
                continue
            if metric == "ssim" and large.note and "SSIM misprinted" in large.note:
                continue
            compared += 1
            assert values[0] > values[1], (small, large)
    assert compared > 100


@pytest.mark.parametrize(
    ("one", "other", "models", "datasets"),
    [
        ("DRCN Table 1", "DRRN Table 2", "bicubic drcn rfl selfexsr", FOUR),
        ("DRRN Table 2", "MRNet Table 3", "bicubic vdsr drcn drrn", FOUR),
        ("DRRN Table 2", "RRRN Table 1", "bicubic srcnn", FOUR),
        ("MRNet Table 3", "RRRN Table 1", "bicubic", FOUR),
    ],
)
def test_papers_that_copy_a_row_print_the_same(one, other, models, datasets):
    for model in models.split():
        for dataset in datasets:
            for scale in (2, 3, 4):
                here = cell(one, model, dataset, scale)
                assert here == cell(other, model, dataset, scale)


def test_differences_that_the_texts_state():
    def gain(source, better, worse, dataset, scale):
        upper, lower = (cell(source, m, dataset, scale)[0] for m in (better, worse))
        return pytest.approx(upper - lower, abs=1e-6)

    # DRRN section 4.4 and the caption of Figure 1.
    assert gain("DRRN Table 2", "drrn", "vdsr", "urban100", 2) == 0.47
    assert gain("DRRN Table 2", "drrn", "drcn", "urban100", 3) == 0.38
    assert gain("DRRN Table 2", "drrn", "vdsr", "urban100", 4) == 0.26
    assert gain("DRRN Table 2", "drrn", "vdsr", "set5", 3) == 0.37
    assert gain("DRRN Table 2", "drrn", "drcn", "set5", 3) == 0.21
    # MRNet section 4.2.1.
    assert gain("MRNet Table 1", "mrnet-s", "mrnet-baseline", "set14", 2) == 0.17
    # DSRN section 5.3: about 0.2 dB lost with untied weights.
    for scale in (2, 3, 4):
        lost = gain("DSRN Table 2", "dsrn", "dsrn-untied", "ntire2017-track1", scale)
        assert 0.2 <= lost.expected < 0.3


# Read from the papers a second time, by eye.
SPOT_CHECKS = [
    ("DRCN Table 1", "a+", "set5", 2, "bi", (36.54, 0.9544, None)),
    ("DRCN Table 1", "selfexsr", "urban100", 4, "bi", (24.79, 0.7374, None)),
    ("DRCN Figure 4", "selfexsr", "urban100/img082", 4, "bi", (30.73, 0.9193, None)),
    ("DRCN Figure 6", "drcn", "set14/ppt3", 3, "bi", (27.66, 0.9608, None)),
    ("DRRN Table 2", "srcnn", "set5", 4, "bi", (30.48, 0.8628, None)),
    ("DRRN Table 2", "drrn-b1u9", "b100", 2, "bi", (32.01, 0.8969, None)),
    ("DRRN Table 3", "bicubic", "set5", 2, "bi", (None, None, 6.083)),
    ("DRRN Table 3", "vdsr", "urban100", 2, "bi", (None, None, 8.645)),
    ("DRRN Table 4", "vdsr-d28", "set5", 3, "bi", (33.86, None, None)),
    ("DRRN Section 4.3", "drrn-b3u8", "set5", 3, "bi", (34.04, None, None)),
    ("DSRN Table 1", "bicubic", "set14", 2, "bi", (30.34, 0.870, 6.126)),
    ("DSRN Table 1", "fsrcnn", "b100", 3, "bi", (28.52, 0.790, 4.061)),
    ("DSRN Table 1", "dsrn", "set14", 3, "bi", (30.26, 0.837, 4.892)),
    ("DSRN Table 2", "edsr+", "ntire2017-track1", 4, "bi", (29.04, None, None)),
    ("MRNet Table 1", "mrnet-memory-updater", "set14", 2, "bi", (33.54, None, None)),
    ("MRNet Table 2", "mrnet-conv-fusion-t10", "set5", 2, "bi", (38.02, None, None)),
    ("MRNet Table 3", "drcn", "manga109", 2, "bi", (37.55, 0.9732, None)),
    ("MRNet Table 3", "mrnet-s", "b100", 3, "bi", (29.18, 0.8072, None)),
    ("MRNet Table 3", "srdensenet", "urban100", 4, "bi", (26.05, 0.7819, None)),
    ("RRRN Table 1", "edsr", "urban100", 2, "bi", (32.93, 0.9351, None)),
    ("RRRN Table 1", "srfbn", "manga109", 3, "bi", (34.18, 0.9481, None)),
    ("RRRN Table 2", "bicubic", "set5", 3, "bd", (28.34, 0.8161, None)),
    ("RRRN Table 2", "rdn", "urban100", 3, "dn", (24.92, 0.7362, None)),
]  # fmt: skip


def test_cells_are_as_printed():
    for source, model, dataset, scale, degradation, expected in SPOT_CHECKS:
        assert cell(source, model, dataset, scale, degradation) == expected


def test_lookup_takes_the_networks_own_paper():
    for model, source in {
        "drcn": "DRCN Table 1",
        "drrn": "DRRN Table 2, DRRN Table 3",
        "drrn-b1u9": "DRRN Table 2, DRRN Table 3",
        "dsrn": "DSRN Table 1",
        "mrnet-s": "MRNet Table 3",
        "rrrn": "RRRN Table 1",
    }.items():
        for scale in (2, 3, 4):
            found = lookup(model, "set5", scale)
            assert (found.model, found.scale, found.source) == (model, scale, source)
            assert found.psnr > 31
    # Other papers' for a set that its own one lacks.
    found = lookup("drrn", "manga109", 2)
    assert (found.psnr, found.source) == (37.88, "MRNet Table 3")
    assert lookup("MRNet", "Set5", 2, "BI") == lookup("mrnet", "set5", 2) is not None


def test_lookup_joins_the_tables_of_one_paper():
    found = lookup("drrn", "set14", 4)
    assert (found.psnr, found.ssim, found.ifc) == (28.21, 0.7720, 3.252)
    psyco = lookup("psyco", "set14", 4)
    assert (psyco.psnr, psyco.ifc) == (None, 3.055)
    assert lookup("vdsr", "set5", 2).note.startswith("IFC: ")


def test_lookup_of_other_methods_follows_the_majority():
    for model, dataset, scale, psnr in (
        ("bicubic", "set14", 2, 30.24),  # DSRN alone prints 30.34
        ("bicubic", "set5", 2, 33.66),  # DSRN alone prints 33.65
        ("bicubic", "manga109", 2, 30.80),  # RRRN's is a misprint
        ("vdsr", "set14", 2, 33.03),  # RRRN 33.05, DSRN 32.97
        ("srcnn", "set14", 3, 29.30),  # DRCN 29.28, DSRN 29.41
    ):
        assert lookup(model, dataset, scale).psnr == psnr
    assert lookup("bicubic", "set5", 2).ifc == 6.083
    assert lookup("bicubic", "set14", 3).ifc == 3.473


def test_lookup_takes_ablations_where_no_comparison_has_the_variant():
    found = lookup("mrnet-baseline", "set14", 2)
    assert (found.psnr, found.ssim) == (33.46, None)
    assert "400 epochs" in found.note
    # The final network's row wins over the same network after 400 epochs.
    assert lookup("mrnet-s", "set5", 2).psnr == 38.06
    assert [r.psnr for r in every("mrnet-s", "set5", 2)] == [38.06, 37.94]


def test_what_no_paper_prints_is_none():
    for question in (
        ("nonet", "set5", 2),
        ("mrnet", "noset", 2),
        ("dsrn", "manga109", 2),
        ("mrnet", "set5", 8),
        ("mrnet", "set5", 3, "bd"),
        ("d-dbpn", "set5", 3),  # printed as a dash
    ):
        assert lookup(*question) is None
        assert every(*question) == ()


def test_every_gives_all_sources_the_own_paper_first():
    sources = [r.source for r in every("drcn", "set5", 2)]
    assert sources == ["DRCN Table 1", "DRRN Table 2", "MRNet Table 3", "DSRN Table 1"]
    bicubic = every("bicubic", "set5", 3)
    assert {r.paper for r in bicubic} == set(DOCUMENT["papers"])


def test_evident_misprints_are_kept_and_noted():
    for model, dataset, scale, degradation in (
        ("bicubic", "manga109", 2, "bi"),
        ("vdsr", "set14", 3, "bi"),
        ("edsr", "set5", 3, "bi"),
        ("rrrn", "b100", 3, "dn"),
        ("bicubic", "set5", 3, "bd"),
    ):
        (found,) = (
            r for r in every(model, dataset, scale, degradation) if r.paper == "rrrn"
        )
        assert found.note, found
    assert lookup("mrnet", "set5", 2).note is None


def printed_size(source, model):
    """Parameters and multiply-accumulates that a table prints, of its first scale."""
    for table in DOCUMENT["tables"]:
        for row in table["rows"]:
            if (table["source"], row["model"]) == (source, model):
                return row.get("parameters"), row.get("macs")
    raise AssertionError


def test_published_sizes_are_those_of_the_architectures():
    # DRCN: 256 channels, 3x3, D = 16; DRRN: 128 channels, 3x3; per output pixel.
    drcn = 9 * 256 + (1 + 16 + 16) * 9 * 256**2 + 16 * 9 * 256
    drrn = 2 * 9 * 128 + 50 * 9 * 128**2
    for model, macs in (("drcn", drcn), ("drrn", drrn)):
        printed = printed_size("MRNet Table 3", model)[1]
        assert printed == pytest.approx(macs * 1280 * 720, abs=0.05e9)
    assert printed_size("MRNet Table 3", "mrnet") == (1_060_000, 776.5e9)
    # MRNet Table 2: 64 x 64 weights a recursion for 1x1 fusion, 64 x 4 x 9 for 3x3.
    for name, weights in (("mrnet-conv-fusion", 64 * 64), ("mrnet-shuffle3x3", 2304)):
        first = printed_size("MRNet Table 2", f"{name}-t2")[0]
        for model, extra in ((name, 2), (f"{name}-t6", 4), (f"{name}-t10", 8)):
            growth = printed_size("MRNet Table 2", model)[0] - first
            assert growth == pytest.approx(extra * weights, abs=1000)
