"""`srcli benchmark`: what it prints and writes, and how it fails."""

import csv
import json
import re
import shlex
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from srcli import __version__
from srcli.imaging.color import rgb_to_y

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def data(tmp_path, picture):
    """A data folder with a Set5 of two pictures."""
    (tmp_path / "data" / "Set5").mkdir(parents=True)
    for name, size in {"baby": (41, 50), "bird": (36, 48)}.items():
        Image.fromarray(picture(*size)).save(tmp_path / "data" / "Set5" / f"{name}.png")
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path):
    """A function that writes small random weights of a network."""
    from srcli.models import MODELS
    from srcli.pretrained.weight_file import save_weights

    def make(name, scales=(2,), **config):
        model = MODELS[name]
        path = tmp_path / f"{name}.safetensors"
        save_weights(model(model.config_class(scales=scales, **config)), path)
        return path

    return make


@pytest.fixture
def rrrn(weights):
    """The weights of a small RRRN of three sub-networks."""
    return weights(
        "rrrn", width=4, sub_networks=3, iterations=1, extract_layers=1, extract_ratio=1
    )


def bicubic(run, data, *arguments):
    return run("benchmark", "-m", "bicubic", "--data-dir", data, *arguments)


def test_table_on_stdout_and_the_rest_on_stderr(run, data):
    result = bicubic(run, data, "-x", "2,3")
    assert result.exit_code == 0
    for text in ("set5 x2", "set5 x3", "bicubic (y)", "33.66", "0.9299", "30.39"):
        assert text in result.stdout
    assert "published set 5" not in result.stdout
    assert "published set 5" in result.stderr


def test_json_is_the_whole_of_stdout(run, data, picture, tmp_path):
    mine = tmp_path / "my, pictures"
    mine.mkdir()
    Image.fromarray(picture(40, 40)).save(mine / "a.png")
    options = ("-d", "SET5", "-d", mine, "-x", "x2", "--json", "--per-image")
    document = json.loads(bicubic(run, data, *options).stdout)
    assert document["srcli"] == __version__
    row, own = document["rows"]
    assert {"dataset", "scale", "degradation", "protocol", "model", "images", "psnr",
            "ssim", "paper", "seconds"} <= set(row)  # fmt: skip
    assert (row["dataset"], row["model"], row["images"]) == ("set5", "bicubic", 2)
    assert row["paper"]["psnr"] == 33.66
    assert row["difference"]["psnr"] == pytest.approx(row["psnr"] - 33.66)
    assert [each["image"] for each in row["per_image"]] == ["baby", "bird"]
    assert (own["dataset"], own["paper"]) == ("my, pictures", None)


def test_reports_are_written_and_kept(run, data, tmp_path):
    kinds = ("csv", "markdown", "latex", "report")
    names = {kind: tmp_path / f"table.{kind}.html" for kind in kinds}
    options = [text for kind, path in names.items() for text in (f"--{kind}", path)]
    assert bicubic(run, data, "-x", "2", *options).exit_code == 0
    with names["csv"].open(newline="") as file:
        assert [line["model"] for line in csv.DictReader(file)] == ["bicubic"]
    assert "srcli benchmark -d set5 -m bicubic -x 2" in names["markdown"].read_text()
    assert r"\toprule" in names["latex"].read_text()
    before = [path.read_text() for path in names.values()]
    for option, path in zip(options[::2], options[1::2], strict=True):
        again = bicubic(run, data, "-x", "3", option, path)
        assert again.exit_code == 4
        assert "--overwrite" in again.stderr
    assert [path.read_text() for path in names.values()] == before
    assert bicubic(run, data, "-x", "3", "--overwrite", *options).exit_code == 0
    for path, text in zip(names.values(), before, strict=True):
        assert path.read_text() != text
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
        result = run("benchmark", *words, "--data-dir", data, "--json")
        assert result.exit_code == 0
        document = json.loads(result.stdout)
        rows = [(row["scale"], row["degradation"]) for row in document["rows"]]
        command = document["command"].split()[2:]
        return rows, command, result.stderr

    rows, command, said = measure("--weights", path)
    assert rows == [(3, "dn")] * 2
    assert "is for" not in said
    assert measure(*command)[:2] == (rows, command)
    rows, _, said = measure("--weights", path, "--degradation", "BD")
    assert rows == [(3, "bd")] * 2
    assert "mine.safetensors is for dn: it is measured on bd" in said


