"""The log read back: in order, without what is damaged or was taken back."""

import json
import os

import pytest

from srcli.errors import InputError
from srcli.training.log import read_history


def write(folder, *lines):
    text = "\n".join(e if isinstance(e, str) else json.dumps(e) for e in lines)
    (folder / "log.jsonl").write_text(text + "\n", "utf-8")
    return read_history(folder)


def test_every_figure_arrives(tmp_path):
    history = write(
        tmp_path,
        {"step": 100, "loss": 0.5, "rate": 1e-3, "seconds_per_step": 2.0},
        {"step": 200, "loss": 0.25, "rate": 1e-4, "data_share": 0.125},
        {"step": 200, "psnr": {"2": 36.5, "4": 30.5}},
        {"step": 250, "event": "rolled back"},
        {"step": 300, "psnr": {"2": 36.0, "4": 30.75}},
    )
    assert history.losses == {100: 0.5, 200: 0.25}
    assert history.rates == {100: 1e-3, 200: 1e-4}
    assert history.validations == {
        200: {2: 36.5, 4: 30.5},
        300: {2: 36.0, 4: 30.75},
    }
    assert history.events == ((250, "rolled back"),)
    assert history.scales == (2, 4)
    assert history.best_step == 200  # 33.5 dB in the mean against 33.375
    assert history.last_step == 300
    assert (history.seconds_per_step, history.data_share) == (2.0, 0.125)


def test_damaged_lines_and_figures_are_left_out(tmp_path):
    history = write(
        tmp_path,
        '{"step": 100, "lo',
        "[]",
        "\x00\x01",
        "[" * 100_000,
        {"step": "100", "loss": 1.0},
        {"step": True, "loss": 1.0},
        {"step": -5, "loss": 1.0},
        {"step": 10**30, "loss": 1.0},
        '{"step": 200, "loss": NaN, "rate": 0.5}',
        {"step": 300, "loss": "low", "rate": None},
        '{"step": 400, "loss": 1' + "0" * 400 + "}",
        {"step": 500, "psnr": {"2": None, "x": 3.0, "4": 30.0}},
        {"step": 600, "psnr": [1, 2], "event": 3},
    )
    assert history.losses == {}
    assert history.rates == {200: 0.5}
    assert history.validations == {500: {4: 30.0}}
    assert history.events == ()


def test_bytes_that_are_no_text_cost_their_line_only(tmp_path):
    good = json.dumps({"step": 100, "loss": 0.5}).encode()
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe{\n" + good + b"\n")
    assert read_history(tmp_path).losses == {100: 0.5}


def test_steps_that_were_taken_back_do_not_count(tmp_path):
    history = write(
        tmp_path,
        {"step": 100, "loss": 0.4},
        {"step": 100, "psnr": {"2": 30.0}},
        {"step": 200, "loss": 0.3},
        {"step": 300, "loss": 9.0},
        {"step": 300, "psnr": {"2": 99.0}},
        {"step": 100, "event": "back to step 100"},
        {"step": 200, "loss": 0.2},
    )
    assert history.losses == {100: 0.4, 200: 0.2}
    assert history.validations == {100: {2: 30.0}}
    assert history.best_step == 100
    assert history.events == ((100, "back to step 100"),)


def test_no_log_is_an_empty_history(tmp_path):
    history = read_history(tmp_path)
    assert (history.losses, history.validations, history.events) == ({}, {}, ())
    assert history.best_step is None
    assert history.seconds_per_step is None
    assert history.data_share is None
    assert history.last_step == 0


@pytest.mark.skipif(os.name == "nt", reason="a folder in its place reads differently")
def test_a_log_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(InputError, match=r"log\.jsonl"):
        read_history(tmp_path)
