"""Teachers: whose pictures are learned, where they are kept, what is refused."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from srcli.errors import OutputError, UsageError
from srcli.imaging.color import rgb_to_y_uint8
from srcli.imaging.degrade import crop_to_multiple, degrade
from srcli.imaging.resize import imresize
from srcli.inference.runner import Runner
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.mrnet import MRNet, MRNetConfig
from srcli.pretrained.loading import load_model
from srcli.pretrained.weight_file import read_metadata, save_weights, sha256_of
from srcli.training import teacher as teacher_module
from srcli.training.checkpoint import TrainRequest, load_checkpoint
from srcli.training.data import CropSampler, find_pictures
from srcli.training.distributed import World
from srcli.training.recipe import Recipe
from srcli.training.run import train
from srcli.training.teacher import Teachers, choose_detailed

CPU = torch.device("cpu")
CONFIG = {"width": 4, "blocks": 1}


@pytest.fixture
def teacher(tmp_path):
    """A weight file of a small network on RGB, for x2 and x3."""
    network = MRNet(MRNetConfig(scales=(2, 3), width=4, blocks=1))
    save_weights(network, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


@pytest.fixture
def luma_teacher(tmp_path):
    """A weight file of a small network on luma."""
    network = DRRN(DRRNConfig(scales=(2,), width=4, units=1))
    save_weights(network, tmp_path / "luma.safetensors")
    return tmp_path / "luma.safetensors"


@pytest.fixture
def square(tmp_path, picture):
    """A folder with one picture that is just one crop of 20x20 LR pixels at x2."""
    folder = tmp_path / "square"
    folder.mkdir()
    Image.fromarray(picture(40, 40)).save(folder / "a.png")
    return folder


def sampler_of(folder, tmp_path, *weights, color="rgb", scale=2, seed=1, **fields):
    recipe = Recipe(
        model="mrnet" if color == "rgb" else "drrn",
        scales=(scale,), crop=40 // scale, augment=False, **fields,
    )  # fmt: skip
    teachers = Teachers(weights, recipe, color, CPU, cache=tmp_path / "cache")
    return CropSampler(
        find_pictures([folder]), recipe, color, CPU, seed=seed, teachers=teachers
    )


def enlarged(weights, lr, scale=2):
    """What the network itself makes of (h, w, C) in [0, 255], rounded."""
    with torch.no_grad():
        planes = torch.from_numpy(lr.astype(np.float32) / 255).permute(2, 0, 1)
        sr = load_model(weights, scale)(planes[None], scale)[0]
    levels = np.floor(sr.permute(1, 2, 0).double().numpy() * 255 + 0.5)
    return levels.clip(0, 255).astype(np.uint8)


def picture_of(crops):
    return np.rint(crops[0].permute(1, 2, 0).numpy() * 255)


def test_the_loss_is_taken_to_the_teachers_picture(square, tmp_path, teacher):
    hr = np.asarray(Image.open(square / "a.png"))
    sampler = sampler_of(square, tmp_path, teacher)
    lr, target = sampler.draw(2, 1)
    small = degrade(hr, 2, "bi")
    assert np.array_equal(picture_of(lr), small)
    # One rounding at a tie apart.
    assert np.abs(picture_of(target) - enlarged(teacher, small)).max() <= 1
    assert np.abs(picture_of(target) - hr).max() > 10


@pytest.mark.parametrize("kind", ["bd", "dn"])
def test_teachers_get_neither_the_blur_nor_the_noise(square, tmp_path, teacher, kind):
    sampler = sampler_of(square, tmp_path, teacher, scale=3, degradation=kind)
    lr, target = sampler.draw(3, 1)
    hr = crop_to_multiple(np.asarray(Image.open(square / "a.png")), 3)
    small = degrade(hr, 3, "bi")
    taught = enlarged(teacher, small, 3)
    assert np.abs(picture_of(target) - taught).max() <= 1
    off = picture_of(lr).astype(float) - small
    assert off.std() > (20 if kind == "dn" else 2)


def test_share_mixes_teacher_and_original(square, tmp_path, teacher):
    hr = np.asarray(Image.open(square / "a.png")).astype(float)
    _, taught = sampler_of(square, tmp_path, teacher).draw(2, 1)
    for share in (0.0, 0.25):
        sampler = sampler_of(square, tmp_path, teacher, teacher_share=share)
        _, target = sampler.draw(2, 1)
        mixed = share * taught[0].permute(1, 2, 0).numpy() + (1 - share) * hr / 255
        np.testing.assert_allclose(target[0].permute(1, 2, 0), mixed, atol=1e-6)


def test_luma_networks_take_the_luma_of_a_teacher_on_rgb(square, tmp_path, teacher):
    hr = np.asarray(Image.open(square / "a.png"))
    lr, target = sampler_of(square, tmp_path, teacher, color="y").draw(2, 1)
    luma = rgb_to_y_uint8(hr)[:, :, None]
    small = imresize(luma.astype(np.float32), 0.5)  # not rounded, as without a teacher
    np.testing.assert_allclose(lr[0].permute(1, 2, 0) * 255, small, atol=1e-3)
    taught = rgb_to_y_uint8(enlarged(teacher, degrade(hr, 2, "bi")))
    assert np.abs(picture_of(target)[:, :, 0] - taught).max() <= 1


def test_luma_networks_take_what_a_teacher_on_luma_makes(
    square, tmp_path, luma_teacher
):
    hr = np.asarray(Image.open(square / "a.png"))
    lr, target = sampler_of(square, tmp_path, luma_teacher, color="y").draw(2, 1)
    small = lr[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(picture_of(target) - enlarged(luma_teacher, small)).max() <= 1
    assert np.abs(picture_of(target) - rgb_to_y_uint8(hr)[:, :, None]).max() > 10


def turned(crop):
    """The eight flips and turns of (C, H, W)."""
    for transposed in (crop, crop.mT):
        for axes in ((), (1,), (2,), (1, 2)):
            yield transposed.flip(axes)


def test_crops_with_flips_and_turns_are_of_the_same_place(tmp_path, teacher):
    rng = np.random.default_rng(3)
    hr = rng.integers(0, 256, (36, 48, 3), dtype=np.uint8)
    (tmp_path / "one").mkdir()
    Image.fromarray(hr).save(tmp_path / "one" / "a.png")
    recipe = Recipe(model="mrnet", scales=(2, 3), crop=5)
    teachers = Teachers([teacher], recipe, "rgb", CPU, cache=tmp_path / "cache")
    paths = find_pictures([tmp_path / "one"])
    sampler = CropSampler(paths, recipe, "rgb", CPU, seed=4, teachers=teachers)
    for scale in (2, 3):
        small = degrade(hr, scale, "bi")
        whole = torch.from_numpy(enlarged(teacher, small, scale)).permute(2, 0, 1)
        places = torch.from_numpy(small.copy()).permute(2, 0, 1).float()
        places = places.unfold(1, 5, 1).unfold(2, 5, 1)
        for lr, target in zip(*sampler.draw(scale, 12), strict=True):
            pairs = list(zip(turned(lr * 255), turned(target * 255), strict=True))
            gaps = []
            for low, high in pairs:
                same = (places - low[:, None, None]).abs().amax((0, 3, 4)) < 1e-3
                for top, left in same.nonzero().tolist():
                    rows = slice(top * scale, (top + 5) * scale)
                    columns = slice(left * scale, (left + 5) * scale)
                    gap = (whole[:, rows, columns] - high).abs().max()
                    gaps.append(float(gap))
            assert min(gaps) < 1.01


def test_pictures_are_made_once(square, tmp_path, teacher, monkeypatch):
    _, first = sampler_of(square, tmp_path, teacher).draw(2, 1)
    kept = list((tmp_path / "cache").rglob("*.npy"))
    assert len(kept) == 1
    enlarge = Runner.enlarge
    made = []
    monkeypatch.setattr(
        Runner, "enlarge", lambda self, lr: made.append(1) or enlarge(self, lr)
    )
    _, again = sampler_of(square, tmp_path, teacher).draw(2, 1)
    assert torch.equal(again, first)
    assert not made
    # One that is damaged is made anew, and so is one of another teacher or scale.
    kept[0].write_bytes(kept[0].read_bytes()[:-100])
    _, again = sampler_of(square, tmp_path, teacher).draw(2, 1)
    assert torch.equal(again, first)
    assert made
    assert list((tmp_path / "cache").rglob("*.npy")) == kept
    network = load_model(teacher)
    with torch.no_grad():
        next(network.parameters()).mul_(0.5)
    save_weights(network, tmp_path / "other.safetensors")
    _, other = sampler_of(square, tmp_path, tmp_path / "other.safetensors").draw(2, 1)
    assert not torch.equal(other, first)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def detailed(pictures, megapixels, crop=8):
    recipe = Recipe(
        model="mrnet", scales=(4,), crop=crop, teacher_megapixels=megapixels
    )
    return choose_detailed(pictures, recipe)


def test_the_most_detailed_parts_are_taken():
    rng = np.random.default_rng(1)
    side = 192
    calm = np.full((2 * side, 2 * side, 3), 90, np.uint8)
    half = calm.copy()
    half[side:] = rng.integers(0, 256, (side, 2 * side, 3))
    noisy = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    one = side * side / 1e6
    assert len(detailed([calm, half], 1.0)) == 2  # all, whole
    # Each picture gives one part before any gives a second one.
    chosen = detailed([calm, half, noisy], 3 * one)
    assert sorted(part.std() > 10 for part in chosen) == [False, True, True]
    chosen = detailed([calm, half, noisy], 4 * one)
    assert [part.std() > 10 for part in chosen] == [True, True, False, True]
    fewer = detailed([calm, half, noisy], 2 * one)
    assert all(np.array_equal(a, b) for a, b in zip(fewer, chosen, strict=False))


def test_a_cache_that_cannot_be_written_is_told(tmp_path, teacher, pictures):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(OutputError):
        sampler_of(pictures, tmp_path, teacher)


def test_what_cannot_be_taught_is_refused(tmp_path, teacher, luma_teacher, save_rrrn):
    save_rrrn(tmp_path / "noise.safetensors", 3, "dn")
    for scales, files, fields, said in (
        ((2, 4), ["teacher"], {}, "no teacher for x4"),
        ((2,), ["teacher", "teacher"], {}, "both teach x2"),
        ((2,), ["luma"], {}, "enlarges luma alone"),
        ((3,), ["noise"], {}, "is for degradation dn"),
    ):
        recipe = Recipe(model="mrnet", scales=scales, **fields)
        paths = [tmp_path / f"{name}.safetensors" for name in files]
        with pytest.raises(UsageError, match=said):
            Teachers(paths, recipe, "rgb", CPU)


@pytest.fixture
def request_of(request_of, tmp_path, teacher):
    overrides = {"config": CONFIG, "crop": 8, "batch": 2, "steps": 4}
    return partial(
        request_of, scales=(2, 3), overrides=overrides,
        teachers=(teacher,), teacher_cache=tmp_path / "cache",
    )  # fmt: skip


def weights_of(folder):
    return load_checkpoint(folder)["model"]


def test_resume_is_exact_and_needs_no_teacher_named(request_of, tmp_path):
    train(request_of(out=tmp_path / "whole"))
    stopped = request_of(out=tmp_path / "stopped", max_minutes=1e-9)
    train(stopped)
    assert load_checkpoint(stopped.out)["step"] < 4
    # Also without what was kept: the same pictures are made again.
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.unlink()
    train(TrainRequest(model="mrnet", out=stopped.out, resume=True, device="cpu"))
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(stopped.out)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_another_teacher_on_resume_is_pointed_out(request_of, tmp_path, caplog):
    first = request_of(max_minutes=1e-9)
    train(first)
    network = MRNet(MRNetConfig(scales=(2, 3), width=4, blocks=1))
    save_weights(network, tmp_path / "new.safetensors")
    train(dataclasses.replace(
        first, resume=True, max_minutes=None, scales=(), overrides={},
        teachers=(tmp_path / "new.safetensors",),
    ))  # fmt: skip
    assert "are not those of the checkpoint" in caplog.text
    said = json.loads(read_metadata(first.out / "last.safetensors")["teachers"])
    assert [each["file"] for each in said] == ["teacher.safetensors", "new.safetensors"]


def test_teacher_hash_and_terms_go_with_the_weights(
    run, tmp_path, pictures, teacher, monkeypatch
):
    out = tmp_path / "run"
    arguments = (
        "-x", "2", "--teacher", teacher, "--teacher-cache", tmp_path / "cache",
        "--set", f"config.width={CONFIG['width']}", "--set", "config.blocks=1",
        "--set", "crop=8", "--set", "batch=2", "--set", "teacher_licence=CC0-1.0",
    )  # fmt: skip
    begin = ("train", "-m", "mrnet", "--data", pictures, "--val", "none")
    done = run(*begin, "--out", out, "--steps", "2", *arguments, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    said = json.loads(read_metadata(out / "last.safetensors")["teachers"])
    facts = {
        "file": teacher.name, "sha256": sha256_of(teacher), "licence": "CC0-1.0",
        "scales": [2],
    }  # fmt: skip
    assert said == [facts]
    entry = json.loads((out / "export" / "mrnet_x2.json").read_text())
    assert entry["teachers"] == [facts]
    report = (out / "report.md").read_text()
    assert f"`{sha256_of(teacher)}`, terms: CC0-1.0" in report


def test_teacher_settings_without_a_teacher_are_refused(request_of, tmp_path):
    with pytest.raises(UsageError, match="are for --teacher"):
        train(request_of(teachers=()))
    for name, value in (("megapixels", 3.0), ("share", 0.5), ("licence", "CC0-1.0")):
        overrides = {**request_of().overrides, f"teacher_{name}": value}
        with pytest.raises(UsageError, match=f"teacher_{name} are for --teacher"):
            train(request_of(teachers=(), teacher_cache=None, overrides=overrides))


def test_a_network_of_others_teaches(tmp_path, square):
    from spandrel_files import compact

    torch.save(compact(2).state_dict(), tmp_path / "2xAny.pth")
    _, target = sampler_of(square, tmp_path, tmp_path / "2xAny.pth").draw(2, 1)
    small = degrade(np.asarray(Image.open(square / "a.png")), 2, "bi")
    made = enlarged(tmp_path / "2xAny.pth", small)
    assert np.abs(picture_of(target) - made).max() <= 1


def test_two_processes_share_the_work_of_one_teacher(
    tmp_path, pictures, teacher, monkeypatch
):
    enlarge, made = teacher_module._enlarge, []
    monkeypatch.setattr(
        teacher_module, "_enlarge", lambda *call: made.append(1) or enlarge(*call)
    )
    met = threading.Barrier(2)
    monkeypatch.setattr(World, "barrier", lambda _: met.wait(600))
    hr = [np.asarray(Image.open(path)) for path in sorted(pictures.iterdir())]
    recipe = Recipe(model="mrnet", scales=(2,), crop=8)

    def take(rank):
        teachers = Teachers(
            [teacher], recipe, "rgb", CPU,
            cache=tmp_path / "cache", world=World(local_rank=rank, local_size=2),
        )  # fmt: skip
        return teachers.enlarge(2, hr)

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(take, range(2)))
    assert len(made) == len(hr) == 3
    for number, picture in enumerate(hr):
        expected = enlarged(teacher, degrade(crop_to_multiple(picture, 2), 2, "bi"))
        for found in both:
            assert np.abs(found[number].astype(int) - expected).max() <= 1
