"""Measuring: both protocols against arithmetic done here, grey pictures, the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from by_hand import MATRIX, luma, pictures_of, rounded
from PIL import Image
from torch import Tensor, nn

from srcli.errors import InputError, OutputError, UsageError, WeightsError
from srcli.evaluation import contenders, metrics
from srcli.evaluation.contenders import Engine, Selection
from srcli.evaluation.measurement import BenchmarkRequest, run_benchmark
from srcli.imaging.degrade import degrade
from srcli.imaging.resize import imresize, imresize_torch
from srcli.models import MODELS
from srcli.models.base import ModelConfig, SRModel
from srcli.pretrained.weight_file import save_weights

OFFSET = np.array([16.0, 128.0, 128.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class StubConfig(ModelConfig):
    bicubic: bool = False  # else every pixel becomes a block


class StubY(SRModel):
    arch = "stub-y"
    color = "y"
    config_class = StubConfig
    multi_scale = True
    variants = {}  # noqa: RUF012 - as the networks have it

    def __init__(self, config=None):
        super().__init__()
        self.config = config or StubConfig()
        self.bias = nn.Parameter(Tensor([0.0]), requires_grad=False)

    def predictions(self, lr, scale=None):
        scale = self.resolve_scale(scale)
        if self.config.bicubic:
            return (imresize_torch(lr, scale) + self.bias,)
        return (lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3) + self.bias,)

    def receptive_radius(self, scale=None):
        self.resolve_scale(scale)
        return 3


class StubRGB(StubY):
    arch = "stub-rgb"
    color = "rgb"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A function that writes the weight file of a stub."""
    monkeypatch.setitem(MODELS, "stub-y", StubY)
    monkeypatch.setitem(MODELS, "stub-rgb", StubRGB)

    def make(stub, **config):
        path = tmp_path / f"{stub.arch}.safetensors"
        save_weights(stub(StubConfig(**config)), path)
        return path

    return make


def measure(folder, *, models=("bicubic",), scales=(2,), engine=None, **options):
    chosen = ("degradation", "protocol", "weights")
    selection = {name: options.pop(name) for name in chosen if name in options}
    return run_benchmark(
        BenchmarkRequest(
            datasets=(str(folder),),
            selection=Selection(models=models, scales=scales, **selection),
            engine=engine or Engine(device="cpu", precision="fp32"),
            **options,
        )
    )


def blocks(lr, scale):
    return np.kron(lr, np.ones((scale, scale, 1)[: lr.ndim]))


def decibels(picture, reference, border):
    error = (picture.astype(float) - reference)[border:-border, border:-border]
    return 10 * np.log10(255**2 / np.mean(error**2))


@pytest.mark.parametrize("scale", [2, 3])
def test_bicubic_is_measured_on_unrounded_lr_luma(folder, scale):
    expected = []
    for hr in pictures_of(folder, scale):
        y = rounded(luma(hr))
        sr = rounded(imresize(imresize(y, 1 / scale), float(scale)))
        expected.append((decibels(sr, y, scale), metrics.ssim(sr, y, scale)))
    (row,) = measure(folder, scales=(scale,))
    assert (row.protocol, row.model, row.dataset) == ("y", "bicubic", "pictures")
    assert [p.psnr for p in row.pictures] == pytest.approx([p for p, _ in expected])
    assert row.psnr == pytest.approx(np.mean([psnr for psnr, _ in expected]))
    assert row.ssim == pytest.approx(np.mean([ssim for _, ssim in expected]))
    assert [p.image for p in row.pictures] == ["one", "two"]
    assert row.paper is None is row.difference("psnr")


def test_bicubic_by_rgb_is_measured_on_rounded_pictures(folder):
    expected = [
        decibels(luma(imresize(imresize(hr, 1 / 3), 3.0)), luma(hr), 3)
        for hr in pictures_of(folder, 3)
    ]
    (row,) = measure(folder, scales=(3,), protocol="rgb")
    assert (row.protocol, row.psnr) == ("rgb", pytest.approx(np.mean(expected)))


def test_y_network_gets_unrounded_luma_and_the_ensemble_is_said(folder, weights):
    engine = Engine(device="cpu", precision="fp32", ensemble=True)
    file = weights(StubY, bicubic=True)
    bicubic, stub = measure(folder, models=None, weights=file, engine=engine)
    assert (stub.model, stub.protocol) == ("stub-y", "y")
    assert (bicubic.ensemble, stub.ensemble) == (False, True)
    assert stub.psnr == pytest.approx(bicubic.psnr, abs=1e-3)
    assert stub.ssim == pytest.approx(bicubic.ssim, abs=1e-5)


