"""Checkpoints: a kill at any moment leaves something to go on with."""

import pytest
import torch

from srcli.errors import InputError, OutputError
from srcli.training import checkpoint
from srcli.training.checkpoint import load_checkpoint, save_checkpoint


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
