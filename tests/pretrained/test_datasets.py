"""Data sets: the names, the folder shapes people have, the pictures in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.errors import InputError, UsageError
from srcli.pretrained.datasets import (
    data_folders,
    find_dataset,
    label_pictures,
    read_hr,
)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path_factory):
    """No data set of this machine is found by chance."""
    monkeypatch.delenv("SRCLI_DATA_DIR", raising=False)
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def chosen(root: Path, name: str, scale: int) -> list[str]:
    dataset = find_dataset(name, root)
    return [path.relative_to(root).as_posix() for path in dataset.pictures(scale)]


@pytest.mark.parametrize(
    ("asked", "folder", "name"),
    [
        ("set5", "Set5", "set5"),
        ("SET5", "set5", "set5"),
        ("BSD100", "B100", "b100"),
        ("b100", "BSDS100", "b100"),
        ("Urban100", "urban100", "urban100"),
        ("DIV2K_valid_HR", "DIV2K_valid_HR", "div2k-valid"),
        ("div2k-valid", "DIV2K/DIV2K_valid_HR", "div2k-valid"),
        ("Manga109", "benchmark/Manga109", "manga109"),
    ],
)
def test_sets_are_found_under_the_names_in_use(tmp_path, asked, folder, name):
    touch(tmp_path, f"{folder}/a.png")
    assert find_dataset(asked, tmp_path).name == name
    assert chosen(tmp_path, asked, 2) == [f"{folder}/a.png"]


LAYOUTS = {
    "loose": (["Set5/b.png", "Set5/A.bmp", "Set5/readme.txt"], 2, ["A.bmp", "b.png"]),
    "hr-and-lr": (
        ["Set5/HR/a.png", "Set5/LR_bicubic/X2/ax2.png", "Set5/LR/a.png"],
        2,
        ["HR/a.png"],
    ),
    "selfexsr": (
        [
            "Set5/image_SRF_2/img_001_SRF_2_HR.png",
            "Set5/image_SRF_2/img_001_SRF_2_LR.png",
            "Set5/image_SRF_2/img_001_SRF_2_bicubic.png",
            "Set5/image_SRF_4/img_001_SRF_4_HR.png",
        ],
        4,
        ["image_SRF_4/img_001_SRF_4_HR.png"],
    ),
    "selfexsr-other-scale": (
        [
            "Set5/image_SRF_4/img_001_SRF_4_HR.png",
            "Set5/image_SRF_2/img_001_SRF_2_HR.png",
        ],
        3,
        ["image_SRF_2/img_001_SRF_2_HR.png"],
    ),
    "both": (
        ["Set5/image_SRF_2/img_001_SRF_2_HR.png", "Set5/HR/img_001.png"],
        2,
        ["HR/img_001.png"],
    ),
    "whole-beside-scales": (
        ["Set5/image_SRF_2/img_001_SRF_2_HR.png", "Set5/img_001.png"],
        2,
        ["img_001.png"],
    ),
    "cropped-and-original": (
        ["Set5/GTmod12/a.png", "Set5/original/a.png", "Set5/LRbicx2/a.png"],
        2,
        ["original/a.png"],
    ),
    "one-folder-a-scale": (
        ["Set5/HR/x2/a_HR_x2.png", "Set5/HR/x3/a_HR_x3.png"],
        3,
        ["HR/x3/a_HR_x3.png"],
    ),
    "hidden": (["Set5/a.png", "Set5/._a.png", "Set5/.thumbs/a.png"], 2, ["a.png"]),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_hr_picture_is_taken_once(tmp_path, layout):
    files, scale, expected = layout
    touch(tmp_path, *files)
    found = [path.removeprefix("Set5/") for path in chosen(tmp_path, "set5", scale)]
    assert found == expected


def test_hr_folder_above_the_set(tmp_path):
    touch(tmp_path, "LR/LRBI/Set5/x2/a_LRBI_x2.png", "HR/Set5/x2/a_HR_x2.png")
    assert chosen(tmp_path, "set5", 2) == ["HR/Set5/x2/a_HR_x2.png"]


def test_other_scale_is_announced(tmp_path, caplog):
    touch(tmp_path, "Urban100/image_SRF_4/img_001_SRF_4_HR.png")
    find_dataset("urban100", tmp_path).pictures(3)
    assert "no HR pictures for x3" in caplog.text


def test_sets_lie_where_the_user_says_else_in_the_usual_places(tmp_path, monkeypatch):
    given = touch(tmp_path / "given", "Set5/given.png")
    named = touch(tmp_path / "named", "Set5/named.png", "Set14/named.png")
    monkeypatch.setenv("SRCLI_DATA_DIR", str(named))
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path))
    touch(tmp_path, "datasets/benchmark/B100/HR/cached.png")
    touch(Path(), "Urban100/current.png")
    assert data_folders() == [named, tmp_path / "datasets"]
    assert data_folders(given) == [given]
    names = ("set5", "set14", "b100", "urban100")
    found = [find_dataset(name).pictures(2)[0].stem for name in names]
    assert found == ["named", "named", "cached", "current"]
    assert find_dataset("set5", given).pictures(2)[0].name == "given.png"
    with pytest.raises(InputError, match="correct --data-dir"):
        find_dataset("set14", given)
    with pytest.raises(InputError, match="does not exist"):
        find_dataset("set5", tmp_path / "nowhere")


def test_missing_set_names_the_folders_and_the_download(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCLI_DATA_DIR", str(touch(tmp_path, "Set14/LR/a.png")))
    with pytest.raises(InputError, match="srcli download set14") as caught:
        find_dataset("set14")
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(UsageError, match="did you mean urban100"):
        find_dataset("urban10")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("My Pictures", "my pictures"),
        ("BSD100", "b100"),
        ("Holiday/HR", "holiday"),
        ("Urban100/image_SRF_2", "urban100"),
        ("Holiday/HR/x4", "holiday"),
    ],
)
def test_folder_of_pictures(tmp_path, folder, name):
    touch(tmp_path, f"{folder}/sub/b.png", f"{folder}/a.JPG")
    dataset = find_dataset(str(tmp_path / folder))
    assert dataset.name == name
    assert [path.name for path in dataset.pictures(2)] == ["a.JPG", "b.png"]


@pytest.mark.parametrize(
    ("inside", "typed", "name"),
    [
        ("project", "hr", "hr"),
        ("project", "./HR/x4", "x4"),
        ("Set5", "HR", "set5"),
        ("", "project/hr", "project"),
        ("project/hr", ".", "project"),
    ],
)
def test_a_part_folder_is_called_as_it_was_typed(
    tmp_path, monkeypatch, inside, typed, name
):
    here = tmp_path / inside
    (here / typed).mkdir(parents=True)
    monkeypatch.chdir(here)
    assert find_dataset(typed).name == name


def test_what_is_no_folder_of_pictures(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match="no HR picture in"):
        find_dataset(str(tmp_path)).pictures(2)
    with pytest.raises(InputError, match="is a file"):
        find_dataset(str(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="does not exist"):
        find_dataset(str(tmp_path / "nowhere"))


def test_folder_that_links_to_itself(tmp_path):
    touch(tmp_path, "set/a.png")
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    assert len(find_dataset(str(tmp_path / "set")).pictures(2)) == 1


def test_pictures_are_read_as_they_are_measured(tmp_path, picture):
    rgb = picture(10, 12)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(rgb[:, :, 0]).save(tmp_path / "grey.png")
    opaque = np.dstack((rgb, np.full(rgb.shape[:2], 255, np.uint8)))
    Image.fromarray(opaque).save(tmp_path / "rgba.png")
    deep = rgb[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_hr(tmp_path / "rgb.png"), rgb)
    np.testing.assert_array_equal(read_hr(tmp_path / "grey.png"), rgb[:, :, 0])
    np.testing.assert_array_equal(read_hr(tmp_path / "rgba.png"), rgb)
    np.testing.assert_array_equal(read_hr(tmp_path / "deep.png"), rgb[:, :, 0])


def test_labels_differ(tmp_path):
    plain = (tmp_path / "a.png", tmp_path / "b.png")
    assert label_pictures(plain, tmp_path) == ("a", "b")
    twins = (tmp_path / "x" / "a.png", tmp_path / "y" / "A.png")
    assert label_pictures(twins, tmp_path) == ("x_a.png", "y_A.png")
