"""Names that can be downloaded, and the weights among them."""

from __future__ import annotations

from functools import partial

import pytest

from srcli.errors import UsageError, WeightsError
from srcli.pretrained import catalog
from srcli.pretrained.public_sets import Options
from srcli.pretrained.sources import list_items, select_items

BODY = b"weights" * 100


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """The manifest, to be filled; bundled files and cache lie in `tmp_path`."""
    listed = []
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(catalog, "manifest", lambda: tuple(listed))
    monkeypatch.setattr(catalog, "bundled_folder", lambda: tmp_path / "bundled")
    (tmp_path / "bundled").mkdir()
    return listed


@pytest.fixture
def mrnet_x2(make_entry):
    """A function that lists MRNet's weights for x2."""
    return partial(make_entry, "mrnet_x2.safetensors", BODY)


def install(tmp_path):
    (item,) = select_items(["mrnet"])
    return item.install(Options(tmp_path / "data"))


@pytest.mark.usefixtures("entries")
def test_names_are_found_in_any_case_and_once():
    items = select_items(["Set5", "DIV2K_valid", "set5", "MRNet"])
    assert [item.name for item in items] == ["set5", "div2k-valid", "mrnet"]


@pytest.mark.usefixtures("entries")
def test_an_unknown_name_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean urban100"):
        select_items(["set5", "urban10"])


def test_only_models_with_weights_are_listed(mrnet_x2, entries):
    assert "mrnet" not in [item.name for item in list_items()]
    entries.append(mrnet_x2())
    (item,) = (item for item in list_items() if item.name == "mrnet")
    assert (item.kind, item.size, item.terms) == ("weights", len(BODY), "CC0")


@pytest.mark.usefixtures("entries")
def test_a_model_without_weights(tmp_path):
    with pytest.raises(WeightsError, match="srcli train -m mrnet"):
        install(tmp_path)


def test_bundled_weights_are_checked_and_need_no_network(mrnet_x2, entries, tmp_path):
    entries.append(mrnet_x2(url="http://127.0.0.1:9/never.asked"))
    path = tmp_path / "bundled" / "mrnet_x2.safetensors"
    path.write_bytes(BODY)
    outcome = install(tmp_path)
    assert (outcome.status, outcome.paths) == ("bundled", (path,))
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="install srcli again"):
        install(tmp_path)


def test_weights_that_are_nowhere(mrnet_x2, entries, tmp_path):
    entries.append(mrnet_x2())
    with pytest.raises(WeightsError, match="neither bundled nor published"):
        install(tmp_path)


def test_published_weights_go_to_the_cache(mrnet_x2, entries, tmp_path, file_server):
    file_server.body = BODY
    entries.append(mrnet_x2(url=file_server.url))
    (item,) = select_items(["mrnet"])
    assert item.find(tmp_path) == ()
    outcome = install(tmp_path)
    path = tmp_path / "cache" / "weights" / "mrnet_x2.safetensors"
    assert (outcome.status, outcome.paths) == ("downloaded", (path,))
    assert path.read_bytes() == BODY
    assert catalog.locate(entries[0]) == path
    assert install(tmp_path).status == "installed"
    assert len(file_server.asked) == 1


def test_damaged_weights_of_the_cache_are_replaced(
    mrnet_x2, entries, tmp_path, file_server
):
    file_server.body = BODY
    entries.append(mrnet_x2(url=file_server.url))
    path = tmp_path / "cache" / "weights" / "mrnet_x2.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    assert install(tmp_path).status == "downloaded"
    assert path.read_bytes() == BODY


def test_wrong_weights_are_never_used(mrnet_x2, entries, tmp_path, file_server):
    file_server.body = BODY[:-1] + b"!"
    entries.append(mrnet_x2(url=file_server.url))
    with pytest.raises(WeightsError, match="wrong SHA-256"):
        install(tmp_path)
    assert list((tmp_path / "cache" / "weights").iterdir()) == []
