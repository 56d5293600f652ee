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


def zip_link(name):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def files_below(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
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


def test_a_zip_with_the_separators_of_windows(tmp_path, folder):
    members = [(name.replace("/", "\\"), data) for name, data in PICTURES + LITTER]
    members += [("Set5\\HR\\", b""), ("Set5/new\\", b"")]
    unpack(make_zip(tmp_path / "a.zip", members), folder)
    assert files_below(folder) == dict(PICTURES)


def test_a_name_that_no_file_can_have_is_seen_before_unpacking(tmp_path, folder):
    members = [*PICTURES, ("Set5/" + "n" * 300, b"x")]
    with pytest.raises(OutputError, match="its name is too long"):
        unpack(make_tar(tmp_path / "a.tar", members), folder)
    assert list(folder.iterdir()) == []


@ANY
def test_files_arrive_and_litter_does_not(tmp_path, folder, make, name):
    unpack(make(tmp_path / name, PICTURES + LITTER), folder)
    assert files_below(folder) == dict(PICTURES)


def test_folders_of_an_archive_do_no_harm(tmp_path, folder):
    folders = [special("./", tarfile.DIRTYPE), special("./Set5", tarfile.DIRTYPE)]
    unpack(make_tar(tmp_path / "a.tar", [*folders, ("./Set5/a.png", b"a")]), folder)
    assert files_below(folder) == {"Set5/a.png": b"a"}


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path, folder):
    inner = make_zip(tmp_path / "inner.zip", [("evil.txt", b"x")]).read_bytes()
    unpack(make_tar(tmp_path / "a.tar", [("inner.zip", inner)]), folder)
    assert files_below(folder) == {"inner.zip": inner}


NAMES = [
    "/absolute.txt",
    "../climbs.txt",
    "a/../../climbs.txt",
    "a\\..\\..\\climbs.txt",
    "a/..\\../climbs.txt",
    "\\\\server\\share\\climbs.txt",
    "\\absolute.txt",
    "C:\\drive.txt",
    "C:drive.txt",
    "a/stream.txt:hidden",
    "line\nbreak.txt",
]


@pytest.mark.parametrize("bad", NAMES)
@ANY
def test_names_that_lead_out_are_refused(tmp_path, folder, make, name, bad):
    archive = make(tmp_path / name, [("good.txt", b"good"), (bad, b"evil")])
    with pytest.raises(InputError, match="would leave the folder"):
        unpack(archive, folder)
    assert files_below(tmp_path / "outer") == {}


SPECIALS = [
    special("link", tarfile.SYMTYPE, "../../climbs"),
    special("link", tarfile.SYMTYPE, "/etc"),
    special("link", tarfile.SYMTYPE, "good.txt"),
    special("link", tarfile.LNKTYPE, "../../climbs"),
    special("link", tarfile.LNKTYPE, "good.txt"),
    special("device", tarfile.CHRTYPE),
    special("device", tarfile.BLKTYPE),
    special("pipe", tarfile.FIFOTYPE),
]


@pytest.mark.parametrize("member", SPECIALS, ids=lambda info: info.linkname)
@pytest.mark.parametrize(("make", "name"), [(make_tar, "a.tar"), (make_tgz, "a.tgz")])
def test_links_and_devices_are_refused(tmp_path, folder, member, make, name):
    archive = make(tmp_path / name, [("good.txt", b"good"), member])
    with pytest.raises(InputError, match="a link, a device"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [(zip_link("link"), b"/etc")])
    with pytest.raises(InputError, match="a link or a device"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "name", "second"),
    [
        (make_tar, "a.tar", "a/x.png"),
        (make_tar, "a.tar", "./a/x.png"),
        (make_tar, "a.tar", "A/X.png"),
        (make_zip, "a.zip", "a\\x.png"),
    ],
)
def test_one_name_twice_is_refused(tmp_path, folder, make, name, second):
    members = [("a/x.png", b"1"), (second, b"2")]
    with pytest.raises(InputError, match="twice"):
        unpack(make(tmp_path / name, members), folder)
    assert list(folder.iterdir()) == []


def test_a_file_that_is_also_a_folder_is_refused(tmp_path, folder):
    members = [("a", b"1"), ("a/b", b"2")]
    with pytest.raises(InputError, match="a file and a folder"):
        unpack(make_tar(tmp_path / "a.tar", members), folder)


def test_a_file_without_a_name_is_refused(tmp_path, folder):
    with pytest.raises(InputError):
        unpack(make_tar(tmp_path / "a.tar", [(".", b"1")]), folder)


@pytest.mark.parametrize(("make", "name"), [(make_tgz, "a.tgz"), (make_zip, "a.zip")])
def test_an_archive_that_swells_is_refused(tmp_path, folder, make, name):
    archive = make(tmp_path / name, [("zeros.png", bytes(8 * 2**20))])
    assert archive.stat().st_size < 20_000
    with pytest.raises(InputError, match="more than its size allows"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []


def test_a_header_that_swells_is_refused_before_it_is_read(tmp_path, folder):
    header = special("header", tarfile.XHDTYPE)
    header.size = 8 * 2**30 - 1
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header.tobuf() + bytes(2**20)))
    with pytest.raises(InputError, match="more than its size allows"):
        unpack(tmp_path / "a.tgz", folder)


def test_a_zip_that_understates_its_files_is_refused(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [("zeros.png", bytes(8 * 2**20))])
    honest = (8 * 2**20).to_bytes(4, "little")
    data = archive.read_bytes()
    assert data.count(honest) == 2  # beside the file, and in the directory
    archive.write_bytes(data.replace(honest, (1000).to_bytes(4, "little")))
    with pytest.raises(InputError, match="not unpacked"):
        unpack(archive, folder)
    assert sum(map(len, files_below(folder).values())) <= 1000


def test_a_zip_that_overstates_its_files_is_refused(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [("x.png", b"abcd" * 1250)])
    honest = (5000).to_bytes(4, "little")
    data = archive.read_bytes()
    assert data.count(honest) == 2
    archive.write_bytes(data.replace(honest, (9000).to_bytes(4, "little")))
    with pytest.raises(InputError, match="cut off"):
        unpack(archive, folder)


def test_a_sparse_file_is_refused(tmp_path, folder):
    info = special("sparse.png", tarfile.GNUTYPE_SPARSE)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(InputError, match="sparse"):
        unpack(tmp_path / "a.tar", folder)


def test_an_encrypted_zip_is_refused(tmp_path, folder):
    archive = make_zip(tmp_path / "a.zip", [("x.png", b"data")])
    data = bytearray(archive.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[6] |= 1
    data[directory + 8] |= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match="unusual"):
        unpack(archive, folder)


@ANY
@pytest.mark.parametrize("keep", [0, 100, 700])
def test_a_cut_archive_is_refused(tmp_path, folder, make, name, keep):
    noise = np.random.default_rng(0).bytes(20_000)
    archive = make(tmp_path / name, [("x.png", noise)])
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(InputError, match="not unpacked"):
        unpack(archive, folder)


@pytest.mark.parametrize(("make", "name"), [(make_tgz, "a.tgz"), (make_zip, "a.zip")])
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
    assert list(folder.iterdir()) == []


def test_too_little_room_is_seen_before_unpacking(tmp_path, folder, monkeypatch):
    archive = make_tar(tmp_path / "a.tar", PICTURES)
    nearly_full = SimpleNamespace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: nearly_full)
    with pytest.raises(OutputError, match="make room"):
        unpack(archive, folder)
    assert list(folder.iterdir()) == []
