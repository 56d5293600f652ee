"""TensorBoard: every figure once, also after a resume; silence where it is missing."""

import logging
import sys

import pytest

from srcli.errors import OutputError
from srcli.training.log import SILENT_BOARD, open_board


@pytest.fixture
def read(monkeypatch, tmp_path):
    """A function that reads a run's board as TensorBoard shows it."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.summary.writer import event_file_writer as files

    # Names of files end in a count: of one second, "10" would be read before "9".
    monkeypatch.setattr(files, "_global_uid", files.AtomicCounter(0))

    def shown():
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        return {
            tag: [(e.step, e.value) for e in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }

    return shown


def test_every_figure_is_shown(tmp_path, read):
    board = open_board(tmp_path, 0)
    board.scalars(100, {"loss": 0.5, "rate": 0.25})
    board.scalars(100, {"x2": 36.5})
    board.scalars(200, {"loss": 0.125})
    board.close()
    assert read() == {
        "loss": [(100, 0.5), (200, 0.125)],
        "rate": [(100, 0.25)],
        "x2": [(100, 36.5)],
    }


def test_a_resumed_run_shows_each_step_once(tmp_path, read):
    first = open_board(tmp_path, 0)
    for step in (100, 200, 300):
        first.scalars(step, {"loss": 1.0})
    first.close()
    second = open_board(tmp_path, 200)  # its checkpoint; 300 is taken again
    for step in (300, 400):
        second.scalars(step, {"loss": 2.0})
    second.close()
    assert read() == {"loss": [(100, 1.0), (200, 1.0), (300, 2.0), (400, 2.0)]}


def test_a_run_from_the_start_hides_what_a_killed_one_left(tmp_path, read):
    killed = open_board(tmp_path, 0)
    killed.scalars(100, {"loss": 1.0})
    killed.close()
    fresh = open_board(tmp_path, 0)
    fresh.scalars(50, {"loss": 2.0})
    fresh.close()
    assert read() == {"loss": [(50, 2.0)]}


def test_a_run_that_goes_back_takes_back_what_it_showed(tmp_path, read):
    board = open_board(tmp_path, 0)
    for step in (100, 200, 300):
        board.scalars(step, {"loss": 1.0})
    board.scalars(200, {"loss": 2.0})  # after a rollback to 100
    board.scalars(200, {"x2": 30.0})
    board.scalars(300, {"loss": 2.0})
    board.close()
    assert read() == {
        "loss": [(100, 1.0), (200, 2.0), (300, 2.0)],
        "x2": [(200, 30.0)],
    }


def test_without_tensorboard_the_board_is_silent(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if not installed
    board = open_board(tmp_path, 0)
    assert board is SILENT_BOARD
    board.scalars(100, {"loss": 0.5})
    board.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(OutputError, match="tensorboard"):
        open_board(tmp_path, 0)


@pytest.mark.parametrize("broken", ["add_scalar", "close"])
def test_a_full_disk_ends_the_board_but_not_the_run(
    tmp_path, monkeypatch, caplog, broken
):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def fail(*args):
        raise OSError(28, "No space left on device")

    board = open_board(tmp_path, 0)
    whole = SummaryWriter.close
    monkeypatch.setattr(SummaryWriter, broken, fail)
    with caplog.at_level(logging.WARNING):
        board.scalars(100, {"loss": 0.5})
        board.scalars(200, {"loss": 0.5})
        writer = board._writer
        board.close()
        board.close()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "No space left on device" in caplog.text
    if writer is not None:
        whole(writer)  # its thread must not outlive the test
