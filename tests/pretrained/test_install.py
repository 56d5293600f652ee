"""What can be installed by name: data sets from archives, and weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from archives import pack

from srcli.errors import InputError, UsageError, WeightsError
from srcli.pretrained import catalog
from srcli.pretrained.datasets import find_dataset, public_sets
from srcli.pretrained.install import install, list_items, select_items


def find_set(name):
    (found,) = select_items([name])
    return found


@pytest.fixture
def serve(file_server):
    """Makes the server give out these files for a set of the catalogue."""

    def make(name, members, **known):
        real = find_set(name)
        body = file_server.body = pack(Path(real.archive).suffix, members.items())
        known.setdefault("md5", hashlib.md5(body).hexdigest())
        known = {"sha256": None, "bytes": None, **known}
        return dataclasses.replace(
            real, url=file_server.url.replace("some.bin", real.archive), **known
        )

    return make


BENCHMARK = {
    "benchmark/Set5/HR/baby.png": b"baby",
    "benchmark/Set5/LR_bicubic/X2/babyx2.png": b"small",
    "benchmark/Set14/HR/zebra.png": b"zebra",
    "benchmark/B100/HR/3096.png": b"plane",
    "benchmark/Urban100/HR/img001.png": b"house",
}


def test_the_catalogue_has_the_sets_of_the_papers_at_public_addresses():
    names = [each.name for each in public_sets()]
    assert len(set(names)) == len(names)
    assert {"set5", "set14", "b100", "urban100", "manga109", "div2k-valid"} <= {*names}
    for each in public_sets():
        assert each.folders
        assert each.terms
        assert bool(each.ask) == (not each.url)
        if each.url:
            assert urlsplit(each.url).scheme == "https"
            assert each.archive.endswith((".tar", ".tgz", ".zip"))
            assert len(each.sha256 or "0" * 64) == 64
            assert len(each.md5 or "0" * 32) == 32
            assert each.sha256 or each.md5


def test_the_training_pictures_of_the_papers_can_be_downloaded():
    sets = [each for each in public_sets() if each.training]
    names = ["div2k-train", "flickr2k", "t91", "bsds200"]
    assert [each.name for each in sets] == names
    assert all(each.url and each.size for each in sets)
    measured = {"Set5", "Set14", "B100", "Urban100", "Manga109", "DIV2K_valid_HR"}
    assert measured.isdisjoint(folder for each in sets for folder in each.folders)


IMAGES = "BSR/BSDS500/data/images"


@pytest.mark.parametrize(
    ("name", "members", "left"),
    [
        (
            "bsds200",  # whose val are the pictures of B100
            {
                f"{IMAGES}/test/100007.jpg": b"test",
                f"{IMAGES}/train/100075.jpg": b"train",
                f"{IMAGES}/train/Thumbs.db": b"junk",
                f"{IMAGES}/val/101085.jpg": b"B100",
                "BSR/BSDS500/data/groundTruth/train/100075.mat": b"outlines",
            },
            "BSDS200/100075.jpg",
        ),
        (
            "t91",
            {
                "SRCNN/generate_train.m": b"code",
                "SRCNN/Test/Set5/baby_GT.bmp": b"Set5",
                "SRCNN/Train/t1.bmp": b"leaf",
            },
            "T91/t1.bmp",
        ),
    ],
)
def test_only_training_pictures_leave_an_archive(serve, tmp_path, name, members, left):
    wanted = serve(name, members)
    assert install(wanted, tmp_path) == "downloaded"
    assert wanted.find(tmp_path) == ((tmp_path / left).parent,)
    files = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".json"]
    assert files == [tmp_path / left]


def test_the_benchmark_archive_serves_four_names(serve, file_server, tmp_path):
    assert install(serve("set5", BENCHMARK), tmp_path) == "downloaded"
    found = find_dataset("set5", tmp_path).pictures(2)
    assert [path.read_bytes() for path in found] == [b"baby"]
    for name in ("set5", "set14", "b100", "urban100", "benchmark"):
        assert install(find_set(name), tmp_path) == "installed"
    assert len(file_server.asked) == 1
    folders = {"B100", "Set14", "Set5", "Urban100"}
    there = {path.name for path in tmp_path.iterdir()}
    assert there == folders | {"srcli-checksums.json"}


def test_a_kept_archive_is_used_again_without_the_network(serve, file_server, tmp_path):
    wanted = serve("div2k-valid", {"DIV2K_valid_HR/0801.png": b"x"})
    wanted = dataclasses.replace(
        wanted, sha256=hashlib.sha256(file_server.body).hexdigest()
    )
    install(wanted, tmp_path, keep_archive=True)
    (tmp_path / "DIV2K_valid_HR" / "0801.png").unlink()
    assert install(wanted, tmp_path) == "unpacked"
    assert (tmp_path / "DIV2K_valid_HR" / "0801.png").read_bytes() == b"x"
    # Neither the archive is left, nor a record of a checksum that is published.
    assert [path.name for path in tmp_path.iterdir()] == ["DIV2K_valid_HR"]
    assert len(file_server.asked) == 1


def test_folders_of_ones_own_are_left_alone(serve, tmp_path):
    (tmp_path / "Set5").mkdir()
    (tmp_path / "Set5" / "mine.png").write_bytes(b"mine")
    install(serve("set14", BENCHMARK), tmp_path)
    assert [path.name for path in (tmp_path / "Set5").iterdir()] == ["mine.png"]
    assert (tmp_path / "Set14" / "HR" / "zebra.png").is_file()


def test_the_validation_sets_lr_pictures_lie_together(serve, tmp_path):
    for scale in (2, 3):
        member = f"DIV2K_valid_LR_bicubic/X{scale}/0801x{scale}.png"
        wanted = serve(f"div2k-valid-lr-x{scale}", {member: b"x"})
        assert install(wanted, tmp_path) == "downloaded"
        assert (tmp_path / member).is_file()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"benchmark/Set5/HR/baby.png": b"baby"}, "holds no benchmark/Set14"),
        ({**BENCHMARK, "../evil.txt": b"evil"}, "would leave"),
    ],
)
def test_a_wrong_or_hostile_archive_leaves_nothing(serve, tmp_path, members, words):
    with pytest.raises(InputError, match=words):
        install(serve("benchmark", members), tmp_path / "data")
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


def test_the_first_checksum_is_kept_and_holds_for_later_downloads(
    serve, tmp_path, file_server, caplog
):
    caplog.set_level("INFO", "srcli")
    wanted = serve("benchmark", BENCHMARK, md5=None)
    install(wanted, tmp_path)
    assert "no SHA-256 of benchmark.tar is published" in caplog.text
    record = json.loads((tmp_path / "srcli-checksums.json").read_text())
    kept = {"url": wanted.url, "sha256": hashlib.sha256(file_server.body).hexdigest()}
    assert record == {"benchmark.tar": kept}

    other = tmp_path / "again"
    other.mkdir()
    (tmp_path / "srcli-checksums.json").rename(other / "srcli-checksums.json")
    changed = {**BENCHMARK, "benchmark/Set14/HR/zebra.png": b"horse"}
    with pytest.raises(InputError, match="wrong SHA-256"):
        install(serve("benchmark", changed, md5=None), other)
    assert f"first download in {other / 'srcli-checksums.json'}" in caplog.text
    assert [path.name for path in other.iterdir()] == ["srcli-checksums.json"]
    assert install(serve("benchmark", BENCHMARK, md5=None), other) == "downloaded"


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmark.tar": 5}'])
def test_a_damaged_record_is_not_ignored(serve, file_server, tmp_path, text):
    (tmp_path / "srcli-checksums.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        install(serve("benchmark", BENCHMARK), tmp_path)
    assert not file_server.asked


def test_manga109_must_be_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"http://www\.manga109\.org") as caught:
        install(find_set("manga109"), tmp_path)
    assert str(tmp_path / "Manga109") in str(caught.value)
    (tmp_path / "Manga109").mkdir()
    (tmp_path / "Manga109" / "page.png").write_bytes(b"x")
    assert install(find_set("manga109"), tmp_path) == "installed"


# Weights

WEIGHTS = b"weights" * 100


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
    return partial(make_entry, "mrnet_x2.safetensors", WEIGHTS)


@pytest.fixture
def get(tmp_path):
    """A function that installs MRNet's weights."""
    return lambda: install(find_set("mrnet"), tmp_path / "data")


