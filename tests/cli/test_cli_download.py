"""`srcli download`: names, results, lists and exit codes.

What is downloaded, and how, is tested where it is done (tests/pretrained).
"""

import json

import pytest

from srcli.errors import InputError, OutputError, WeightsError
from srcli.pretrained import catalog, install
from srcli.pretrained.datasets import PublicSet


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def offer(tmp_path, monkeypatch, make_entry):
    """Makes the catalogue: what becomes of each data set, and of the weights.

    An outcome is a status, an error, or None where the owners must be asked.
    """
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "bundled_folder", lambda: tmp_path / "bundled")
    asked = []

    def make(mrnet="bundled", **sets):
        outcomes = {"mrnet": mrnet, **sets}

        def settle(item, folder, *, keep_archive, progress):
            asked.append((item.name, folder, keep_archive))
            if isinstance(outcomes[item.name], Exception):
                raise outcomes[item.name]
            for name in getattr(item, "folders", ()):
                (folder / name).mkdir(parents=True)
                (folder / name / "a.png").touch()
            return outcomes[item.name]

        listed = tuple(
            PublicSet(
                name=name,
                url="http://there" if outcome else "",
                ask="" if outcome else "http://owners",
                folders=(name.title(),),
                terms="anything",
            )
            for name, outcome in sets.items()
        )
        entry = make_entry("mrnet.safetensors", b"weights" * 50)
        monkeypatch.setattr(install, "public_sets", lambda: listed)
        monkeypatch.setattr(install, "install", settle)
        monkeypatch.setattr(catalog, "manifest", lambda: (entry,))
        return asked

    return make


def test_data_sets_and_weights_arrive(run, offer, data_dir, tmp_path):
    asked = offer(birds="downloaded")
    (tmp_path / "bundled").mkdir()
    weights = tmp_path / "bundled" / "mrnet.safetensors"
    weights.touch()
    call = ("download", "Birds", "mrnet", "--data-dir", data_dir)
    result = run(*call, "--keep-archive")
    assert (result.exit_code, result.stderr) == (0, "")
    place = data_dir / "Birds"
    lines = ["birds: downloaded", f"  {place}", "mrnet: bundled", f"  {weights}"]
    assert result.stdout.splitlines() == lines
    assert asked == [("birds", data_dir, True), ("mrnet", data_dir, True)]
    result = run("download", "mrnet", "--json", "--data-dir", data_dir)
    assert json.loads(result.stdout)["results"] == [
        {
            "name": "mrnet",
            "kind": "weights",
            "status": "bundled",
            "paths": [str(weights)],
            "error": None,
        }
    ]
    assert asked[-1] == ("mrnet", data_dir, False)


@pytest.mark.parametrize(("name", "code"), [("birds", 3), ("cats", 4), ("mrnet", 5)])
def test_what_cannot_be_had_has_its_exit_code(run, offer, data_dir, name, code):
    offer(
        WeightsError("mrnet is damaged"),
        birds=InputError("birds cannot be reached"),
        cats=OutputError("cats cannot be written"),
    )
    result = run("download", name, "--json", "--data-dir", data_dir)
    assert result.exit_code == code
    (row,) = json.loads(result.stdout)["results"]
    assert (row["status"], row["paths"]) == ("failed", [])
    assert result.stderr == f"error: {row['error']}\n"


def test_failures_among_many(run, offer, data_dir):
    gone = InputError("http://there cannot be reached")
    offer(birds="downloaded", cats=gone, manga109=None)
    result = run("download", "--all", "--data-dir", data_dir)
    assert result.exit_code == 7
    assert result.stdout.startswith("mrnet: bundled\nbirds: downloaded\n")
    assert result.stderr.splitlines() == [
        "manga109 is left out: ask for it at http://owners",
        "error: http://there cannot be reached",
        "error: 1 of 3 downloads failed",
    ]
    offer(birds=gone, cats=gone)
    result = run("download", "birds", "cats", "--data-dir", data_dir)
    assert result.exit_code == 3
    assert "2 of 2 downloads failed" in result.stderr


def test_usage(run, offer, data_dir):
    asked = offer(birds="downloaded")
    result = run("download", "birds", "bird", "--data-dir", data_dir)
    assert result.exit_code == 2
    assert "did you mean birds?" in result.stderr
    for arguments in ((), ("birds", "--all")):
        result = run("download", *arguments)
        assert result.exit_code == 2
        assert "srcli download --list" in result.stderr
    assert not asked


def test_the_list_for_people(run, offer, data_dir):
    offer(birds="downloaded", manga109=None)
    result = run("download", "--list", "--data-dir", data_dir)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "birds data ? anything" in lines
    assert "manga109 data ? on request anything" in lines
    assert "mrnet weights 350 B CC0" in lines
    assert lines[-1] == f"data sets go to {data_dir}"
    only = run("download", "--list", "birds", "--data-dir", data_dir)
    assert "manga109" not in only.stdout


def test_the_real_list(run, data_dir, monkeypatch):
    (data_dir / "Set5").mkdir(parents=True)
    (data_dir / "Set5" / "a.png").write_bytes(b"x")
    monkeypatch.setenv("SRCLI_DATA_DIR", str(data_dir))
    document = json.loads(run("download", "--list", "--json").stdout)
    assert document["data_dir"] == str(data_dir)
    rows = {row["name"]: row for row in document["items"]}
    assert rows["set5"]["installed"]
    assert rows["set5"]["paths"] == [str(data_dir / "Set5")]
    assert rows["set5"]["part_of"] == "benchmark"
    assert not rows["benchmark"]["installed"]
    assert rows["div2k-train"]["bytes"] == 3_530_603_713
    assert rows["manga109"]["ask"] == "http://www.manga109.org"
    assert rows["manga109"]["urls"] == []
