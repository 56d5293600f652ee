"""`srcli benchmark --report`: a page with the table, and the best and worst crops."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from srcli.imaging.color import rgb_to_y

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def report(run, tmp_path, read_page):
    """A function that measures a small network on a folder, and reads the page."""
    from srcli.models.rrrn import RRRN, RRRNConfig
    from srcli.pretrained.weight_file import save_weights

    def measure(folder, *arguments, scale=2):
        config = RRRNConfig(
            scales=(scale,), width=4, sub_networks=2, iterations=1,
            extract_layers=1, extract_ratio=1,
        )  # fmt: skip
        save_weights(RRRN(config), tmp_path / "net.safetensors")
        path = tmp_path / "report.html"
        path.unlink(missing_ok=True)
        words = ("-d", folder, "--weights", tmp_path / "net.safetensors", "--json")
        result = run("-q", "benchmark", *words, "--report", path, *arguments)
        assert result.exit_code == 0, result.stderr
        return read_page(path), json.loads(result.stdout)

    return measure


@pytest.fixture
def scenes(tmp_path, picture):
    """A folder with two pictures larger than a crop."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name, size in {"wide & low": (150, 420), "tall": (391, 190)}.items():
        Image.fromarray(picture(*size)).save(folder / f"{name}.png")
    return folder


def trios(page):
    """Bicubic, ours and the original of every crop."""
    assert len(page.images) % 3 == 0
    for number in range(0, len(page.images), 3):
        yield page.images[number : number + 3]


def measured(text):
    """The figures of every crop: PSNR of bicubic, of ours, and the gain."""
    pattern = r"bicubic ([\d.]+) dB rrrn \(rgb\) ([\d.]+) dB .*?: ([+-][\d.]+) dB"
    return [tuple(map(float, found)) for found in re.findall(pattern, text)]


def test_page_has_the_table_the_command_and_crops(report, scenes):
    page, document = report(scenes)
    assert document["command"] in page.text
    assert "Benchmark of scenes" in page.text
    for row in document["rows"]:
        assert f"{row['psnr']:.2f}" in page.texts
        assert f"{row['ssim']:.4f}" in page.texts
    for text in ("Gains most", "Gains least", "wide & low", "tall", "scenes x2"):
        assert text in page.text
    gains = [gain for _, _, gain in measured(page.text)]
    assert len(gains) == len(list(trios(page))) >= 4
    best = re.search("Gains most(.*)Gains least", page.text)[1]
    most = gains[: best.count("original")]
    least = gains[len(most) :]
    assert len(most) >= 2 <= len(least)
    assert most == sorted(most, reverse=True)
    assert least == sorted(least)
    assert least[-1] <= most[-1]


def test_figures_are_those_of_the_pixels_shown(report, scenes):
    page, _ = report(scenes)
    for (bicubic, ours, original), figures in zip(
        trios(page), measured(page.text), strict=True
    ):
        assert [i.alt for i in (bicubic, ours, original)] == [
            "bicubic", "rrrn (rgb)", "original",
        ]  # fmt: skip
        assert original.size == (128, 128)
        for shown, figure in ((bicubic, figures[0]), (ours, figures[1])):
            error = rgb_to_y(shown.pixels) - rgb_to_y(original.pixels)
            psnr = 10 * np.log10(255**2 / np.mean(error**2))
            assert figure == pytest.approx(psnr, abs=0.006)
        assert figures[2] == pytest.approx(figures[1] - figures[0], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "scale"),
    [
        (["--stages"], 2),
        (["--degradation", "dn", "--seed", "3"], 3),
        (["--gray-as-rgb", "--per-image", "--csv", "a.csv"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_page_beside_every_option(report, folder, arguments, scale):
    page, document = report(folder, *arguments, scale=scale)
    assert len(list(trios(page))) >= 1
    assert "report" not in document["command"]
    if "--stages" in arguments:
        assert sum(tag == "table" for tag, _ in page.tags) == 2


def test_grey_pictures_and_tiny_ones(report, tmp_path, picture):
    folder = tmp_path / "grey"
    folder.mkdir()
    for name, size in {
        "small": (16, 17),
        "low": (16, 200),
        "large": (160, 170),
    }.items():
        Image.fromarray(picture(*size, channels=1)[:, :, 0]).save(
            folder / f"{name}.png"
        )
    page, _ = report(folder)
    shapes = {image.pixels.shape for image in page.images}
    assert shapes <= {(128, 128), (12, 12), (12, 128)}


def test_luma_networks_are_shown_as_they_are_measured(run, folder, tmp_path, read_page):
    from srcli.models.drrn import DRRN, DRRNConfig
    from srcli.pretrained.weight_file import save_weights

    weights, path = tmp_path / "net.safetensors", tmp_path / "page.HTM"
    save_weights(DRRN(DRRNConfig(scales=(2, 3), width=4, units=1)), weights)
    words = ("-d", folder, "--weights", weights, "-x", "2,3", "--report", path)
    assert run("-q", "benchmark", *words).exit_code == 0
    page = read_page(path)
    assert all(image.pixels.ndim == 2 for image in page.images)
    anchors = {link for link in page.links if link.startswith("#")}
    named = {f"#{known['id']}" for _, known in page.tags if "id" in known}
    assert len(anchors) == 2
    assert anchors == named


def test_bicubic_alone_has_a_page_without_crops(run, folder, tmp_path, read_page):
    path = tmp_path / "page.html"
    words = ("-d", folder, "-m", "bicubic", "-x", "2", "--report", path)
    assert run("-q", "benchmark", *words).exit_code == 0
    page = read_page(path)
    assert page.images == []
    assert "bicubic (y)" in page.texts


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--report", "page.txt"], 2, "ends in .html"),
        (["--report", "page"], 2, "ends in .html"),
        (["--report", "a.html", "--csv", "a.html"], 2, "two reports"),
        (["--report", "nowhere/a.html"], 4, "no folder"),
        (["--report", "there.html"], 4, "--overwrite"),
    ],
)
def test_what_cannot_be_written_is_refused_first(
    run, folder, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("mine")
    result = run("benchmark", "-d", folder, "-m", "bicubic", "-x", "2", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())
    assert (tmp_path / "there.html").read_text() == "mine"


def test_an_existing_page_is_replaced_if_asked(run, folder, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    words = ("-d", folder, "-m", "bicubic", "-x", "2", "--report", path)
    assert run("-q", "benchmark", *words, "--overwrite").exit_code == 0
    assert "old" not in path.read_text("utf-8")[:15]
    assert not list(tmp_path.glob("*.part"))
