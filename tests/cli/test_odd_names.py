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
        Image.fromarray(picture(60 + number, 70)).save(file)
    return place


def test_benchmark_writes_every_name(run, folder, tmp_path):
    files = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    saved = tmp_path / "saved"
    common = ("benchmark", "-d", folder, "-m", "bicubic", "-x", "2", "--per-image")
    result = run(*common, *options, "--save-images", saved, "--json")
    assert result.exit_code == 0, result.stderr
    expected = sorted(NAMES.values())
    document = json.loads(result.stdout)
    row = document["rows"][0]
    assert sorted(each["image"] for each in row["per_image"]) == expected
    assert row["dataset"] == SHOWN_FOLDER
    command = document["command"]
    assert command.startswith("srcli benchmark -d $'")
    assert SHOWN_FOLDER in command
    with files["csv"].open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert sorted(line["image"] for line in lines if line["image"]) == expected
    assert {line["dataset"] for line in lines} == {SHOWN_FOLDER}
    assert command in files["markdown"].read_text("utf-8")
    assert r"set\textbackslash{}xe9" in files["latex"].read_text("utf-8")
    there = {os.fsencode(path.name) for path in saved.rglob("*.png")}
    assert there == {name + b".png" for name in NAMES}
    assert SHOWN_FOLDER in result.stderr
    table = run(*common).stdout.splitlines()
    for name in expected:
        assert sum(line.startswith(f"    {name} ") for line in table) == 1


def test_a_name_too_long_to_save_is_refused(run, folder, tmp_path):
    for place in ("one", "two"):  # so that labels have the folder in them
        (folder / place).mkdir()
        source = folder / os.fsdecode(b"a\nb.png")
        (folder / place / ("n" * 246 + ".png")).write_bytes(source.read_bytes())
    saved = tmp_path / "saved"
    (saved / folder.name / "x2" / "bicubic").mkdir(parents=True)
    options = ("-m", "bicubic", "-x", "2", "--save-images", saved)
    result = run("benchmark", "-d", folder, *options, "--overwrite")
    assert result.exit_code == 4
    assert "cannot write" in result.stderr
    assert "File name too long" in result.stderr
    assert not list(saved.rglob("*.png"))


def test_report_page_names_them(run, folder, tmp_path):
    page = tmp_path / os.fsdecode(b"report\xff.html")
    result = run("benchmark", "-d", folder, "-x", "2", "--report", page, "--json")
    assert result.exit_code == 0, result.stderr
    text = page.read_text("utf-8")
    assert r"a\x0ab" in text
    assert f"<title>Benchmark of {SHOWN_FOLDER}" in text


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
    out = tmp_path / os.fsdecode(b"run\xe8")
    result = run(
        "train", "-m", "mrnet", "-x", "2", "--data", folder, "--val", folder,
        "-o", out, "--steps", "1", "--set", "config.width=4", "--set", "crop=8",
        "--set", "config.blocks=1", "--set", "batch=2", "--device", "cpu",
        "--precision", "fp32",
    )  # fmt: skip
    assert result.exit_code == 3  # a set to validate on has to be whole
    assert rf"{SHOWN_FOLDER}/broken\xff\x0a.png" in result.stderr
    val = tmp_path / "val"
    val.mkdir()
    Image.open(folder / os.fsdecode(b"a\nb.png")).save(val / os.fsdecode(b"\xff.png"))
    result = run(
        "train", "-m", "mrnet", "-x", "2", "--data", folder, "--val", val,
        "-o", out, "--steps", "1", "--set", "config.width=4", "--set", "crop=8",
        "--set", "config.blocks=1", "--set", "batch=2", "--device", "cpu",
        "--precision", "fp32",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path}/run\\xe8: 1 steps" in result.stdout.replace("\n", "")
    assert rf"{SHOWN_FOLDER}/broken\xff\x0a.png" in result.stderr
    report = (out / "report.md").read_text("utf-8")
    assert rf"{SHOWN_FOLDER}/broken\xff\x0a.png`" in report
    assert f"`{folder.parent}/{SHOWN_FOLDER}`" in report
    again = ("train", "-m", "mrnet", "-o", out)
    result = run(*again, "--resume", "--steps", "2", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["out"] == rf"{tmp_path}/run\xe8"
    result = run(*again, "--export", "--val", val, "--json")
    assert result.exit_code == 0, result.stderr
    files = json.loads(result.stdout)["files"]
    assert all(file.startswith(rf"{tmp_path}/run\xe8/export/") for file in files)
    weights = out / "best.safetensors"
    shown = json.loads(run("models", weights, "--json").stdout)["file"]
    assert shown == rf"{tmp_path}/run\xe8/best.safetensors"


def test_download_and_unknown_names(run, folder):
    listed = run("download", "--list", "--data-dir", folder, "--json")
    assert json.loads(listed.stdout)["data_dir"] == f"{folder.parent}/{SHOWN_FOLDER}"
    listed = run("download", "--list", "--data-dir", folder)
    assert listed.stdout.endswith(f"data sets go to {folder.parent}/{SHOWN_FOLDER}\n")
    refused = run("benchmark", "-d", os.fsdecode(b"nowhere\xff"))
    assert r"unknown data set 'nowhere\xff'" in refused.stderr
    refused = run("models", os.fsdecode(b"nowhere\xff.safetensors"))
    assert r"no weight file at nowhere\xff.safetensors" in refused.stderr
