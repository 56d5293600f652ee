"""`srcli models`: which weights there are, and what they measure."""

import json

import pytest

from srcli.pretrained import catalog


@pytest.fixture(autouse=True)
def _shelf(tmp_path, monkeypatch, make_entry):
    """RRRN for x3: bundled, for noise bundled too, for blur in the cache."""
    bundled, cached = tmp_path / "bundled", tmp_path / "cache" / "weights"
    entries = []
    for folder, degradation, psnr in (
        (bundled, "bi", 33.5),
        (bundled, "dn", 28.125),
        (cached, "bd", 34.25),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        file = f"rrrn_{degradation}.safetensors"
        (folder / file).write_bytes(b"")
        entries.append(
            make_entry(
                file, model="rrrn", bytes=1_500_000, scales=(3,),
                degradation=degradation, psnr={"set5": {"3": psnr}},
            )
        )  # fmt: skip
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "manifest", lambda: tuple(entries))
    monkeypatch.setattr(catalog, "bundled_folder", lambda: bundled)
    monkeypatch.setattr("srcli.models.counting.count_macs", lambda *_: 10**9)  # slow


def test_the_table_has_all_weights_with_their_figures(run):
    result = run("models")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    first = next(n for n, line in enumerate(lines) if line.startswith("rrrn "))
    for line, end in zip(
        lines[first:],
        (  # the papers' figures: RRRN, Tables 1 and 2
            "bundled: x3 x3 33.50 34.60",
            "installed: x3 bd x3 bd 34.25 34.74",
            "bundled: x3 dn x3 dn 28.12 28.52",
        ),
        strict=False,
    ):
        assert line.endswith(end)
    assert sum("none yet - -" in line for line in lines) == 4
    assert "Not bundled yet: drcn, drrn, dsrn, mrnet;" in result.stdout


def test_json_keeps_the_usual_weights_apart_from_the_others(run):
    def weights(where, ours, paper):
        there = {"bundled": [], "installed": [], where: [3]}
        return {**there, "psnr": {"set5": {"3": {"ours": ours, "paper": paper}}}}

    document = json.loads(run("models", "--json").stdout)
    rrrn = next(each for each in document["models"] if each["name"] == "rrrn")
    usual = weights("bundled", 33.5, 34.6)
    assert {key: rrrn[key] for key in usual} == usual
    assert rrrn["degradations"] == ["bd", "bi", "dn"]
    assert rrrn["trained_for"] == {
        "bi": usual,
        "bd": weights("installed", 34.25, 34.74),
        "dn": weights("bundled", 28.125, 28.52),
    }


def test_the_list_of_downloads_has_them_too(run):
    result = run("download", "--list", "rrrn")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        "rrrn weights 4.5 MB installed CC0",
        "x3 1.5 MB installed Set5 33.50 dB (paper 34.60)",
        "x3 dn 1.5 MB installed Set5 28.12 dB (paper 28.52)",
    ):
        assert line in lines
    (item,) = json.loads(run("download", "--list", "rrrn", "--json").stdout)["items"]
    assert item["files"][1] == {
        "file": "rrrn_dn.safetensors",
        "bytes": 1_500_000,
        "scales": [3],
        "degradation": "dn",
        "installed": True,
        "psnr": {"set5": {"3": {"ours": 28.125, "paper": 28.52}}},
    }


def test_a_weight_file_says_what_it_holds(run, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    save_rrrn(path, 3, "dn")
    record = json.loads(run("models", path, "--json").stdout)
    assert (record["file"], record["network"]) == (str(path), "rrrn")
    assert (record["scales"], record["is_own"]) == ([3], True)
    assert run("models", path).stdout.splitlines()[0].strip() == str(path)
    assert run("models", path, "--all").exit_code == 2
    assert run("models", tmp_path / "none.safetensors").exit_code == 5