@pytest.mark.usefixtures("entries")
def test_names_are_found_in_any_case_and_once():
    items = select_items(["Set5", "DIV2K_valid", "set5", "MRNet"])
    assert [item.name for item in items] == ["set5", "div2k-valid", "mrnet"]
    with pytest.raises(UsageError, match="did you mean urban100"):
        select_items(["set5", "urban10"])


def test_only_models_with_weights_are_listed(mrnet_x2, entries):
    assert "mrnet" not in [item.name for item in list_items()]
    entries.append(mrnet_x2())
    (item,) = (item for item in list_items() if item.name == "mrnet")
    assert (item.kind, item.size, item.terms) == ("weights", len(WEIGHTS), "CC0")


def test_weights_that_are_nowhere(mrnet_x2, entries, get):
    with pytest.raises(WeightsError, match="no weights are bundled yet"):
        get()
    entries.append(mrnet_x2())
    with pytest.raises(WeightsError, match="neither bundled nor published"):
        get()


def test_bundled_weights_are_checked_and_need_no_network(
    mrnet_x2, entries, tmp_path, get
):
    entries.append(mrnet_x2(url="http://127.0.0.1:9/never.asked"))
    path = tmp_path / "bundled" / "mrnet_x2.safetensors"
    path.write_bytes(WEIGHTS)
    assert get() == "bundled"
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="install srcli again"):
        get()


def test_published_weights_go_to_the_cache(
    mrnet_x2, entries, tmp_path, file_server, get
):
    file_server.body = WEIGHTS
    entries.append(mrnet_x2(url=file_server.url))
    assert find_set("mrnet").find(tmp_path) == ()
    path = tmp_path / "cache" / "weights" / "mrnet_x2.safetensors"
    assert get() == "downloaded"
    assert path.read_bytes() == WEIGHTS
    assert find_set("mrnet").find(tmp_path) == (path,)
    assert get() == "installed"
    assert len(file_server.asked) == 1
    path.write_bytes(b"damaged")
    assert get() == "downloaded"
    assert path.read_bytes() == WEIGHTS


def test_wrong_weights_are_never_used(mrnet_x2, entries, tmp_path, file_server, get):
    file_server.body = WEIGHTS[:-1] + b"!"
    entries.append(mrnet_x2(url=file_server.url))
    with pytest.raises(WeightsError, match="wrong SHA-256"):
        get()
    assert list((tmp_path / "cache" / "weights").iterdir()) == []
