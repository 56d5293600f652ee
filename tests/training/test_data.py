"""Training pictures: where they are found, and crops of the same place of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.errors import InputError, UsageError
from srcli.imaging.degrade import degrade
from srcli.imaging.resize import imresize
from srcli.training.data import CropSampler, choose_folders, find_pictures
from srcli.training.recipe import Recipe, make_recipe

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes."""
    rng = np.random.default_rng(3)
    for number, size in enumerate([(37, 50), (48, 41), (60, 60)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def sample(folder, color="rgb", seed=0, share=(0, 1), **fields):
    recipe = Recipe(model="mrnet", **{"crop": 5, **fields})
    paths = find_pictures([folder])
    return CropSampler(paths, recipe, color, CPU, seed=seed, share=share)


@pytest.mark.parametrize(("scale", "color"), [(2, "rgb"), (3, "y"), (4, "rgb")])
def test_lr_crops_are_reduced_hr_crops(folder, scale, color):
    drawn = sample(folder, color, 1, scales=(scale,), crop=9).draw(scale, 9)
    inner = (slice(3, -3), slice(3, -3))  # what lies beside the crop changes the rest
    levels = [(crops * 255).movedim(1, 3).numpy() for crops in drawn]
    for lr, hr in zip(*levels, strict=True):
        whole = np.rint(hr).astype(np.uint8)
        if color == "rgb":
            assert np.abs(degrade(whole, scale, "bi")[inner] - lr[inner]).max() < 1.01
        else:  # luma that was never rounded
            small = imresize(whole.astype(np.float32), 1 / scale)
            assert np.abs(small[inner] - lr[inner]).max() < 1e-3
            assert np.abs(lr - np.rint(lr)).max() > 0.01


def test_crops_reach_every_corner_in_all_eight_turns(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    _, hr = sample(tmp_path, crop=2, scales=(2,)).draw(2, 900)
    levels = (hr[:, 0] * 255).round()
    corners = set(levels.amin((1, 2)).int().tolist())
    assert corners == {y * 8 + x for y in (0, 2, 4) for x in (0, 2, 4)}
    assert len(levels.unique(dim=0)) == 8 * len(corners)


@pytest.mark.parametrize("color", ["rgb", "y"])
def test_noise_is_drawn_anew_for_every_crop_and_rounded(tmp_path, color):
    # A flat picture of one size of crop: whatever differs is noise.
    Image.fromarray(np.full((36, 36, 3), 128, np.uint8)).save(tmp_path / "flat.png")

    def draw(share):
        fields = {"crop": 12, "scales": (3,), "degradation": "dn"}
        return sample(tmp_path, color, 3, share, **fields).draw(3, 40)[0]

    lr = draw((0, 1))
    levels = lr.double() * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    # 128 as studio-range luma: 16 + 219 * 128 / 255.
    assert abs(float(levels.mean()) - (128 if color == "rgb" else 126)) < 1.5
    assert abs(float(levels.std()) - 30) < 1.5
    assert lr.unique(dim=0).shape[0] == 40
    # Two processes that share the batch see the same noise as one.
    assert torch.equal(lr[1::2], draw((1, 2)))


def test_draws_are_those_of_earlier_versions(folder):
    """So that a run which an earlier version began goes on as it would have."""
    sampler = sample(folder, seed=5, crop=6, scale_mode="all")
    drawn = [crops for n in (1, 2, 3) for crops in sampler.draw(n + 1, n)]
    levels = [round(float(crops.double().sum()) * 255) for crops in drawn]
    assert levels == [13362, 53573, 27480, 246238, 41297, 658171]
    scales = [sample(folder, seed=seed).draw_scales()[0] for seed in range(8)]
    assert scales == [4, 2, 3, 2, 4, 3, 2, 3]
    assert sampler.fingerprint == "b06d08dca8b0"


def test_scales_are_drawn_as_often_as_their_odds_say(folder):
    sampler = sample(folder, scale_odds=(1, 1, 2), rescale=(0.9, 1.0))
    assert sampler.count == 6  # with the rescaled copies
    drawn = [sampler.draw_scales()[0] for _ in range(2000)]
    for scale, share in ((2, 0.25), (3, 0.25), (4, 0.5)):
        assert drawn.count(scale) / 2000 == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("count", [1, 7])
def test_processes_share_the_crops_that_one_would_draw(folder, count):
    whole = sample(folder, seed=5).draw(3, count)
    for rank in range(3):
        own = sample(folder, seed=5, share=(rank, 3)).draw(3, count)
        assert all(torch.equal(a, b[rank::3]) for a, b in zip(own, whole, strict=True))


def test_what_is_of_no_use_is_named_and_counted(folder, caplog):
    for name in ("broken.png", ".hidden.png", "notes.txt"):
        (folder / name).write_text("no picture")
    for name in "abc":
        (folder / f"copy{name}.png").write_bytes((folder / "1.png").read_bytes())
    sampler = sample(folder, crop=20, scales=(2,))
    assert sampler.count == 3
    names = [path.stem for path in sampler.skipped]
    assert names == ["broken", "copya", "copyb", "copyc"]
    assert "broken.png" in caplog.text
    assert "copyc.png is the same picture as" in caplog.text
    assert "only 3 of 7 files are used" in caplog.text
    assert "1 of 3 pictures are too small for crops at x2: under 40" in caplog.text


def test_errors_name_the_folder_and_the_needed_size(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("nowhere", "empty"):
        with pytest.raises(InputError, match=name):
            find_pictures([tmp_path / name])
    with pytest.raises(InputError, match="80 pixels"):
        sample(folder, crop=40)
    (empty / "broken.png").write_text("no picture")
    with pytest.raises(InputError, match="none of 1 training pictures"):
        sample(empty)


def test_grey_alpha_and_16_bit_pictures_are_taken_as_8_bit_rgb(tmp_path):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    expected = torch.from_numpy(ramp).float() / 255
    rgba = np.dstack([ramp, ramp, ramp, np.full_like(ramp, 100)])
    for number, pixels in enumerate((ramp, rgba, ramp.astype(np.uint16) * 257)):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        _, hr = sample(tmp_path, crop=4, scales=(2,), augment=False).draw(2, 1)
        assert torch.equal(hr[0], expected.expand(3, 8, 8)), number


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Where downloads go; nothing is there, nor in the current folder."""
    monkeypatch.delenv("SRCLI_DATA_DIR", raising=False)
    monkeypatch.setenv("SRCLI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "datasets"


def choose(*datasets, named=(), data_dir=None, **fields):
    recipe = make_recipe({"model": "rrrn", "datasets": list(datasets), **fields})
    return choose_folders(named, recipe, data_dir)


def refuse(*datasets, **fields):
    with pytest.raises(InputError, match=r"^no training pictures: the recipe was") as e:
        choose(*datasets, **fields)
    return str(e.value)


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_the_users_folders_come_before_the_sets_that_are_found(sets, caplog):
    caplog.set_level("INFO", "srcli")
    here = Path("DIV2K/DIV2K_train_HR")
    for folder in (sets / "T91", Path("own/T91"), here):
        put(folder / "1.png")
    named = (Path("mine"), Path("yours"))
    assert choose("t91", named=named) == named
    found, deeper = choose("t91", "div2k-train", "t91")
    assert found == sets / "T91"
    assert deeper.samefile(here)
    assert f"training on t91 in {found}" in caplog.text
    assert choose("t91", data_dir=Path("own")) == (Path("own/T91"),)


def test_what_to_download_how_large_it_is_and_the_command(sets):
    # 3,530,603,713 bytes and some 20 GB
    message = refuse("div2k-train", "flickr2k")
    assert "div2k-train (3.5 GB) and flickr2k (about 20 GB), about 24 GB in" in message
    assert str(sets) in message
    assert "run `srcli download div2k-train flickr2k`, or name" in message
    # 19,619,221 + 70,763,455 bytes
    assert "(71 MB), 90 MB in all," in refuse("t91", "bsds200")
    (sets / "T91" / "empty").mkdir(parents=True)
    put(sets / "DIV2K_train_HR" / "0001.png")
    message = refuse("div2k-train", "t91")
    assert "t91 (20 MB) cannot be found" in message
    assert "(div2k-train can): run `srcli download t91`" in message
    message = refuse("t91", data_dir=Path("my sets"))
    assert "`srcli download t91 --data-dir 'my sets'`" in message


def test_what_names_no_training_set_is_refused(sets):
    message = refuse(crop=41, crop_of="hr", scales=[2, 3, 4])
    assert "`srcli train --data FOLDER`" in message
    assert "at least 44 pixels" in message  # 41, rounded up to a multiple of 4
    for name in ("set5", "div2k-valid", "mrnet"):
        with pytest.raises(UsageError, match=f"unknown training set '{name}'.*flickr"):
            choose("t91", name)