def test_information_fidelity_is_a_column(run, picture, tmp_path):
    pytest.importorskip("pyrtools")
    Image.fromarray(picture(84, 84)).save(tmp_path / "a.png")
    result = run("benchmark", "-m", "bicubic", "-d", tmp_path, "-x", "2", "--ifc")
    assert "IFC" in result.stdout


FAILURES = {
    "-d set55": (2, "did you mean set5"),
    "-m mrnett": (2, "did you mean mrnet"),
    "-x 5": (2, "x5"),
    "-x two": (2, "--scale takes"),
    "--degradation blur": (2, "unknown degradation"),
    "--degradation bd -x 2": (2, "x3 only"),
    "--protocol cmyk": (2, "unknown protocol"),
    "--tile -3": (2, "tile must be"),
    "--tile-overlap some": (2, "--tile-overlap must be"),
    "--device gpu": (2, "unknown device"),
    "--precision fp8": (2, "unknown precision"),
    "--csv a.txt --latex a.txt": (2, "two reports"),
    "--report page.txt": (2, "ends in .html"),
    "-m bicubic --stages": (2, "drcn or rrrn"),
    "-d set14": (3, "srcli download set14"),
    "-d ./nowhere": (3, "does not exist"),
    "--data-dir nowhere": (3, "does not exist"),
    "-d broken": (3, "broken.png"),
    "--csv nowhere/a.csv": (4, "no folder"),
    "--weights nowhere.safetensors": (5, "no weight file"),
    f"--weights {'a' * 300}.safetensors": (5, "a.safetensors"),
}


def test_failures_are_one_line_with_their_exit_code(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "broken.png").write_bytes(b"no picture")
    for words, (code, message) in FAILURES.items():
        arguments = words.split()
        where = [] if "--data-dir" in arguments else ["--data-dir", data]
        named = [] if {"-m", "--weights"} & set(arguments) else ["-m", "bicubic"]
        result = run("-q", "benchmark", *where, *named, *arguments)
        assert (result.exit_code, result.stdout) == (code, ""), words
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


# Stages


def test_second_table_shows_what_each_stage_gains(run, folder, rrrn):
    result = run("benchmark", "-d", folder, "--weights", rrrn, "--stages")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    heads = [n for n, line in enumerate(lines) if line[0] in ("model", "stage")]
    assert [lines[n][0] for n in heads] == ["model", "stage"]
    table = lines[heads[1] + 2 :]
    assert table[0] == ["pictures", "x2", "rrrn", "(rgb)"]
    assert [line[:2] for line in table[1:]] == [
        ["bicubic", "(y)"], *(["sub-network", str(n)] for n in (1, 2, 3)),
    ]  # fmt: skip
    figures = [line[2:] for line in table[1:]]
    for before, after in pairwise(figures):
        gain = float(after[0]) - float(before[0])
        assert float(after[1]) == pytest.approx(gain, abs=1e-9)
    row = next(line for line in lines if line[0] == "rrrn")
    assert float(row[2]) == pytest.approx(float(figures[-1][0]), abs=0.0051)


def test_weights_of_the_measured_file_stand_beside_the_recursions(run, folder, weights):
    import torch
    from safetensors.torch import load_file, save_file

    from srcli.pretrained.weight_file import read_metadata

    file = weights("drcn", width=4, recursions=3)
    learned = torch.tensor([0.1, 0.2, 0.5])
    save_file({**load_file(file), "weights": learned}, file, read_metadata(file))
    options = ("benchmark", "-d", folder, "--weights", file, "--stages")
    lines = [line.split() for line in run(*options).stdout.splitlines() if line.strip()]
    table = lines[next(n for n, line in enumerate(lines) if line[0] == "stage") :]
    assert table[0][-1] == "weight"
    assert [line[-1] for line in table[4:]] == ["+0.125", "+0.250", "+0.625", "+1.000"]
    _, row = json.loads(run(*options, "--json").stdout)["rows"]
    found = [stage["weight"] for stage in row["stages"]]
    assert found == pytest.approx([0.125, 0.25, 0.625, 1.0], abs=1e-6)


