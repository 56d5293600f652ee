"""`srcli benchmark`: what it prints and writes, and how it fails."""

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from srcli import __version__

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def data(tmp_path, picture):
    """A data folder with a Set5 of two pictures."""
    (tmp_path / "data" / "Set5").mkdir(parents=True)
    for name, size in {"baby": (41, 50), "bird": (36, 48)}.items():
        Image.fromarray(picture(*size)).save(tmp_path / "data" / "Set5" / f"{name}.png")
    return tmp_path / "data"


def bicubic(run, data, *arguments):
    return run("benchmark", "-m", "bicubic", "--data-dir", data, *arguments)


def test_table_on_stdout_and_the_rest_on_stderr(run, data):
    result = bicubic(run, data, "-x", "2,3")
    assert result.exit_code == 0
    for text in ("set5 x2", "set5 x3", "bicubic (y)", "33.66", "0.9299", "30.39"):
        assert text in result.stdout
    assert "published set 5" not in result.stdout
    assert "published set 5" in " ".join(result.stderr.split())


def test_json_is_the_whole_of_stdout(run, data):
    result = bicubic(run, data, "-x", "2", "-x", "4", "--json", "--per-image")
    document = json.loads(result.stdout)
    assert document["srcli"] == __version__
    assert [row["scale"] for row in document["rows"]] == [2, 4]
    row = document["rows"][0]
    assert {"dataset", "scale", "degradation", "protocol", "model", "images", "psnr",
            "ssim", "paper", "seconds"} <= set(row)  # fmt: skip
    assert (row["dataset"], row["model"], row["images"]) == ("set5", "bicubic", 2)
    assert row["paper"]["psnr"] == 33.66
    assert row["difference"]["psnr"] == pytest.approx(row["psnr"] - 33.66)
    assert [picture["image"] for picture in row["per_image"]] == ["baby", "bird"]


def test_reports_are_written_and_kept(run, data, tmp_path):
    names = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    options = [text for kind, path in names.items() for text in (f"--{kind}", path)]
    assert bicubic(run, data, "-x", "2", *options).exit_code == 0
    with names["csv"].open(newline="") as file:
        assert [line["model"] for line in csv.DictReader(file)] == ["bicubic"]
    assert "srcli benchmark -d set5 -m bicubic -x 2" in names["markdown"].read_text()
    assert r"\toprule" in names["latex"].read_text()
    before = names["csv"].read_text()
    again = bicubic(run, data, "-x", "3", *options)
    assert again.exit_code == 4
    assert "--overwrite" in again.stderr
    assert names["csv"].read_text() == before
    assert bicubic(run, data, "-x", "3", "--overwrite", *options).exit_code == 0
    assert names["csv"].read_text() != before
    assert not list(tmp_path.glob("*.part"))


def test_command_in_the_report_repeats_the_benchmark(run, data, tmp_path):
    options = ["-x", "3", "--degradation", "dn", "--seed", "3", "--json"]
    first = json.loads(bicubic(run, data, *options).stdout)
    words = first["command"].split()[1:]
    again = json.loads(run(*words, "--data-dir", data, "--json").stdout)
    assert again["rows"][0]["psnr"] == first["rows"][0]["psnr"]
    assert tmp_path.name not in first["command"]


def test_a_weight_file_is_measured_on_what_it_is_for(run, data, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    save_rrrn(path, 3, "dn")

    def measure(*words):
        result = run("-q", "benchmark", *words, "--data-dir", data, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        document = json.loads(result.stdout)
        figures = [
            (row["model"], row["scale"], row["degradation"], row["psnr"])
            for row in document["rows"]
        ]
        return figures, document["command"].split()[2:]

    for options, degradation in ([], "dn"), (["--degradation", "BI"], "bi"):
        figures, command = measure("--weights", path, "-x", "3", *options)
        assert [row[2] for row in figures] == [degradation, degradation]
        assert measure(*command) == (figures, command)


def test_a_weight_file_on_what_it_is_not_for(run, data, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    save_rrrn(path, 3, "bd")

    def said(*options):
        result = run("benchmark", "--weights", path, "--data-dir", data, *options)
        assert result.exit_code == 0
        return " ".join(result.stderr.split())

    assert "mine.safetensors is for bd: it is measured on dn" in said(
        "--degradation", "dn"
    )
    for options in [], ["--degradation", "bd"], ["--degradation", "bd-bicubic"]:
        assert "is for" not in said(*options, "-x", "3")


def test_a_file_for_noise_is_measured_at_its_own_scale(run, data, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    save_rrrn(path, 2, "dn")
    result = run("benchmark", "--weights", path, "--data-dir", data, "--json")
    rows = json.loads(result.stdout)["rows"]
    assert [(row["scale"], row["degradation"]) for row in rows] == [(2, "dn")] * 2


def test_folder_and_several_sets(run, data, picture, tmp_path):
    mine = tmp_path / "my, pictures"
    mine.mkdir()
    Image.fromarray(picture(40, 40)).save(mine / "a.png")
    result = bicubic(run, data, "-d", "SET5", "-d", mine, "-x", "x2", "--json")
    rows = json.loads(result.stdout)["rows"]
    assert [row["dataset"] for row in rows] == ["set5", "my, pictures"]
    assert rows[1]["paper"] is None


def test_information_fidelity_is_a_column(run, picture, tmp_path):
    pytest.importorskip("pyrtools")
    Image.fromarray(picture(84, 84)).save(tmp_path / "a.png")
    result = run("benchmark", "-m", "bicubic", "-d", tmp_path, "-x", "2", "--ifc")
    assert "IFC" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-d", "set55"], 2, "did you mean set5"),
        (["-m", "mrnett"], 2, "did you mean mrnet"),
        (["-x", "5"], 2, "x5"),
        (["-x", "two"], 2, "--scale takes"),
        (["--degradation", "blur"], 2, "unknown degradation"),
        (["--degradation", "bd", "-x", "2"], 2, "x3 only"),
        (["--protocol", "cmyk"], 2, "unknown protocol"),
        (["--tile", "-3"], 2, "tile must be"),
        (["--tile-overlap", "some"], 2, "--tile-overlap must be"),
        (["--device", "gpu"], 2, "unknown device"),
        (["--precision", "fp8"], 2, "unknown precision"),
        (["--csv", "a.txt", "--latex", "a.txt"], 2, "two reports"),
        (["-d", "set14"], 3, "srcli download set14"),
        (["-d", "./nowhere"], 3, "does not exist"),
        (["--data-dir", "nowhere"], 3, "does not exist"),
        (["--csv", "nowhere/a.csv"], 4, "no folder"),
        (["--weights", "nowhere.safetensors"], 5, "no weight file"),
        (["--weights", f"{'a' * 300}.safetensors"], 5, "a.safetensors"),
    ],
)
def test_failures_are_one_line_with_their_exit_code(
    run, data, arguments, code, message
):
    where = [] if "--data-dir" in arguments else ["--data-dir", data]
    named = [] if {"-m", "--weights"} & set(arguments) else ["-m", "bicubic"]
    result = run("benchmark", *where, *named, *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_unreadable_picture(run, data):
    (data / "Set5" / "broken.png").write_bytes(b"no picture")
    result = bicubic(run, data)
    assert result.exit_code == 3
    assert "broken.png" in result.stderr.replace("\n", "")
