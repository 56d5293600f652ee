"""Unpacking archives that want out of their folder, or to fill the disk."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from srcli.errors import InputError, OutputError
from srcli.pretrained.archive import unpack


@pytest.fixture
def folder(tmp_path):
    """An empty folder two levels down, so that an escape shows."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    return inner


def make_tar(path, members):
    """A tar of (name, bytes) or of TarInfo."""
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def make_tgz(path, members):
    """A tgz of (name, bytes) or of TarInfo."""
    make_tar(path, members)
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return path


def make_zip(path, members):
    """A zip of (name, bytes) or of (ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".tar"
    }


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


ANY = pytest.mark.parametrize(
    ("make", "name"), [(make_tar, "a.tar"), (make_tgz, "a.tgz"), (make_zip, "a.zip")]
)
PACKED = pytest.mark.parametrize(
    ("make", "name"), [(make_tgz, "a.tgz"), (make_zip, "a.zip")]
)


@ANY
def test_files_arrive_and_litter_does_not(tmp_path, folder, make, name):
    unpack(make(tmp_path / name, PICTURES + LITTER), folder)
    assert files_below(folder) == dict(PICTURES)


def test_a_zip_with_the_separators_of_windows(tmp_path, folder):
    members = [(name.replace("/", "\\"), data) for name, data in PICTURES + LITTER]
    members += [("Set5\\HR\\", b""), ("Set5/new\\", b"")]
    unpack(make_zip(tmp_path / "a.zip", members), folder)
    assert files_below(folder) == dict(PICTURES)


def test_folders_of_an_archive_do_no_harm(tmp_path, folder):
    folders = [special("./", tarfile.DIRTYPE), special("./Set5", tarfile.DIRTYPE)]
    unpack(make_tar(tmp_path / "a.tar", [*folders, ("./Set5/a.png", b"a")]), folder)
    assert files_below(folder) == {"Set5/a.png": b"a"}


NAMES = [
    "/absolute.txt",
    "../climbs.txt",
    "a/../../climbs.txt",
    "a\\..\\..\\climbs.txt",
    "\\\\server\\share\\climbs.txt",
    "C:drive.txt",
]


@pytest.mark.parametrize("bad", NAMES)
@pytest.mark.parametrize(("make", "name"), [(make_tar, "a.tar"), (make_zip, "a.zip")])
def test_names_that_lead_out_are_refused(tmp_path, folder, make, name, bad):
    archive = make(tmp_path / name, [("good.txt", b"good"), (bad, b"evil")])
    with pytest.raises(InputError, match="would leave the folder"):
        unpack(archive, folder)
    assert files_below(tmp_path / "outer") == {}


SPECIALS = [
    special("link", tarfile.SYMTYPE, "/etc"),
    special("link", tarfile.SYMTYPE, "good.txt"),
    special("link", tarfile.LNKTYPE, "../../climbs"),
    special("device", tarfile.BLKTYPE),
    special("pipe", tarfile.FIFOTYPE),
]


@pytest.mark.parametrize("member", SPECIALS, ids=lambda info: info.linkname)
def test_links_and_devices_are_refused(tmp_path, folder, member):
    archive = make_tgz(tmp_path / "a.tgz", [("good.txt", b"good"), member])
    with pytest.raises(InputError, match="a link or a device"):
        unpack(archive, folder)
    assert files_below(folder) == {}


def test_a_link_in_a_zip_is_refused(tmp_path, folder):
    info = zipfile.ZipInfo("link")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InputError, match="is a link"):
        unpack(make_zip(tmp_path / "a.zip", [(info, b"/etc")]), folder)
    assert list(folder.iterdir()) == []


@PACKED
def test_an_archive_that_swells_is_refused(tmp_path, folder, make, name):
    archive = make(tmp_path / name, [("zeros.png", bytes(8 * 2**20))])
    assert archive.stat().st_size < 20_000
    with pytest.raises(InputError, match="more than its size allows"):
        unpack(archive, folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2 * 2**20


@pytest.mark.parametrize("claimed", [1000, 2**32 - 1])
def test_a_zip_that_lies_about_its_files_is_refused(tmp_path, folder, claimed):
    archive = make_zip(tmp_path / "a.zip", [("zeros.png", bytes(8 * 2**20))])
    honest = (8 * 2**20).to_bytes(4, "little")
    data = archive.read_bytes()
    assert data.count(honest) == 2  # beside the file, and in the directory
    archive.write_bytes(data.replace(honest, claimed.to_bytes(4, "little")))
    with pytest.raises(InputError, match="not unpacked"):
        unpack(archive, folder)
    assert sum(map(len, files_below(folder).values())) <= 1000


def test_a_header_that_swells_is_refused_before_it_is_read(tmp_path, folder):
    header = special("header", tarfile.XHDTYPE)
    header.size = 8 * 2**30 - 1
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header.tobuf() + bytes(2**20)))
    with pytest.raises(InputError, match="not unpacked"):
        unpack(tmp_path / "a.tgz", folder)


def test_an_encrypted_zip_is_refused(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [("x.png", b"data")])
    data = bytearray(archive.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[directory + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match="not unpacked"):
        unpack(archive, folder)


@ANY
@pytest.mark.parametrize("keep", [0, 100, 700])
def test_a_cut_archive_is_refused(tmp_path, folder, make, name, keep):
    noise = np.random.default_rng(0).bytes(20_000)
    archive = make(tmp_path / name, [("x.png", noise)])
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(InputError, match="not unpacked"):
        unpack(archive, folder)


@PACKED
def test_a_damaged_archive_is_refused(tmp_path, folder, make, name):
    archive = make(tmp_path / name, [("x.png", bytes(range(256)) * 100)])
    data = bytearray(archive.read_bytes())
    data[60] ^= 255
    archive.write_bytes(data)
    with pytest.raises(InputError, match="not unpacked"):
        unpack(archive, folder)


def test_a_tar_that_is_called_tgz_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match="not unpacked"):
        unpack(make_tar(tmp_path / "a.tgz", PICTURES), folder)
    assert files_below(folder) == {}


def test_too_little_room_is_seen_before_unpacking(tmp_path, folder, monkeypatch):
    archive = make_tar(tmp_path / "a.tar", PICTURES)
    nearly_full = SimpleNamespace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly_full)
    with pytest.raises(OutputError, match="make room"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []
