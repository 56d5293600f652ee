"""Crops: LR and HR of the same place, turned alike, drawn repeatably."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.errors import InputError
from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.degrade import degrade
from srcli.imaging.resize import imresize
from srcli.training.data import CropSampler, find_pictures
from srcli.training.recipe import Recipe

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes, without two equal crops in them."""
    rng = np.random.default_rng(3)
    for number, size in enumerate([(37, 50), (48, 41), (60, 60)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def turned(picture):
    """The eight flips and turns of (C, H, W)."""
    for transpose, rows, columns in itertools.product((False, True), repeat=3):
        out = np.swapaxes(picture, 1, 2) if transpose else picture
        out = out[:, ::-1] if rows else out
        yield out[:, :, ::-1] if columns else out


def place_of(crop, picture, close):
    """Where the crop lies in the picture, or None."""
    size = crop.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(
        picture, (size, size), axis=(1, 2)
    )
    hits = close(windows, crop[:, None, None]).all(axis=(0, 3, 4))
    found = np.argwhere(hits)
    return tuple(found[0]) if len(found) else None


def pictures_of(folder):
    return [np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_crop_is_the_reduced_hr_crop_of_the_same_place(folder, scale):
    recipe = Recipe(model="mrnet", crop=5, scales=(scale,))
    sampler = CropSampler(find_pictures([folder]), recipe, "rgb", CPU, seed=1)
    lr, hr = sampler.draw(scale, 12)
    assert lr.shape == (12, 3, 5, 5)
    assert hr.shape == (12, 3, 5 * scale, 5 * scale)
    pairs = []
    for picture in pictures_of(folder):
        height, width = (side // scale * scale for side in picture.shape[:2])
        cut = picture[:height, :width]
        pairs.append((degrade(cut, scale, "bi").transpose(2, 0, 1), cut))
    for low, high in zip(lr, hr, strict=True):
        low, high = (np.rint(t.numpy() * 255).astype(np.uint8) for t in (low, high))
        found = None
        for (small, large), (a, b) in itertools.product(
            pairs, zip(turned(low), turned(high), strict=True)
        ):
            place = place_of(a, small, np.equal)
            if place is not None:
                y, x = (int(v) * scale for v in place)
                side = 5 * scale
                expected = large[y : y + side, x : x + side].transpose(2, 0, 1)
                found = np.array_equal(expected, b)
        assert found


def test_y_networks_get_luma_that_was_never_rounded(folder):
    recipe = Recipe(model="drrn", crop=5, scales=(2,), augment=False)
    sampler = CropSampler(find_pictures([folder]), recipe, "y", CPU)
    lr, hr = sampler.draw(2, 4)
    assert lr.shape[1] == hr.shape[1] == 1
    lumas = [
        rgb_to_y_uint8(p)[: p.shape[0] // 2 * 2, : p.shape[1] // 2 * 2]
        for p in pictures_of(folder)
    ]
    smalls = [imresize(y.astype(np.float64), 0.5)[None] for y in lumas]
    crop = lr[0].numpy() * 255
    assert np.abs(crop - np.rint(crop)).max() > 0.01
    places = [place_of(crop, s, lambda a, b: np.abs(a - b) < 1e-3) for s in smalls]
    assert any(place is not None for place in places)


def test_noise_is_drawn_anew_for_every_crop(tmp_path):
    # A flat picture of one size of crop: whatever differs is noise.
    Image.fromarray(np.full((36, 36, 3), 128, np.uint8)).save(tmp_path / "flat.png")
    recipe = Recipe(model="rrrn", crop=12, scales=(3,), degradation="dn")
    paths = find_pictures([tmp_path])

    def draw(share=(0, 1)):
        sampler = CropSampler(paths, recipe, "rgb", CPU, seed=3, share=share)
        return sampler.draw(3, 40)

    lr, hr = draw()
    levels = lr.double() * 255
    assert torch.equal(hr, torch.full_like(hr, 128 / 255))
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    # 17,280 draws: the standard error of both is under 0.25 grey levels.
    assert abs(float(levels.mean()) - 128) < 1.0
    assert abs(float(levels.std()) - 30) < 0.8
    assert lr.unique(dim=0).shape[0] == 40
    channels = levels.movedim(1, 0).reshape(3, -1)
    assert channels.corrcoef().triu(1).abs().max() < 0.06
    # Two processes that share the batch see the same noise as one.
    assert torch.equal(lr[1::2], draw((1, 2))[0])
    assert torch.equal(lr, draw()[0])


def test_noise_on_luma_is_rounded_as_files_are(tmp_path):
    Image.fromarray(np.full((36, 36, 3), 128, np.uint8)).save(tmp_path / "flat.png")
    recipe = Recipe(model="drrn", crop=12, scales=(3,), degradation="dn")
    sampler = CropSampler(find_pictures([tmp_path]), recipe, "y", CPU)
    lr, _ = sampler.draw(3, 30)
    levels = lr.double() * 255
    assert lr.shape == (30, 1, 12, 12)
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    # 128 as studio-range luma: 16 + 219 * 128 / 255.
    assert abs(float(levels.mean()) - 126) < 2.0
    assert abs(float(levels.std()) - 30) < 1.5


def test_same_seed_draws_the_same_crops_and_another_does_not(folder):
    recipe = Recipe(model="mrnet", crop=6)
    paths = find_pictures([folder])
    draws = [
        CropSampler(paths, recipe, "rgb", CPU, seed=seed).draw(2, 3)[0]
        for seed in (5, 5, 6)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_crops_reach_every_corner_of_the_picture(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    recipe = Recipe(model="mrnet", crop=2, scales=(2,), augment=False)
    sampler = CropSampler(find_pictures([tmp_path]), recipe, "rgb", CPU)
    _, hr = sampler.draw(2, 500)
    corners = set((hr[:, 0, 0, 0] * 255).round().int().tolist())
    assert corners == {y * 8 + x for y in (0, 2, 4) for x in (0, 2, 4)}


def test_unreadable_pictures_are_skipped_named_and_counted(folder, caplog):
    (folder / "broken.png").write_text("no picture")
    recipe = Recipe(model="mrnet", crop=5)
    sampler = CropSampler(find_pictures([folder]), recipe, "rgb", CPU)
    assert sampler.count == 3
    assert [path.name for path in sampler.skipped] == ["broken.png"]
    assert "broken.png" in caplog.text


def test_the_same_picture_twice_counts_once(folder, caplog):
    (folder / "sub").mkdir()
    (folder / "sub" / "copy.png").write_bytes((folder / "1.png").read_bytes())
    recipe = Recipe(model="mrnet", crop=5)
    sampler = CropSampler(find_pictures([folder]), recipe, "rgb", CPU)
    assert sampler.count == 3
    assert [path.name for path in sampler.skipped] == ["copy.png"]
    assert "copy.png is the same picture as" in caplog.text


def test_pictures_too_small_for_a_crop_are_counted(folder, caplog):
    recipe = Recipe(model="mrnet", crop=20, scales=(2,))
    CropSampler(find_pictures([folder]), recipe, "rgb", CPU)
    assert "1 of 3 pictures are too small for crops at x2: under 40" in caplog.text


def test_a_mostly_unusable_folder_is_said_to_be_one(folder, caplog):
    for number in range(4):
        (folder / f"broken{number}.png").write_text("no picture")
    recipe = Recipe(model="mrnet", crop=5)
    CropSampler(find_pictures([folder]), recipe, "rgb", CPU)
    assert "only 3 of 7 files are used" in caplog.text


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_crops_that_one_would_draw(folder, size):
    recipe = Recipe(model="mrnet", crop=6)
    paths = find_pictures([folder])
    whole = CropSampler(paths, recipe, "rgb", CPU, seed=5)
    parts = [
        CropSampler(paths, recipe, "rgb", CPU, seed=5, share=(rank, size))
        for rank in range(size)
    ]
    for _ in range(2):
        lr, hr = whole.draw(3, 7)
        for rank, part in enumerate(parts):
            own = part.draw(3, 7)
            assert torch.equal(own[0], lr[rank::size])
            assert torch.equal(own[1], hr[rank::size])


def test_errors_name_the_folder_and_the_needed_size(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        find_pictures([tmp_path / "nowhere"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="empty"):
        find_pictures([empty])
    recipe = Recipe(model="mrnet", crop=40)
    with pytest.raises(InputError, match="80 pixels"):
        CropSampler(find_pictures([folder]), recipe, "rgb", CPU)


def test_pictures_none_of_which_can_be_read_are_an_input_error(tmp_path):
    (tmp_path / "broken.png").write_text("no picture")
    recipe = Recipe(model="mrnet", crop=5)
    with pytest.raises(InputError, match="none of 1 training pictures"):
        CropSampler(find_pictures([tmp_path]), recipe, "rgb", CPU)


def test_low_resolution_and_hidden_files_are_left_out(folder):
    for name in ("X2/a.png", "LR_bicubic/X2/0x2.png", ".hidden/a.png"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes((folder / "0.png").read_bytes())
    (folder / "._0.png").write_text("what some archivers leave behind")
    (folder / "notes.txt").write_text("no picture")
    names = {str(path.relative_to(folder)) for path in find_pictures([folder])}
    assert names == {"0.png", "1.png", "2.png", "X2/a.png"}
    named = folder / "LR_bicubic" / "X2" / "0x2.png"
    assert find_pictures([named, folder / "0.png"]) == sorted([folder / "0.png", named])


def test_grey_alpha_and_16_bit_pictures_are_taken_as_8_bit_rgb(tmp_path):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    expected = torch.from_numpy(ramp).float() / 255
    rgba = np.dstack([ramp, ramp, ramp, np.full_like(ramp, 100)])
    wide = ramp.astype(np.uint16) * 257
    for number, pixels in enumerate((ramp, rgba, wide)):
        Image.fromarray(pixels).save(tmp_path / "a.png")
        recipe = Recipe(model="mrnet", crop=4, scales=(2,), augment=False)
        sampler = CropSampler(find_pictures([tmp_path]), recipe, "rgb", CPU)
        _, hr = sampler.draw(2, 1)
        assert torch.equal(hr[0], expected.expand(3, 8, 8)), number


def test_rescaled_copies_are_added(folder):
    recipe = Recipe(model="mrnet", crop=4, rescale=(0.5, 1.0))
    sampler = CropSampler(find_pictures([folder]), recipe, "rgb", CPU)
    assert sampler.count == 6


def test_scales_are_drawn_as_often_as_their_odds_say(folder):
    paths = find_pictures([folder])
    for odds, expected in (((), (1 / 3, 1 / 3, 1 / 3)), ((1, 1, 2), (0.25, 0.25, 0.5))):
        recipe = Recipe(model="mrnet", crop=4, scale_odds=odds)
        sampler = CropSampler(paths, recipe, "rgb", CPU)
        drawn = [sampler.draw_scales()[0] for _ in range(2000)]
        for scale, share in zip((2, 3, 4), expected, strict=True):
            assert drawn.count(scale) / 2000 == pytest.approx(share, abs=0.04)
