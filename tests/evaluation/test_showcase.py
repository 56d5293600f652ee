"""The web page of a benchmark: its tables, and the crops of its networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from srcli.errors import UsageError
from srcli.evaluation.crops import Crop
from srcli.evaluation.measurement import PictureResult, Row
from srcli.evaluation.showcase import check_page, write_benchmark
from srcli.imaging.box import Box


def row(model, protocol, **fields):
    picture = PictureResult(image="a", psnr=30.128, ssim=0.9, ifc=None, seconds=1.0)
    return Row(
        dataset="my <set>", scale=2, degradation="bi", protocol=protocol, model=model,
        pictures=(picture,), **fields,
    )  # fmt: skip


def crop(level, before, after, channels=()):
    pixels = [np.full((8, 9, *channels), level + n, np.uint8) for n in range(3)]
    names = ("bicubic", "ours", "original")
    return Crop(
        image="a & b", window=Box(3, 5, 11, 14), bicubic_psnr=before, psnr=after,
        **dict(zip(names, pixels, strict=True)),
    )  # fmt: skip


def test_page_has_the_tables_and_each_network_s_crops(tmp_path, read_page):
    rows = [
        row("bicubic", "y"),
        row("drrn", "y", device="cpu", precision="fp32",
            most=(crop(10, 28.004, 29.006),), least=(crop(20, 30.0, 29.0),)),
        row("mrnet", "rgb", most=(crop(30, math.inf, math.inf, (3,)),)),
    ]  # fmt: skip
    path = tmp_path / "page.html"
    write_benchmark(rows, "srcli benchmark -d '<set>'", path)
    page = read_page(path)
    assert "Benchmark of my <set>" in page.text
    assert "srcli benchmark -d '<set>'" in page.texts
    assert {"cpu, fp32", "30.13", "0.9000", "drrn (y)"} <= set(page.texts)
    assert "bicubic 28.00 dB drrn (y) 29.01 dB original a & b" in page.text
    gains = [text for text in page.texts if text[0] in "+-"]
    assert gains == ["+1.01 dB", "-1.00 dB", "+0.00 dB"]
    assert page.text.count("at x 5, y 3:") == 3
    assert [text for text in page.texts if text.startswith("Gains")] == [
        "Gains most", "Gains least", "Gains most",
    ]  # fmt: skip
    levels = [int(image.pixels.flat[0]) for image in page.images]
    assert levels == [10, 11, 12, 20, 21, 22, 30, 31, 32]
    anchors = {link for link in page.links if link.startswith("#")}
    assert anchors == {f"#{known['id']}" for _, known in page.tags if "id" in known}
    assert len(anchors) == 2


def test_page_without_networks_has_no_crops(tmp_path, read_page):
    write_benchmark([row("bicubic", "y")], "srcli benchmark", tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert page.images == []
    assert "gains most" not in page.text


def test_only_names_of_pages_are_taken(tmp_path):
    for name in ("page.html", "PAGE.HTM"):
        check_page(tmp_path / name)
    check_page(None)
    for name in ("page", "page.txt"):
        with pytest.raises(UsageError, match=name):
            check_page(tmp_path / name)
