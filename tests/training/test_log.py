"""A run's log: written, taken back, read; TensorBoard shows the same."""

import json
import sys

import pytest

from srcli.errors import InputError, OutputError
from srcli.training.log import Journal, read_history


def test_every_figure_arrives(tmp_path):
    journal = Journal(tmp_path, 0)
    journal.write(100, loss=0.5, rate=1e-3, seconds_per_step=2.0)
    journal.write(200, loss=0.25, rate=1e-4, data_share=0.125)
    journal.write(200, psnr={2: 36.5, 4: 30.5})
    journal.write(250, event="rolled back")
    journal.write(300, psnr={2: 36.0, 4: 30.75})
    history = read_history(tmp_path)
    assert history.losses == {100: 0.5, 200: 0.25}
    assert history.rates == {100: 1e-3, 200: 1e-4}
    assert history.validations == {200: {2: 36.5, 4: 30.5}, 300: {2: 36.0, 4: 30.75}}
    assert history.events == [(250, "rolled back")]
    assert (history.scales, history.last_step) == ((2, 4), 300)
    assert history.best_step == 200  # 33.5 dB in the mean against 33.375
    assert (history.seconds_per_step, history.data_share) == (2.0, 0.125)


def test_what_a_run_took_back_is_left_out_but_for_the_events(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (100, 200, 300):
        journal.write(step, loss=1.0)
        journal.write(step, psnr={2: 30.0})
    journal.write(100, event="back to step 100")
    journal.write(200, loss=2.0)
    history = read_history(tmp_path)
    assert history.losses == {100: 1.0, 200: 2.0}
    assert list(history.validations) == [100]
    assert history.events == [(100, "back to step 100")]


def test_damaged_lines_and_figures_are_left_out(tmp_path):
    lines = (
        '{"step": 100, "lo', "[]", "\x00\x01", "[" * 100_000,
        '{"step": "100", "loss": 1.0}', '{"step": true, "loss": 1.0}',
        '{"step": -5, "loss": 1.0}', '{"step": 200, "loss": NaN, "rate": 0.5}',
        '{"step": 300, "loss": "low", "rate": null}',
        '{"step": 400, "loss": 1' + "0" * 400 + "}",
        '{"step": 500, "psnr": {"2": null, "x": 3.0, "4": 30.0}}',
        '{"step": 600, "psnr": [1, 2], "event": 3}',
    )  # fmt: skip
    (tmp_path / "log.jsonl").write_text("\n".join(lines), "utf-8")
    history = read_history(tmp_path)
    assert (history.losses, history.rates) == ({}, {200: 0.5})
    assert history.validations == {500: {4: 30.0}}
    assert history.events == []


def test_a_missing_log_is_empty_and_an_unreadable_one_an_input_error(tmp_path):
    assert read_history(tmp_path).last_step == 0
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(InputError, match=r"log\.jsonl"):
        read_history(tmp_path)


def test_log_goes_on_after_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 100, "loss": 1}\n{"step": 200, "loss": 1}\n{"step": 3')
    Journal(tmp_path, 150).write(200, loss=0.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 100, "loss": 1}, {"step": 200, "loss": 0.5}]
    Journal(tmp_path, 0)
    assert path.read_text() == ""


def test_a_log_that_cannot_be_written_is_an_output_error(tmp_path):
    journal = Journal(tmp_path, 0)
    (tmp_path / "log.jsonl").unlink()
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"log\.jsonl"):
        journal.write(1, loss=1.0)


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """A function that reads a run's figures as TensorBoard shows them."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer as files

    # Names of files end in a count: of one second, "10" would be read before "9".
    monkeypatch.setattr(files, "_global_uid", files.AtomicCounter(0))

    def read():
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        return {
            tag: [(e.step, e.value) for e in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }

    return read


def test_tensorboard_shows_each_step_once_also_after_a_resume_and_a_rollback(
    tmp_path, shown
):
    first = Journal(tmp_path, 0)
    for step in (100, 200, 300):
        first.write(step, loss=1.0)
    first.close()
    second = Journal(tmp_path, 200)  # its checkpoint; 300 is taken again
    for step in (300, 400):
        second.write(step, loss=2.0)
    second.write(400, psnr={2: 30.0})
    second.write(300, loss=3.0)  # after a rollback
    second.close()
    assert shown() == {"loss": [(100, 1.0), (200, 1.0), (300, 3.0)], "x2": []}


def test_without_tensorboard_there_is_the_log_alone(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if not installed
    journal = Journal(tmp_path, 0)
    journal.write(100, loss=0.5)
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_full_disk_ends_tensorboard_but_not_the_run(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def fail(*args):
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path, 0)
    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    journal.write(100, loss=0.5)
    journal.write(200, loss=0.25)
    journal.close()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "No space left on device" in caplog.text
    assert read_history(tmp_path).losses == {100: 0.5, 200: 0.25}
