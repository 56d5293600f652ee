"""`srcli models`: which weights there are, and what they measure."""

from __future__ import annotations

import json

import pytest

from srcli.pretrained import catalog


@pytest.fixture
def shelf(tmp_path, monkeypatch, make_entry):
    """RRRN for x3: bundled, for noise bundled too, for blur in the cache."""
    bundled, cached = tmp_path / "bundled", tmp_path / "cache" / "weights"
    entries = []
    for folder, degradation, psnr in (
        (bundled, "bi", 33.5),
        (bundled, "dn", 28.125),
        (cached, "bd", 34.25),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rrrn_{degradation}.safetensors"
        path.write_bytes(b"")
        entries.append(
            make_entry(
                path.name,
                model="rrrn",
                bytes=1_500_000,
                scales=(3,),
                degradation=degradation,
                psnr={"set5": {"3": psnr}},
            )
        )
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "manifest", lambda: tuple(entries))
    monkeypatch.setattr(catalog, "bundled_folder", lambda: bundled)


def row_of(text, name):
    """The cells of a network's row of a table, line by line."""
    rows, current = {}, ""
    for line in text.splitlines():
        if not line.startswith("│"):
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        current = cells[0] or current
        rows.setdefault(current, []).append(cells)
    return [[line[i] for line in rows[name]] for i in range(len(rows[name][0]))]


@pytest.mark.usefixtures("shelf")
def test_the_table_has_all_weights_with_their_figures(run):
    result = run("models")
    assert result.exit_code == 0
    _, _, _, weights, ours, papers = row_of(result.stdout, "rrrn")
    assert weights == ["bundled: x3", "installed: x3 bd", "bundled: x3 dn"]
    assert ours == ["x3 33.50", "x3 bd 34.25", "x3 dn 28.12"]
    assert papers == ["34.60", "34.74", "28.52"]  # RRRN, Tables 1 and 2
    assert row_of(result.stdout, "drcn")[3][0] == "none yet"
    assert "Not bundled yet: drcn, drrn, dsrn, mrnet;" in result.stdout


@pytest.mark.usefixtures("shelf")
def test_json_keeps_the_usual_weights_apart_from_the_others(run):
    document = json.loads(run("models", "--json").stdout)
    rrrn = next(each for each in document["models"] if each["name"] == "rrrn")
    usual = {
        "bundled": [3],
        "installed": [],
        "psnr": {"set5": {"3": {"ours": 33.5, "paper": 34.6}}},
    }
    assert {key: rrrn[key] for key in usual} == usual
    assert rrrn["degradations"] == ["bd", "bi", "dn"]
    assert rrrn["trained_for"] == {
        "bi": usual,
        "bd": {
            "bundled": [],
            "installed": [3],
            "psnr": {"set5": {"3": {"ours": 34.25, "paper": 34.74}}},
        },
        "dn": {
            "bundled": [3],
            "installed": [],
            "psnr": {"set5": {"3": {"ours": 28.125, "paper": 28.52}}},
        },
    }


@pytest.mark.usefixtures("shelf")
def test_the_list_of_downloads_has_them_too(run):
    result = run("download", "--list", "rrrn")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "rrrn weights 4.5 MB installed CC0" in lines
    assert "x3 1.5 MB installed Set5 33.50 dB (paper 34.60)" in lines
    assert "x3 dn 1.5 MB installed Set5 28.12 dB (paper 28.52)" in lines
    assert "x3 bd 1.5 MB installed Set5 34.25 dB (paper 34.74)" in lines
    (item,) = json.loads(run("download", "--list", "rrrn", "--json").stdout)["items"]
    assert [file["degradation"] for file in item["files"]] == ["bi", "dn", "bd"]
    assert item["files"][1] == {
        "file": "rrrn_dn.safetensors",
        "bytes": 1_500_000,
        "scales": [3],
        "degradation": "dn",
        "installed": True,
        "psnr": {"set5": {"3": {"ours": 28.125, "paper": 28.52}}},
    }