def test_rgb_network_gets_and_gives_rounded_rgb_that_is_saved(
    tmp_path, folder, weights
):
    file, out = weights(StubRGB), tmp_path / "out"
    made = [blocks(imresize(hr, 0.5), 2) for hr in pictures_of(folder, 2)]
    expected = [
        decibels(luma(sr), luma(hr), 2)
        for sr, hr in zip(made, pictures_of(folder, 2), strict=True)
    ]
    options = {"models": None, "weights": file, "save_images": out}
    bicubic, stub = measure(folder, **options)
    assert (bicubic.protocol, stub.protocol) == ("y", "rgb")
    assert stub.psnr == pytest.approx(np.mean(expected), abs=1e-6)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert files == [
        f"pictures/x2/{model}/{name}.png"
        for model in ("bicubic", "stub-rgb")
        for name in ("one", "two")
    ]
    saved = np.asarray(Image.open(out / "pictures/x2/stub-rgb/one.png"))
    np.testing.assert_array_equal(saved, made[0])
    with pytest.raises(OutputError, match="--overwrite"):
        measure(folder, **options)
    measure(folder, **options, overwrite=True)


def test_names_that_are_too_long_to_save_are_told_before_any_work(tmp_path, picture):
    root, out = tmp_path / "long", tmp_path / "out"
    root.mkdir()
    for suffix in (".png", ".bmp"):  # two of a stem: results keep both suffixes
        Image.fromarray(picture(40, 48)).save(root / ("n" * 250 + suffix))
    with pytest.raises(OutputError, match="too long"):
        measure(root, save_images=out, overwrite=True)
    assert not out.exists()


def test_y_network_by_rgb_takes_chroma_by_bicubic(folder, weights):
    expected = []
    for hr in pictures_of(folder, 2):
        ycbcr = imresize(hr, 0.5) @ MATRIX.T / 255 + OFFSET
        sr = np.dstack((blocks(ycbcr[:, :, 0], 2), imresize(ycbcr[:, :, 1:], 2.0)))
        rgb = rounded(np.linalg.solve(MATRIX / 255, (sr - OFFSET)[..., None])[..., 0])
        expected.append(decibels(luma(rgb), luma(hr), 2))
    _, stub = measure(folder, models=None, weights=weights(StubY), protocol="rgb")
    assert stub.psnr == pytest.approx(np.mean(expected), abs=1e-3)


@pytest.fixture
def grey(tmp_path, picture):
    root = tmp_path / "grey"
    root.mkdir()
    Image.fromarray(picture(40, 48)[:, :, 0]).save(root / "grey.png")
    return root


@pytest.mark.parametrize("as_rgb", [False, True])
def test_grey_picture_is_its_own_luma_if_not_asked_otherwise(grey, as_rgb):
    (hr,) = pictures_of(grey, 2)
    y = rounded(luma(np.dstack((hr, hr, hr)))) if as_rgb else hr.astype(float)
    sr = rounded(imresize(imresize(y, 0.5), 2.0))
    (row,) = measure(grey, gray_as_rgb=as_rgb)
    assert row.psnr == pytest.approx(decibels(sr, y, 2))


def test_blurred_pictures_are_measured_in_rgb_and_in_y_for_y_networks(folder, weights):
    rgb, y = [], []
    for hr in pictures_of(folder, 3):
        sr = imresize(degrade(hr, 3, "bd"), 3.0)
        rgb.append(decibels(luma(sr), luma(hr), 3))
        hr_y = rounded(luma(hr)).astype(np.uint8)
        y.append(decibels(blocks(degrade(hr_y, 3, "bd"), 3), hr_y, 3))
    file = weights(StubY)
    rows = measure(folder, models=None, weights=file, scales=None, degradation="bd")
    assert [(row.scale, row.protocol) for row in rows] == [(3, "rgb"), (3, "y")]
    assert rows[0].psnr == pytest.approx(np.mean(rgb))
    assert rows[1].psnr == pytest.approx(np.mean(y))


def test_noise_repeats_with_the_seed_and_differs_between_pictures(folder):
    (folder / "two.png").write_bytes((folder / "one.png").read_bytes())

    def run(seed):
        (row,) = measure(folder, scales=(3,), degradation="dn", seed=seed)
        return [picture.psnr for picture in row.pictures]

    first = run(0)
    assert first[0] != first[1]
    assert run(0) == first
    assert run(5)[0] not in first


def test_rows_come_by_set_and_scale_with_bicubic_first(folder, grey, weights):
    request = BenchmarkRequest(
        datasets=(str(folder), str(grey)),
        selection=Selection(scales=(3, 2), weights=weights(StubY)),
        engine=Engine(device="cpu"),
    )
    seen = []
    rows = run_benchmark(request, on_row=seen.append)
    assert rows == seen
    assert [(row.dataset, row.scale, row.model) for row in rows] == [
        (dataset, scale, model)
        for dataset in ("pictures", "grey")
        for scale in (3, 2)
        for model in ("bicubic", "stub-y")
    ]
    assert [row.parameters for row in rows[:2]] == [None, 1]
    assert rows[0].macs_720p is None


