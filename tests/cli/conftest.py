"""What the tests of several commands share."""

import pytest


@pytest.fixture
def elsewhere(monkeypatch, tmp_path_factory):
    """No data set of this machine is found by chance, and nothing is left here."""
    monkeypatch.delenv("SRCLI_DATA_DIR", raising=False)
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))
