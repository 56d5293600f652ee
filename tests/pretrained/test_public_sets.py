"""Data sets: what the catalogue promises, and how archives become folders."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from urllib.parse import urlsplit

import pytest

from srcli.errors import InputError
from srcli.evaluation.datasets import find_dataset
from srcli.pretrained.public_sets import (
    DataSet,
    Options,
    data_sets,
    find_data_folder,
    format_size,
)
from srcli.pretrained.transfer import Source


def pack_tar(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def pack_zip(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def find_set(name):
    return next(data_set for data_set in data_sets() if data_set.name == name)


@pytest.fixture
def serve(file_server):
    """Makes the server give out `body` for a set of the catalogue."""

    def make(name, body, **known):
        file_server.body = body
        known.setdefault("md5", hashlib.md5(body).hexdigest())
        real = find_set(name)
        source = Source(file_server.url, real.source.file, **known)
        fields = {field: getattr(real, field) for field in DataSet.__slots__}
        return DataSet(**{**fields, "source": source})

    return make


BENCHMARK = {
    "benchmark/Set5/HR/baby.png": b"baby",
    "benchmark/Set5/LR_bicubic/X2/babyx2.png": b"small",
    "benchmark/Set14/HR/zebra.png": b"zebra",
    "benchmark/B100/HR/3096.png": b"plane",
    "benchmark/Urban100/HR/img001.png": b"house",
}


def test_the_catalogue_has_the_sets_of_the_papers_at_public_addresses():
    names = [data_set.name for data_set in data_sets()]
    assert len(set(names)) == len(names)
    for name in ("set5", "set14", "b100", "urban100", "manga109", "div2k-valid"):
        assert name in names
    for data_set in data_sets():
        assert data_set.folders
        assert data_set.terms
        assert bool(data_set.ask) == (data_set.source is None)
        if data_set.source:
            address = urlsplit(data_set.source.url)
            assert address.scheme == "https"
            assert address.path.endswith("/" + data_set.source.file)
            assert data_set.source.file.endswith((".tar", ".tgz", ".zip"))
            assert len(data_set.source.sha256 or "0" * 64) == 64
            assert len(data_set.source.md5 or "0" * 32) == 32
            assert data_set.source.sha256 or data_set.source.md5


def test_the_training_pictures_of_the_papers_can_be_downloaded():
    sets = [data_set for data_set in data_sets() if data_set.training]
    names = ["div2k-train", "flickr2k", "t91", "bsds200"]
    assert [data_set.name for data_set in sets] == names
    assert all(data_set.source and data_set.size for data_set in sets)
    rough = [data_set.name for data_set in sets if data_set.is_rough]
    assert rough == ["flickr2k"]
    measured = {"Set5", "Set14", "B100", "Urban100", "Manga109", "DIV2K_valid_HR"}
    assert measured.isdisjoint(folder for each in sets for folder in each.folders)


def test_only_the_training_pictures_leave_the_berkeley_archive(serve, tmp_path):
    """Its val are the pictures of B100."""
    images = "BSR/BSDS500/data/images"
    body = pack_tar(
        {
            f"{images}/test/100007.jpg": b"test",
            f"{images}/train/100075.jpg": b"train",
            f"{images}/train/Thumbs.db": b"junk",
            f"{images}/val/101085.jpg": b"B100",
            "BSR/BSDS500/data/groundTruth/train/100075.mat": b"outlines",
        }
    )
    outcome = serve("bsds200", gzip.compress(body)).install(Options(tmp_path))
    assert outcome.paths == (tmp_path / "BSDS200",)
    left = [path for path in tmp_path.rglob("*") if path.suffix != ".json"]
    assert left == [tmp_path / "BSDS200", tmp_path / "BSDS200" / "100075.jpg"]
    assert left[1].read_bytes() == b"train"


def test_only_the_91_pictures_leave_the_archive_of_srcnn(serve, tmp_path):
    body = pack_zip(
        {
            "SRCNN/generate_train.m": b"code",
            "SRCNN/Test/Set5/baby_GT.bmp": b"Set5",
            "SRCNN/Train/t1.bmp": b"leaf",
        }
    )
    outcome = serve("t91", body).install(Options(tmp_path))
    assert outcome.status == "downloaded"
    left = [path for path in tmp_path.rglob("*") if path.suffix != ".json"]
    assert left == [tmp_path / "T91", tmp_path / "T91" / "t1.bmp"]


def test_the_benchmark_archive_serves_four_names(serve, file_server, tmp_path):
    outcome = serve("set5", pack_tar(BENCHMARK)).install(Options(tmp_path))
    assert outcome.status == "downloaded"
    assert outcome.paths == (tmp_path / "Set5",)
    found = find_dataset("set5", tmp_path).pictures(2)
    assert [path.read_bytes() for path in found] == [b"baby"]
    for name in ("set5", "set14", "b100", "urban100", "benchmark"):
        assert find_set(name).install(Options(tmp_path)).status == "installed"
    assert len(file_server.asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "B100",
        "Set14",
        "Set5",
        "Urban100",
        "srcli-checksums.json",
    ]


def test_a_kept_archive_is_used_again_without_the_network(serve, file_server, tmp_path):
    data_set = serve("benchmark", pack_tar(BENCHMARK))
    data_set.install(Options(tmp_path, keep_archive=True))
    (tmp_path / "Set5" / "HR" / "baby.png").unlink()
    (tmp_path / "Set5" / "LR_bicubic" / "X2" / "babyx2.png").unlink()
    for folder in ("LR_bicubic/X2", "LR_bicubic", "HR"):
        (tmp_path / "Set5" / folder).rmdir()
    outcome = data_set.install(Options(tmp_path))
    assert outcome.status == "unpacked"
    assert (tmp_path / "Set5" / "HR" / "baby.png").read_bytes() == b"baby"
    assert not (tmp_path / "benchmark.tar").exists()
    assert len(file_server.asked) == 1


def test_folders_of_ones_own_are_left_alone(serve, tmp_path):
    (tmp_path / "Set5").mkdir()
    (tmp_path / "Set5" / "mine.png").write_bytes(b"mine")
    serve("set14", pack_tar(BENCHMARK)).install(Options(tmp_path))
    assert [path.name for path in (tmp_path / "Set5").iterdir()] == ["mine.png"]
    assert (tmp_path / "Set14" / "HR" / "zebra.png").is_file()


def test_the_validation_set_is_found_and_its_lr_pictures_lie_together(serve, tmp_path):
    for name, member in (
        ("div2k-valid", "DIV2K_valid_HR/0801.png"),
        ("div2k-valid-lr-x2", "DIV2K_valid_LR_bicubic/X2/0801x2.png"),
        ("div2k-valid-lr-x3", "DIV2K_valid_LR_bicubic/X3/0801x3.png"),
    ):
        data_set = serve(name, pack_zip({member: name.encode()}))
        assert data_set.install(Options(tmp_path)).status == "downloaded"
        assert (tmp_path / member).read_bytes() == name.encode()
    found = find_dataset("div2k-valid", tmp_path).pictures(2)
    assert [path.name for path in found] == ["0801.png"]


def test_an_archive_of_something_else_leaves_nothing(serve, tmp_path):
    body = pack_tar({"benchmark/Set5/HR/baby.png": b"baby"})
    with pytest.raises(InputError, match="holds no benchmark/Set14"):
        serve("benchmark", body).install(Options(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_archive_leaves_nothing(serve, tmp_path):
    body = pack_tar({**BENCHMARK, "../evil.txt": b"evil"})
    with pytest.raises(InputError, match="would leave"):
        serve("benchmark", body).install(Options(tmp_path / "data"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert list((tmp_path / "data").iterdir()) == []


def test_the_first_checksum_is_kept_and_holds_for_later_downloads(
    serve, file_server, tmp_path, caplog
):
    caplog.set_level("INFO", "srcli")
    body = pack_tar(BENCHMARK)
    serve("benchmark", body, md5=None).install(Options(tmp_path))
    assert "no SHA-256 of benchmark.tar is published" in caplog.text
    record = json.loads((tmp_path / "srcli-checksums.json").read_text())
    expected = {"url": file_server.url, "sha256": hashlib.sha256(body).hexdigest()}
    assert record == {"benchmark.tar": expected}

    other = tmp_path / "again"
    other.mkdir()
    (tmp_path / "srcli-checksums.json").rename(other / "srcli-checksums.json")
    changed = serve("benchmark", body.replace(b"zebra", b"horse"), md5=None)
    with pytest.raises(InputError, match=r"wrong SHA-256.*srcli-checksums\.json"):
        changed.install(Options(other))
    assert [path.name for path in other.iterdir()] == ["srcli-checksums.json"]
    assert serve("benchmark", body, md5=None).install(Options(other)).paths


def test_a_published_checksum_needs_no_record(serve, tmp_path):
    body = pack_zip({"DIV2K_valid_HR/0801.png": b"x"})
    known = {"md5": None, "sha256": hashlib.sha256(body).hexdigest()}
    serve("div2k-valid", body, **known).install(Options(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["DIV2K_valid_HR"]


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmark.tar": 5}'])
def test_a_damaged_record_is_not_ignored(serve, file_server, tmp_path, text):
    (tmp_path / "srcli-checksums.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        serve("benchmark", pack_tar(BENCHMARK)).install(Options(tmp_path))
    assert not file_server.asked


def test_manga109_must_be_asked_for(tmp_path):
    manga109 = find_set("manga109")
    with pytest.raises(InputError, match=r"http://www\.manga109\.org") as caught:
        manga109.install(Options(tmp_path))
    assert str(tmp_path / "Manga109") in str(caught.value)
    (tmp_path / "Manga109").mkdir()
    (tmp_path / "Manga109" / "page.png").write_bytes(b"x")
    assert manga109.install(Options(tmp_path)).status == "installed"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (999, "999 B"),
        (31_505_881, "32 MB"),
        (3_530_603_713, "3.5 GB"),
        (20_000_000_000, "20 GB"),
    ],
)
def test_sizes_have_two_digits_and_a_unit(size, text):
    assert format_size(size) == text


def test_where_data_sets_go(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SRCLI_DATA_DIR", raising=False)
    assert find_data_folder() == tmp_path / "cache" / "datasets"
    monkeypatch.setenv("SRCLI_DATA_DIR", str(tmp_path / "data"))
    assert find_data_folder() == tmp_path / "data"
    assert find_data_folder(tmp_path) == tmp_path
