"""Names that are no UTF-8, or no line: commands take them and tell them alike."""

import csv
import json
import os

import pytest
from PIL import Image

pytestmark = pytest.mark.usefixtures("elsewhere")

# The name of a picture, and what is shown of it.
NAMES = {
    b"\x8e\xca": r"\x8e\xca",
    b"a\nb": r"a\x0ab",
    rb"back\x8e": r"back\\x8e",
    b'comma,"|': 'comma,"|',
    b"x\x1b[31m": r"x\x1b[31m",
}
FOLDER, SHOWN_FOLDER = b"set\xe9\\", r"set\xe9\\"


@pytest.fixture
def folder(tmp_path, picture):
    """Pictures with such names, in a folder with such a name, which is the path."""
    place = tmp_path / os.fsdecode(FOLDER)
    try:
        place.mkdir()
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    for number, name in enumerate(NAMES):
        file = place / os.fsdecode(name + b".png")
        Image.fromarray(picture(40 + number, 44)).save(file)
    return place


def test_benchmark_writes_every_name(run, folder, tmp_path):
    page = tmp_path / os.fsdecode(b"report\xff.html")
    files = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    files["report"] = page
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    saved = tmp_path / "saved"
    common = ("benchmark", "-d", folder, "-m", "bicubic", "-x", "2", "--per-image")
    result = run(*common, *options, "--save-images", saved, "--json")
    assert result.exit_code == 0, result.stderr
    expected = sorted(NAMES.values())
    document = json.loads(result.stdout)
    row, command = document["rows"][0], document["command"]
    assert sorted(each["image"] for each in row["per_image"]) == expected
    assert row["dataset"] == SHOWN_FOLDER
    assert command.startswith("srcli benchmark -d $'")
    assert SHOWN_FOLDER in command
    with files["csv"].open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert sorted(line["image"] for line in lines if line["image"]) == expected
    assert {line["dataset"] for line in lines} == {SHOWN_FOLDER}
    assert command in files["markdown"].read_text("utf-8")
    assert r"set\textbackslash{}xe9" in files["latex"].read_text("utf-8")
    assert f"<title>Benchmark of {SHOWN_FOLDER}" in page.read_text("utf-8")
    there = {os.fsencode(path.name) for path in saved.rglob("*.png")}
    assert there == {name + b".png" for name in NAMES}
    assert SHOWN_FOLDER in result.stderr
    table = run(*common).stdout.splitlines()
    for name in expected:
        assert sum(line.startswith(f"    {name} ") for line in table) == 1


def test_upscale_shows_results_and_failures(run, folder, tmp_path):
    (folder / os.fsdecode(b"broken\xff.png")).write_bytes(b"no picture")
    out = tmp_path / "out"
    common = ("upscale", folder, "-m", "bicubic", "-x", "2", "-o", out)
    result = run(*common)
    assert result.exit_code == 7
    expected = sorted(f"{out}/{name}_bicubic_x2.png" for name in NAMES.values())
    assert sorted(result.stdout.splitlines()) == expected
    assert rf"{SHOWN_FOLDER}/broken\xff.png is not a picture" in result.stderr
    result = run(*common, "--overwrite", "--json")
    records = json.loads(result.stdout)["results"]
    assert sorted(each["output"] for each in records if each["output"]) == expected
    (error,) = (each["error"] for each in records if each["error"])
    assert rf"{SHOWN_FOLDER}/broken\xff.png is not a picture" in error


def test_training_from_the_first_step_to_the_export(run, folder, tmp_path):
    (folder / os.fsdecode(b"broken\xff\n.png")).write_bytes(b"no picture")
    val = tmp_path / "val"
    val.mkdir()
    Image.open(folder / os.fsdecode(b"a\nb.png")).save(val / os.fsdecode(b"\xff.png"))
    again = ("train", "-m", "rrrn", "-o", tmp_path / os.fsdecode(b"run\xe8"))
    shown_out = rf"{tmp_path}/run\xe8"
    small = "width=4 sub_networks=1 iterations=1 extract_layers=1 extract_ratio=1"
    sets = [word for each in small.split() for word in ("--set", f"config.{each}")]
    result = run(
        *again, "-x", "2", "--data", folder, "--val", val, "--steps", "1", *sets,
        "--set", "crop=8", "--set", "batch=2", "--device", "cpu", "--precision", "fp32",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{shown_out}: 1 steps\n")
    assert rf"{SHOWN_FOLDER}/broken\xff\x0a.png" in result.stderr
    report = (again[-1] / "report.md").read_text("utf-8")
    assert rf"{SHOWN_FOLDER}/broken\xff\x0a.png`" in report
    assert f"`{folder.parent}/{SHOWN_FOLDER}`" in report
    result = run(*again, "--resume", "--steps", "2", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["out"] == shown_out
    result = run(*again, "--export", "--val", val, "--json")
    assert result.exit_code == 0, result.stderr
    files = json.loads(result.stdout)["files"]
    assert all(file.startswith(f"{shown_out}/export/") for file in files)
    shown = json.loads(run("models", again[-1] / "best.safetensors", "--json").stdout)
    assert shown["file"] == f"{shown_out}/best.safetensors"


def test_unknown_names(run, folder):
    listed = run("download", "--list", "--data-dir", folder, "set5")
    assert listed.stdout.endswith(f"data sets go to {folder.parent}/{SHOWN_FOLDER}\n")
    refused = run("benchmark", "-d", os.fsdecode(b"nowhere\xff"))
    assert r"unknown data set 'nowhere\xff'" in refused.stderr
    refused = run("models", os.fsdecode(b"nowhere\xff.safetensors"))
    assert r"no weight file at nowhere\xff.safetensors" in refused.stderr
