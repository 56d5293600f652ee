"""What makes the many small runs of these tests quick."""

import pytest


@pytest.fixture(autouse=True)
def _tiles_are_not_measured(monkeypatch):
    """How much memory a network takes is measured in the tests of inference."""
    name = "srcli.inference.device.activation_bytes_per_pixel"
    monkeypatch.setattr(name, lambda *_: 10_000.0)