def test_documents_and_reports_have_the_stages(run, folder, rrrn, tmp_path):
    names = {kind: tmp_path / f"table.{kind}" for kind in ("csv", "markdown", "latex")}
    options = [text for kind, path in names.items() for text in (f"--{kind}", path)]
    call = ("benchmark", "-d", folder, "--weights", rrrn, "--stages", *options)
    document = json.loads(run(*call, "--json", "--per-image").stdout)
    without, row = document["rows"]
    assert without["stages"] == []
    assert [stage["stage"] for stage in row["stages"]] == [1, 2, 3]
    assert row["stages"][-1]["psnr"] == row["psnr"]
    for n in range(3):
        each = [picture["stages"][n]["psnr"] for picture in row["per_image"]]
        assert row["stages"][n]["psnr"] == pytest.approx(sum(each) / 2, abs=2e-6)
    words = shlex.split(document["command"])[1:]
    again = json.loads(run(*words, "--json").stdout)["rows"][1]
    assert again["stages"] == row["stages"]
    for path in names.values():
        assert "sub-network 3" in path.read_text()


# The page


@pytest.fixture
def report(run, tmp_path, read_page, rrrn):
    """A function that measures a small network on a folder, and reads the page."""

    def measure(folder, *arguments):
        path = tmp_path / "report.html"
        words = ("-d", folder, "--weights", rrrn, "--json", "--report", path)
        result = run("-q", "benchmark", *words, *arguments)
        assert result.exit_code == 0, result.stderr
        return read_page(path), json.loads(result.stdout)

    return measure


def test_page_has_the_table_the_command_and_crops(report, tmp_path, picture):
    (tmp_path / "scenes").mkdir()
    for name, size in {"wide & low": (150, 420), "tall": (391, 190)}.items():
        Image.fromarray(picture(*size)).save(tmp_path / "scenes" / f"{name}.png")
    page, document = report(tmp_path / "scenes")
    assert document["command"] in page.text
    for row in document["rows"]:
        assert f"{row['psnr']:.2f}" in page.texts
        assert f"{row['ssim']:.4f}" in page.texts
    for text in ("Benchmark of scenes", "wide & low", "tall", "scenes x2"):
        assert text in page.text
    # PSNR of bicubic and of ours, and the gain
    pattern = r"bicubic ([\d.]+) dB rrrn \(rgb\) ([\d.]+) dB .*?: ([+-][\d.]+) dB"
    figures = [tuple(map(float, found)) for found in re.findall(pattern, page.text)]
    gains = [gain for _, _, gain in figures]
    best = re.search("Gains most(.*)Gains least", page.text)[1].count("original")
    most, least = gains[:best], gains[best:]
    assert len(most) >= 2 <= len(least)
    assert most == sorted(most, reverse=True)
    assert least == sorted(least)
    assert least[-1] <= most[-1]
    # The figures are those of the pixels shown.
    for shown, (bicubic, ours, gain) in zip(
        zip(*[iter(page.images)] * 3, strict=True), figures, strict=True
    ):
        assert [i.alt for i in shown] == ["bicubic", "rrrn (rgb)", "original"]
        assert shown[2].size == (128, 128)
        planes = [rgb_to_y(image.pixels) for image in shown]
        for plane, figure in zip(planes, (bicubic, ours), strict=False):
            psnr = 10 * np.log10(255**2 / np.mean((plane - planes[2]) ** 2))
            assert figure == pytest.approx(psnr, abs=0.006)
        assert gain == pytest.approx(ours - bicubic, abs=1e-6)


def test_page_of_grey_and_tiny_pictures_and_stages(report, tmp_path, picture):
    (tmp_path / "grey").mkdir()
    for name, size in {"small": (16, 17), "low": (16, 200)}.items():
        grey = Image.fromarray(picture(*size, channels=1)[:, :, 0])
        grey.save(tmp_path / "grey" / f"{name}.png")
    page, document = report(tmp_path / "grey", "--stages")
    assert {image.pixels.shape for image in page.images} <= {(12, 12), (12, 128)}
    assert "report" not in document["command"]
    assert sum(tag == "table" for tag, _ in page.tags) == 2


def test_luma_networks_are_shown_as_they_are_measured(
    run, folder, tmp_path, read_page, weights
):
    path = tmp_path / "page.HTM"
    words = ("-d", folder, "--weights", weights("drrn", (2, 3), width=4, units=1))
    assert run("-q", "benchmark", *words, "--report", path).exit_code == 0
    page = read_page(path)
    assert page.images
    assert all(image.pixels.ndim == 2 for image in page.images)
    anchors = {link for link in page.links if link.startswith("#")}
    assert len(anchors) == 2
    assert anchors == {f"#{known['id']}" for _, known in page.tags if "id" in known}
