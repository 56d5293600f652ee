"""Unpacking archives that want out of their folder, or to fill the disk."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from archives import pack, special

from srcli.errors import InputError, OutputError
from srcli.pretrained.archive import unpack

PICTURES = [
    ("Set5/HR/baby.png", b"baby" * 1000),
    ("Set5/LR_bicubic/X2/babyx2.png", b"small"),
    ("Set5/empty.txt", b""),
    ("Set5/HR/größe ä.png", b"name"),
]
LITTER = [
    ("__MACOSX/Set5/HR/._baby.png", b"junk"),
    ("Set5/HR/._baby.png", b"junk"),
    ("Set5/.DS_Store", b"junk"),
]
ZEROS = [("zeros.png", bytes(8 * 2**20))]
ANY = pytest.mark.parametrize("suffix", [".tar", ".tgz", ".zip"])


@pytest.fixture
def put(tmp_path):
    """A function that unpacks bytes two levels down and returns the files by name.

    Everything that an archive leaves anywhere counts.
    """
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)

    def left():
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted((tmp_path / "outer").rglob("*"))
            if path.is_file() and path.name != ".tar"
        }

    def run(suffix, data, error=None, said=""):
        (tmp_path / f"a{suffix}").write_bytes(data)
        if error is None:
            unpack(tmp_path / f"a{suffix}", folder)
        else:
            with pytest.raises(error, match=said):
                unpack(tmp_path / f"a{suffix}", folder)
        return left()

    return run


@ANY
def test_files_arrive_and_litter_does_not(put, suffix):
    assert put(suffix, pack(suffix, PICTURES + LITTER)) == dict(PICTURES)


def test_a_zip_with_the_separators_of_windows(put):
    members = [(name.replace("/", "\\"), data) for name, data in PICTURES + LITTER]
    members += [("Set5\\HR\\", b""), ("Set5/new\\", b"")]
    assert put(".zip", pack(".zip", members)) == dict(PICTURES)


def test_folders_of_an_archive_do_no_harm(put):
    folders = [(special(n, tarfile.DIRTYPE), b"") for n in ("./", "./Set5")]
    data = pack(".tar", [*folders, ("./Set5/a.png", b"a")])
    assert put(".tar", data) == {"Set5/a.png": b"a"}


NAMES = [
    "/absolute.txt",
    "../climbs.txt",
    "a/../../climbs.txt",
    "a\\..\\..\\climbs.txt",
    "\\\\server\\share\\climbs.txt",
    "C:drive.txt",
]


@pytest.mark.parametrize("bad", NAMES)
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_names_that_lead_out_are_refused(put, suffix, bad):
    data = pack(suffix, [("good.txt", b"good"), (bad, b"evil")])
    assert put(suffix, data, InputError, "would leave the folder") == {}


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "good.txt"),
        (tarfile.LNKTYPE, "../../climbs"),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_are_refused(put, kind, target):
    members = [("good.txt", b"good"), (special("link", kind, target), b"")]
    assert put(".tgz", pack(".tgz", members), InputError, "a link or a device") == {}


def test_a_link_in_a_zip_is_refused(put):
    info = zipfile.ZipInfo("link")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert put(".zip", pack(".zip", [(info, b"/etc")]), InputError, "is a link") == {}


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_an_archive_that_swells_is_refused(put, suffix, tmp_path):
    data = pack(suffix, ZEROS)
    assert len(data) < 20_000
    put(suffix, data, InputError, "more than its size allows")
    written = [p.stat().st_size for p in (tmp_path / "outer").rglob("*") if p.is_file()]
    assert sum(written) < 2 * 2**20


@pytest.mark.parametrize("claimed", [1000, 2**32 - 1])
def test_a_zip_that_lies_about_its_files_is_refused(put, claimed):
    data, honest = pack(".zip", ZEROS), (8 * 2**20).to_bytes(4, "little")
    assert data.count(honest) == 2  # beside the file, and in the directory
    lie = data.replace(honest, claimed.to_bytes(4, "little"))
    left = put(".zip", lie, InputError, "not unpacked")
    assert sum(map(len, left.values())) <= 1000


def test_a_header_that_swells_is_refused(put):
    header = special("header", tarfile.XHDTYPE)
    header.size = 8 * 2**30 - 1
    data = gzip.compress(header.tobuf() + bytes(2**20))
    assert put(".tgz", data, InputError, "not unpacked") == {}


def test_an_encrypted_zip_is_refused(put):
    data = bytearray(pack(".zip", [("x.png", b"data")]))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert put(".zip", bytes(data), InputError, "not unpacked") == {}


@ANY
@pytest.mark.parametrize("keep", [0, 100, 700])
def test_a_cut_archive_is_refused(put, suffix, keep):
    noise = np.random.default_rng(0).bytes(20_000)
    put(suffix, pack(suffix, [("x.png", noise)])[:keep], InputError, "not unpacked")


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_a_damaged_archive_is_refused(put, suffix):
    data = bytearray(pack(suffix, [("x.png", bytes(range(256)) * 100)]))
    data[60] ^= 255
    put(suffix, bytes(data), InputError, "not unpacked")


def test_a_tar_that_is_called_tgz_is_refused(put):
    assert put(".tgz", pack(".tar", PICTURES), InputError, "not unpacked") == {}


def test_too_little_room_is_seen_before_unpacking(put, monkeypatch):
    nearly_full = SimpleNamespace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly_full)
    assert put(".tar", pack(".tar", PICTURES), OutputError, "make room") == {}
