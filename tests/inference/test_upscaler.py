"""Pictures of every kind come out larger, with their own colours and depth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.errors import DeviceError, UsageError, WeightsError
from srcli.imaging.color import RGB_TO_YCBCR, YCBCR_OFFSET, YCBCR_TO_RGB
from srcli.imaging.metadata import Metadata
from srcli.imaging.picture import Picture
from srcli.imaging.resize import imresize
from srcli.inference import choice
from srcli.inference import upscaler as module
from srcli.inference.sizes import plan_steps
from srcli.inference.upscaler import Upscaler, upscale
from srcli.models.base import ModelConfig, SRModel
from srcli.models.drrn import DRRN, DRRNConfig
from srcli.models.mrnet import MRNet, MRNetConfig

FP32 = {"device": "cpu", "precision": "fp32"}
EXACT = {**FP32, "overlap": "exact"}


class Constant(SRModel):
    """Answers one value everywhere, or repeats its pixels."""

    arch = "constant"
    color = "rgb"

    def __init__(self, value=None, scales=(2, 3, 4)):
        super().__init__()
        self.config = ModelConfig(scales=scales)
        self.value = value

    def predictions(self, lr, scale=None):
        sr = lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        return (sr if self.value is None else torch.full_like(sr, self.value),)

    def receptive_radius(self, scale=None):
        return 0


class Luma(Constant):
    """The same on Y."""

    color = "y"


def small_mrnet() -> MRNet:
    return MRNet(MRNetConfig(width=4, blocks=1, recursions=(1, 1, 1))).eval()


def small_drrn() -> DRRN:
    return DRRN(DRRNConfig(width=6, units=2)).eval()


def run(model, planes, scale):
    """What a network makes of (C, h, w) in [0, 1], in float64."""
    lr = torch.from_numpy(np.ascontiguousarray(planes)).float()[None]
    with torch.inference_mode():
        return model(lr, scale)[0].double().numpy()


def check_levels(result, values, off=5):
    """Levels of 8 bits are rounded values in [0, 1], but for a rounding or so."""
    expected = np.clip(np.floor(values * 255 + 0.5), 0, 255)
    assert np.abs(result.astype(int) - expected).max() <= 1
    assert np.count_nonzero(result != expected) <= off


# How far, in which steps


@pytest.mark.parametrize(
    ("factor", "available", "steps"),
    [
        (1, (2, 3, 4), (2,)),
        (5, (2, 3, 4), (3, 2)),
        (8, (2,), (2, 2, 2)),
        (8, (3,), (3, 3)),
    ],
)
def test_steps(factor, available, steps):
    assert plan_steps(factor, available) == steps


@given(st.floats(1, 8), st.sets(st.sampled_from([2, 3, 4]), min_size=1))
@settings(deadline=None)
def test_steps_reach_the_factor_and_waste_nothing(factor, available):
    steps = plan_steps(factor, available)
    assert set(steps) <= available
    assert math.prod(steps) >= factor
    assert len(steps) == 1 or math.prod(steps[:-1]) < factor


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"scale": 2.25}, (23, 34)),
        ({"scale": 1}, (10, 15)),
        ({"height": 25}, (25, 38)),
        ({"width": 40, "height": 55}, (55, 40)),
    ],
)
def test_the_result_has_the_size_asked_for(picture, options, size):
    upscaler = Upscaler(Constant(), device="cpu", **options)
    assert upscaler.target_size(10, 15) == size
    assert upscaler(Picture(picture(10, 15))).pixels.shape == (*size, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 8.5}, {"scale": math.nan}, {"width": 0}, {"precision": "fp8"},
        {"device": "gpu"}, {"tile": -1}, {"overlap": "wide"},
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused_at_once(options):
    with pytest.raises(UsageError):
        Upscaler(Constant(), **{"device": "cpu", **options})


@pytest.mark.parametrize("options", [{"width": 7}, {"height": 81}])
def test_sizes_out_of_reach_are_refused(picture, options):
    upscaler = Upscaler(Constant(), device="cpu", **options)
    with pytest.raises(UsageError, match="enlarged by 1 to 8"):
        upscaler(Picture(picture(10, 15)))


def test_the_steps_are_described():
    def describe(**options):
        return Upscaler(Constant(), device="cpu", **options).describe(80, 100)

    assert describe() == "constant x4"
    assert describe(scale=8) == "constant x4, then constant x2"
    assert describe(scale=2.5) == "constant x3, then bicubic to 250x200"
    assert describe(width=300) == "constant x3"
    assert Upscaler("bicubic", 2).describe(80, 100) == "bicubic to 200x160"
    assert Upscaler("bicubic").scale == 4
    assert Upscaler(Constant(scales=(2, 3)), device="cpu").plan(5, 5) == (3,)


# Colour, depth and transparency


def test_an_rgb_network_gives_its_own_colours(picture):
    pixels, model = picture(12, 17), small_mrnet()
    expected = run(model, pixels.transpose(2, 0, 1) / 255, 3).transpose(1, 2, 0)
    result = Upscaler(model, 3, tile=0, **EXACT)(Picture(pixels)).pixels
    check_levels(result, expected)
    grey = pixels[:, :, :1]  # which stays grey
    planes = np.broadcast_to(grey[:, :, 0] / 255, (3, 12, 17))
    result = Upscaler(model, 2, tile=0, **EXACT)(Picture(grey)).pixels
    check_levels(result, run(model, planes, 2).mean(0)[:, :, None])


def test_a_y_network_takes_chroma_from_bicubic(picture):
    pixels, model = picture(21, 26), small_drrn()
    ycbcr = (pixels @ RGB_TO_YCBCR.T + YCBCR_OFFSET) / 255
    large = run(model, ycbcr[None, :, :, 0], 3)[0]
    joined = np.dstack((large, imresize(ycbcr[:, :, 1:], 3))) - YCBCR_OFFSET / 255
    result = Upscaler(model, 3, tile=8, **EXACT)(Picture(pixels)).pixels
    check_levels(result, joined @ YCBCR_TO_RGB.T)
    grey = pixels[:, :, :1]  # which is its own luma
    result = Upscaler(model, 2, tile=0, **EXACT)(Picture(grey)).pixels
    check_levels(result, run(model, grey.transpose(2, 0, 1) / 255, 2)[0][:, :, None])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_survives(dtype):
    peak = np.iinfo(dtype).max
    pixels = np.linspace(0, peak, 600).round().astype(dtype).reshape(20, 30, 1)
    for model in (Constant(), Luma()):
        result = Upscaler(model, 2, **FP32)(Picture(pixels)).pixels
        np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("value", "level"), [(100.5 / 255, 101), (100.49 / 255, 100), (1.3, 255), (-0.2, 0)]
)
def test_values_are_rounded_halves_up_and_clamped(picture, value, level):
    upscaler = Upscaler(Constant(value), 2, **FP32)
    assert np.unique(upscaler(Picture(picture(5, 6))).pixels).tolist() == [level]


@pytest.mark.parametrize("model", ["bicubic", Luma(), Constant()])
def test_alpha_is_bicubic_and_leaves_no_fringe(picture, model):
    alpha = picture(13, 16)[:, :, 0]
    upscaler = Upscaler(model, 3, tile=5, **FP32)
    result = upscaler(Picture(picture(13, 16), alpha))
    np.testing.assert_array_equal(result.alpha, imresize(alpha, 3))
    flat = upscaler(Picture(picture(9, 8), np.full((9, 8), 77, np.uint8)))
    assert np.unique(flat.alpha).tolist() == [77]
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 5:11] = 255
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, 5:11] = (200, 150, 90)
    result = upscaler(Picture(pixels, alpha))
    seen = result.pixels[result.alpha > 0].astype(int)
    assert np.abs(seen - (200, 150, 90)).max() <= 1


def test_what_a_picture_says_of_itself_is_kept(picture):
    metadata = Metadata(xmp=b"<x/>", dpi=(300.0, 300.0))
    upscaler = Upscaler("bicubic", 3)
    pixels = picture(15, 19)
    result = upscaler(Picture(pixels, None, metadata, "webp"))
    np.testing.assert_array_equal(result.pixels, imresize(pixels, 3))
    assert (result.metadata, result.format) == (metadata, "webp")
    assert upscaler.stats.tiles == 0


def test_a_few_pixels_keep_their_colour():
    """Zeros around the picture are not taken for a part of it."""
    colour = np.array([225, 192, 165])
    upscaler = Upscaler("mrnet", 4, precision="fp32")
    for size in ((1, 1), (1, 30), (5, 3)):
        pixels = np.broadcast_to(colour, (*size, 3)).astype(np.uint8)
        larger = upscaler(Picture(pixels)).pixels
        assert larger.shape == (4 * size[0], 4 * size[1], 3)
        assert np.abs(larger[:, :4].astype(int) - colour).max() <= 4


# Networks, weights and memory


def test_a_chain_runs_every_scale_and_adds_up(picture):
    upscaler = Upscaler(Constant(), 5, device="cpu", tile=10, overlap=0)
    assert upscaler(Picture(picture(20, 20))).pixels.shape == (100, 100, 3)
    assert upscaler.stats.tiles == 2 * 2 + 6 * 6
    assert upscaler.stats.device == "cpu"


def test_a_weight_file_is_a_model(picture, tmp_path, save_rrrn):
    path = tmp_path / "mine.safetensors"
    model = save_rrrn(path, 2)
    expected = upscale(picture(8, 9), model, 2, **FP32)
    for way in ({"weights": path}, {"model": path}, {"model": str(path)}):
        result = upscale(picture(8, 9), **{"scale": 2, **way, **FP32})
        np.testing.assert_array_equal(result, expected)
    assert Upscaler(path, 2, device="cpu").describe(8, 9) == "mine x2"


@pytest.fixture
def shelf(monkeypatch):
    """A catalogue of single-scale networks named "shelf"; notes what is loaded."""
    loaded = []

    def load(name, scale, *, degradation="bi"):
        loaded.append((name, scale, degradation))
        if scale == 3:
            raise WeightsError("no x3: srcli download")
        return Constant(scales=(scale,))

    monkeypatch.setattr(choice, "load_model", load)
    monkeypatch.setattr(choice, "find_entry", lambda *_: None)
    monkeypatch.setattr(choice, "served_scales", lambda *_, **__: (2, 4))
    return loaded


def test_networks_are_loaded_once_and_before_the_first_picture(picture, shelf):
    upscaler = Upscaler("Shelf", 6.5, device="cpu", degradation="bd")
    assert shelf == [("shelf", 4, "bd"), ("shelf", 2, "bi")]
    for _ in range(2):
        upscaler(Picture(picture(5, 5)))
    assert len(shelf) == 2


@pytest.mark.usefixtures("shelf")
def test_a_missing_scale_is_an_error_when_asked_for_and_else_gone_round(picture):
    with pytest.raises(WeightsError, match="srcli download"):
        Upscaler("shelf", 3, device="cpu")
    upscaler = Upscaler("shelf", 2.5, device="cpu")
    assert upscaler.describe(10, 10) == "shelf x4, then bicubic to 25x25"
    assert upscaler(Picture(picture(10, 10))).pixels.shape == (25, 25, 3)
    assert Upscaler("shelf", width=30, device="cpu").plan(10, 10) == (4,)


def test_results_too_large_for_the_memory_are_refused_before_the_work(
    picture, monkeypatch
):
    def never(*_):
        raise AssertionError("the network ran")

    upscaler = Upscaler(Constant(), 4, device="cpu")
    monkeypatch.setattr(module, "_SMALL", 0)
    monkeypatch.setattr(module, "free_memory", lambda _: 40 * 60 * 16 * 3 - 1)
    monkeypatch.setattr(Constant, "predictions", never)
    with pytest.raises(DeviceError, match="240x160 pixels"):
        upscaler(Picture(picture(40, 60)))