def test_paper_and_difference_stand_beside_ours(tmp_path, folder, caplog):
    folder.rename(tmp_path / "Set5")
    bicubic = Selection(models=("bicubic",))
    rows = run_benchmark(BenchmarkRequest(data_dir=tmp_path, selection=bicubic))
    assert [row.dataset for row in rows] == ["set5"] * 3
    row = rows[0]
    assert (row.paper.psnr, row.paper.ssim) == (33.66, 0.9299)  # DRRN Table 2
    assert row.difference("psnr") == pytest.approx(row.psnr - 33.66)
    assert row.difference("ssim") == pytest.approx(row.ssim - 0.9299)
    assert row.difference("ifc") is None
    assert caplog.text.count("has 2 pictures, the published set 5") == 1


def test_information_fidelity_is_measured_like_the_others(tmp_path, picture):
    pytest.importorskip("pyrtools")
    (tmp_path / "large").mkdir()
    Image.fromarray(picture(90, 96)).save(tmp_path / "large" / "a.png")
    (hr,) = pictures_of(tmp_path / "large", 2)
    y = rounded(luma(hr))
    sr = rounded(imresize(imresize(y, 0.5), 2.0))
    (row,) = measure(tmp_path / "large", ifc=True)
    assert row.ifc == pytest.approx(metrics.ifc(sr, y, 2))


def test_all_is_every_model_with_weights(folder, monkeypatch):
    here = {"stub-y": (2,), "stub-rgb": (2, 3), "absent": ()}
    monkeypatch.setattr(contenders, "model_names", lambda: list(here))
    monkeypatch.setattr(contenders, "served_scales", lambda n, *_, **__: here[n])
    stubs = {"stub-y": StubY, "stub-rgb": StubRGB}
    monkeypatch.setattr(contenders, "load_model", lambda name, *_, **__: stubs[name]())
    rows = measure(folder, models=("all",), scales=(2, 3))
    assert [(row.scale, row.model) for row in rows] == [
        (2, "bicubic"), (2, "stub-y"), (2, "stub-rgb"), (3, "bicubic"), (3, "stub-rgb"),
    ]  # fmt: skip
    with pytest.raises(WeightsError, match="x4"):
        measure(folder, models=("all",), scales=(4,))


def test_unknown_and_contradictory_requests(folder, weights):
    rgb, y = weights(StubRGB), weights(StubY, scales=(2,))
    for options, message in [
        ({"models": ("mrnett",)}, "did you mean mrnet"),
        ({"scales": (5,)}, "x5"),
        ({"degradation": "dbn"}, "unknown degradation"),
        ({"degradation": "bd", "scales": (2,)}, "x3 only"),
        ({"protocol": "ycbcr"}, "unknown protocol"),
        ({"weights": rgb, "models": None, "protocol": "y"}, "stub-rgb: protocol y"),
        ({"weights": y, "models": ("mrnet",)}, "holds a stub-y network"),
        ({"weights": y, "models": ("mrnet", "drcn")}, "one network"),
        ({"weights": y, "models": None, "scales": (3,)}, "serves x2, not x3"),
        ({"engine": Engine(device="gpu")}, "unknown device"),
    ]:
        with pytest.raises(UsageError, match=message):
            measure(folder, **options)


def test_two_folders_of_one_name(tmp_path, folder):
    twin = tmp_path / "other" / folder.name
    twin.parent.mkdir()
    twin.symlink_to(folder)
    request = BenchmarkRequest(
        datasets=(str(folder), str(twin)), selection=Selection(models=("bicubic",))
    )
    with pytest.raises(UsageError, match="would both be called pictures"):
        run_benchmark(request)
    same = replace(request, datasets=(str(folder), str(folder)))
    assert len(run_benchmark(same)) == 3


@pytest.mark.parametrize("size", [(1, 40), (16, 40)])
def test_picture_too_small_to_measure_is_named(tmp_path, picture, size):
    Image.fromarray(picture(*size)).save(tmp_path / "tiny.png")
    with pytest.raises(InputError, match=r"tiny\.png: .* too small"):
        measure(tmp_path, scales=(4,))


def test_equal_pictures_have_infinite_psnr(tmp_path):
    Image.new("L", (40, 40), 90).save(tmp_path / "flat.png")
    (row,) = measure(tmp_path)
    assert (row.psnr, row.ssim) == (np.inf, pytest.approx(1.0))
