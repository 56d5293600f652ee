"""The picture of a run: a readable PNG of what the log holds, whatever it holds."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from srcli.errors import OutputError
from srcli.training.report import draw_curves


def write_log(folder, *lines):
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text, "utf-8")
    return folder


def losses(count=60, first=None):
    """A loss that halves over the run, with a wave on it."""
    found = [0.06 * 0.5 ** (n / count) * (1 + 0.1 * math.sin(n)) for n in range(count)]
    if first is not None:
        found[0] = first
    return [
        {"step": 100 * n, "loss": loss, "rate": 1e-3 / n}
        for n, loss in enumerate(found, start=1)
    ]


def validations(*values):
    return [
        {"step": 1000 * n, "psnr": {"2": value, "4": value - 6}}
        for n, value in enumerate(values, start=1)
    ]


def pixels(folder):
    path = draw_curves(folder)
    assert path == folder / "curves.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def rows_of(picture, color):
    """The rows in which a colour stands."""
    wanted = [int(color[n : n + 2], 16) for n in (1, 3, 5)]
    return np.flatnonzero((np.abs(picture - wanted).max(axis=2) < 8).any(axis=1))


BLUE, ORANGE, VERMILLION, PURPLE = "#0072B2", "#E69F00", "#D55E00", "#CC79A7"


def test_picture_has_a_panel_for_everything_in_the_log(tmp_path):
    picture = pixels(write_log(tmp_path, *losses(), *validations(30, 32, 33)))
    assert picture.shape == (1020, 1320, 3)
    rate, best = rows_of(picture, ORANGE), rows_of(picture, VERMILLION)
    assert rows_of(picture, BLUE).min() < rate.min() < rate.max() < best.min()
    assert len(rows_of(picture, PURPLE))  # x4
    only_loss = pixels(write_log(tmp_path, *losses()))
    assert only_loss.shape[0] < picture.shape[0]
    assert not len(rows_of(only_loss, VERMILLION))
    only_psnr = pixels(write_log(tmp_path, *validations(30, 32, 33)))
    assert not len(rows_of(only_psnr, ORANGE))


def test_other_figures_make_another_picture_and_the_same_the_same(tmp_path):
    first = pixels(write_log(tmp_path, *losses(), *validations(30, 32, 33)))
    again = pixels(write_log(tmp_path, *losses(), *validations(30, 32, 33)))
    other = pixels(write_log(tmp_path, *losses(), *validations(30, 33, 32)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_high_start_does_not_squash_the_curve(tmp_path):
    def span(first):
        """The rows of the smoothed line at the right, where the start is far."""
        picture = pixels(write_log(tmp_path, *losses(first=first)))
        return np.ptp(rows_of(picture[:400, 300:1000], BLUE))

    usual = span(None)
    assert usual > 120
    assert min(span(0.3), span(1e6)) > 0.9 * usual


def test_a_first_validation_far_below_does_not_squash_the_others(tmp_path):
    values = [32.0 + 0.4 * (1 - 0.8**n) for n in range(20)]

    def span(*some):
        """The rows of the line of x2, on the left, after its first points."""
        picture = pixels(write_log(tmp_path, *validations(*some)))
        return np.ptp(rows_of(picture[:, 160:640], BLUE))

    assert span(8.0, *values) > 0.8 * span(values[0], *values)


def test_events_are_marked_across_the_panels(tmp_path):
    def dark_columns(picture):
        ink = (picture < 90).all(axis=2)
        return int(ink.sum(axis=0).max())

    lines = [*losses(), *validations(30, 32, 33)]
    without = dark_columns(pixels(write_log(tmp_path, *lines)))
    event = {"step": 3210, "event": "back to step 3000"}
    assert dark_columns(pixels(write_log(tmp_path, *lines, event))) > without + 150


@pytest.mark.parametrize(
    "lines",
    [
        [{"step": 100, "loss": 0.0, "rate": 0.0}],
        [{"step": 100 * n, "loss": 0.0, "rate": 0.0} for n in range(40)],
        [{"step": 100 * n, "loss": -1.0 + n} for n in range(40)],
        [{"step": 100 * n, "loss": 10.0**-n} for n in range(40)],
        [{"step": 10**12 + n, "loss": 1.0, "rate": 0.1**n} for n in range(40)],
        [{"step": 100 * n, "rate": 0.1 ** (n // 10)} for n in range(40)],
        [{"step": 0, "psnr": {"2": 30.0}}, {"step": 9, "psnr": {"3": 28.0, "8": 1.0}}],
        [{"step": 5, "loss": 1.0}, *({"step": n, "event": "e"} for n in range(9, 30))],
    ],
)
def test_strange_logs_make_a_picture_without_a_warning(tmp_path, lines):
    picture = pixels(write_log(tmp_path, *lines))
    assert picture.min() < 100 < picture.max()


@pytest.mark.parametrize("val", ["数据", "$\\frac$"])
def test_names_that_fonts_or_formulas_cannot_take_do_no_harm(tmp_path, val):
    write_log(tmp_path, *losses(), *validations(30, 31))
    recipe = {"model": "$x", "loss": "l2", "reduction": "sum"}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    (tmp_path / "run.json").write_text(json.dumps({"val": val}))
    assert pixels(tmp_path).shape == (1020, 1320, 3)


def test_damaged_files_beside_the_log_do_no_harm(tmp_path):
    write_log(tmp_path, *losses(), *validations(30, 31))
    (tmp_path / "recipe.json").write_text('{"model": 5, "loss": ["l1"]}')
    (tmp_path / "run.json").write_text("[")
    assert pixels(tmp_path).shape == (1020, 1320, 3)


def test_nothing_to_draw_leaves_no_picture(tmp_path):
    assert draw_curves(tmp_path) is None
    write_log(tmp_path, {"step": 5, "event": "x"}, {"step": 7, "loss": math.nan})
    assert draw_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    write_log(tmp_path, *losses())
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(OutputError, match=r"curves\.png"):
        draw_curves(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]


def test_drawing_leaves_the_settings_of_others_alone(tmp_path):
    import matplotlib as mpl

    write_log(tmp_path, *losses())
    usual = pixels(tmp_path)
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 30}):
        before = dict(mpl.rcParams)
        assert np.array_equal(pixels(tmp_path), usual)
        assert dict(mpl.rcParams) == before


def test_only_drawing_loads_the_library_and_never_its_windows(tmp_path):
    write_log(tmp_path, *losses(2))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from srcli.training.report import draw_curves\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"assert draw_curves(Path({str(tmp_path)!r}))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], text=True)
    assert done.returncode == 0
