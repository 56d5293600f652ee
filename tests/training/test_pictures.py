"""Which pictures a run trains on, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from srcli.errors import InputError, UsageError
from srcli.training.data import choose_folders, find_pictures
from srcli.training.recipe import make_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where downloads go; nothing is there, nor in the current folder."""
    monkeypatch.delenv("SRCLI_DATA_DIR", raising=False)
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache" / "datasets"


def make(*datasets, **fields):
    values = {"model": "rrrn", "data": "DIV2K and Flickr2K", "datasets": datasets}
    return make_recipe({**values, "datasets": list(datasets), **fields})


def put(folder, *names):
    """Small pictures in a folder, made with those above."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return folder


def refuse(recipe, data_dir=None):
    """The one line that is said."""
    with pytest.raises(InputError) as caught:
        choose_folders((), recipe, data_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_users_folders_come_first(cache):
    put(cache / "T91", "t1.png")
    named = (Path("mine"), Path("yours"))
    assert choose_folders(named, make("t91"), None) == named
    assert choose_folders(named, make(), None) == named


def test_installed_sets_are_found_and_named(cache, caplog):
    caplog.set_level("INFO", "srcli")
    put(cache / "T91", "t1.bmp")
    put(cache / "BSDS200", "100075.jpg")
    folders = choose_folders((), make("t91", "bsds200"), None)
    assert folders == (cache / "T91", cache / "BSDS200")
    assert f"training on t91 in {cache / 'T91'}" in caplog.text
    assert f"training on bsds200 in {cache / 'BSDS200'}" in caplog.text


def test_what_to_download_how_large_it_is_and_the_command(cache):
    message = refuse(make("div2k-train", "flickr2k"))
    assert message.startswith("no training pictures: ")
    assert "made for DIV2K and Flickr2K" in message
    # 3,530,603,713 bytes and some 20 GB
    assert "div2k-train (3.5 GB) and flickr2k (about 20 GB), about 24 GB in" in message
    assert str(cache) in message
    assert "run `srcli download div2k-train flickr2k`, or name" in message
    assert "--data FOLDER" in message


def test_one_missing_set_has_no_sum():
    message = refuse(make("t91"))
    assert "t91 (20 MB) cannot be found" in message
    assert "in all" not in message
    assert "run `srcli download t91`" in message


def test_exact_sizes_have_an_exact_sum():
    # 19,619,221 + 70,763,455 bytes
    assert "(71 MB), 90 MB in all," in refuse(make("t91", "bsds200"))


def test_only_what_is_missing_has_to_be_downloaded(cache):
    put(cache / "DIV2K_train_HR", "0001.png")
    message = refuse(make("div2k-train", "flickr2k"))
    assert "run `srcli download flickr2k`" in message
    assert "(div2k-train can)" in message
    assert "3.5 GB" not in message


def test_a_set_without_pictures_is_missing(cache):
    (cache / "T91" / "empty").mkdir(parents=True)
    (cache / "T91" / "readme.txt").write_text("no picture")
    assert "srcli download t91" in refuse(make("t91"))


def test_the_data_folder_is_looked_in_alone_and_is_in_the_command(cache, tmp_path):
    put(cache / "T91", "t1.png")
    chosen = tmp_path / "my sets"
    message = refuse(make("t91"), chosen)
    assert f"run `srcli download t91 --data-dir '{chosen}'`" in message
    assert str(cache) not in message
    put(chosen / "T91", "t1.png")
    assert choose_folders((), make("t91"), chosen) == (chosen / "T91",)


def test_the_variable_comes_before_the_cache(cache, tmp_path, monkeypatch):
    put(cache / "T91", "t1.png")
    put(cache / "BSDS200", "100075.png")
    put(tmp_path / "own" / "T91", "t1.png")
    monkeypatch.setenv("SRCLI_DATA_DIR", str(tmp_path / "own"))
    folders = choose_folders((), make("t91", "bsds200"), None)
    assert folders == (tmp_path / "own" / "T91", cache / "BSDS200")


@pytest.mark.parametrize("place", [".", "DIV2K"])
def test_a_set_may_lie_one_folder_deeper_or_in_the_current_folder(place):
    put(Path(place) / "DIV2K_train_HR", "0001.png")
    (found,) = choose_folders((), make("div2k-train"), None)
    assert found.samefile(Path(place) / "DIV2K_train_HR")


def test_lr_pictures_of_the_archives_are_left_out(cache):
    put(
        cache / "Flickr2K",
        "Flickr2K_HR/000001.png",
        "Flickr2K_LR_bicubic/X2/000001x2.png",
        "Flickr2K_LR_unknown/X4/000001x4.png",
    )
    put(cache / "DIV2K_train_HR", "0001.png")
    put(cache / "DIV2K_train_LR_bicubic", "X2/0001x2.png")
    folders = choose_folders((), make("flickr2k", "div2k-train"), None)
    found = [path.relative_to(cache).as_posix() for path in find_pictures(folders)]
    assert found == ["DIV2K_train_HR/0001.png", "Flickr2K/Flickr2K_HR/000001.png"]


def test_a_recipe_without_sets_says_what_the_folder_needs():
    message = refuse(make(crop=41, crop_of="hr", scales=[2, 3, 4]))
    assert "made for DIV2K and Flickr2K" in message
    assert "`srcli train --data FOLDER`" in message
    assert "at least 44 pixels" in message  # 41, rounded up to a multiple of 4
    assert "srcli download --list" in message


@pytest.mark.parametrize("name", ["b100", "set5", "div2k-valid", "manga109", "mrnet"])
def test_sets_that_are_measured_on_are_refused(name):
    with pytest.raises(UsageError, match=f"unknown training set '{name}'.*flickr2k"):
        choose_folders((), make("t91", name), None)


def test_a_set_that_is_named_twice_is_taken_once(cache):
    put(cache / "T91", "t1.png")
    assert choose_folders((), make("t91", "t91"), None) == (cache / "T91",)
