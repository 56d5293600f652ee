"""What makes the many small runs of these tests quick."""

import pytest

from srcli.training.checkpoint import TrainRequest


@pytest.fixture(autouse=True)
def _tiles_are_not_measured(monkeypatch):
    """How much memory a network takes is measured in the tests of inference."""
    name = "srcli.inference.device.activation_bytes_per_pixel"
    monkeypatch.setattr(name, lambda *_: 10_000.0)


@pytest.fixture
def request_of(tmp_path, pictures):
    """A function that makes a request for a tiny run on the CPU."""

    def make(**values):
        return TrainRequest(**{
            "model": "mrnet", "out": tmp_path / "run", "data": (pictures,),
            "val": "none", "device": "cpu", "precision": "fp32", **values,
        })  # fmt: skip

    return make
