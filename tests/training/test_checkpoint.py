"""Checkpoints and the log: a kill at any moment leaves something to go on with."""

import json

import pytest
import torch

from srcli.errors import InputError, OutputError
from srcli.training import checkpoint
from srcli.training.checkpoint import load_checkpoint, save_checkpoint
from srcli.training.log import Journal, Tally
from srcli.writing import make_folder, write_whole


def save(folder, step):
    save_checkpoint(folder, {"step": step, "weights": torch.ones(3)})


def test_the_newest_checkpoint_is_read_and_the_one_before_kept(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    assert load_checkpoint(tmp_path)["step"] == 2
    (tmp_path / "checkpoint.pt").unlink()
    assert load_checkpoint(tmp_path)["step"] == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(tmp_path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    newest = tmp_path / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:300])
    assert load_checkpoint(tmp_path)["step"] == 1
    assert "checkpoint.pt is damaged" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04" + bytes(99)])
def test_damaged_and_missing_checkpoints_are_one_line(tmp_path, content):
    with pytest.raises(InputError, match="nothing to resume"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match="damaged") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last(
    tmp_path, monkeypatch, error
):
    save(tmp_path, 1)

    def fail(descriptor):
        raise error

    monkeypatch.setattr(checkpoint.os, "fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt), match=r"No space|^$"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert load_checkpoint(tmp_path)["step"] == 1


def test_log_goes_on_after_a_line_that_was_cut_short(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 100, "loss": 1}\n{"step": 200, "loss": 1}\n{"step": 3')
    journal = Journal(path, 150)
    journal.write(step=200, loss=0.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 100, "loss": 1}, {"step": 200, "loss": 0.5}]
    Journal(path, 0)
    assert path.read_text() == ""


def test_a_log_that_cannot_be_written_is_an_output_error(tmp_path):
    journal = Journal(tmp_path / "log.jsonl", 0)
    journal.path.unlink()
    journal.path.mkdir()
    with pytest.raises(OutputError, match=r"log\.jsonl"):
        journal.write(step=1)
    with pytest.raises(OutputError, match=r"log\.jsonl"):
        Journal(journal.path, 5)


def test_tally_is_the_mean_since_the_last_reading():
    tally = Tally(drawing=10.0)
    for loss in (1.0, 3.0):
        tally.add(torch.tensor(loss))
        tally.seconds += 3.0
    assert tally.loss.item() == 4.0
    means = tally.read(drawing=11.5)
    assert (means.loss.item(), means.seconds, means.data_share) == (2.0, 3.0, 0.25)
    tally.add(torch.tensor(5.0))
    tally.seconds += 2.0
    means = tally.read(drawing=None)
    assert (means.loss.item(), means.seconds, means.data_share) == (5.0, 2.0, None)


def test_files_and_folders_that_cannot_be_made_are_output_errors(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with (
        pytest.raises(OutputError, match="Not a directory"),
        write_whole(blocked / "x") as part,
    ):
        part.write_text("never")
    with pytest.raises(OutputError, match="cannot make"):
        make_folder(blocked)
