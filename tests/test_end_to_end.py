"""The bundled weights on a real photograph: better than bicubic, tiled as whole."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import srcli
from srcli.evaluation.metrics import psnr, ssim
from srcli.imaging.color import rgb_to_y
from srcli.imaging.degrade import degrade
from srcli.imaging.resize import imresize
from srcli.inference.runner import Runner
from srcli.pretrained.catalog import manifest, served_scales

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "docs" / "sample" / "astronaut.png"
ORIGINAL = ROOT / "tests" / "data" / "astronaut.png"

# Each file at its last scale, the default network at all of its scales.
BUNDLED = [
    (entry.model, scale, entry.degradation)
    for entry in manifest()
    for scale in (entry.scales if entry.model == "mrnet" else entry.scales[-1:])
]
# dB over bicubic that nobody would overlook; bicubic leaves all noise where it is.
CLEARLY = {"bi": 1.0, "bd": 1.0, "dn": 2.0}


def hr(scale):
    pixels = np.array(Image.open(ORIGINAL))
    side = pixels.shape[0] // scale * scale
    return pixels[:side, :side]


@pytest.mark.parametrize(("model", "scale", "degradation"), BUNDLED)
def test_bundled_weights_beat_bicubic_clearly(model, scale, degradation):
    reference = hr(scale)[108:180, 204:276]  # 72 is a multiple of 2, 3 and 4
    lr = degrade(reference, scale, degradation)
    ours = srcli.upscale(
        lr, model=model, scale=scale, degradation=degradation, precision="fp32"
    )
    bicubic = imresize(lr, float(scale))
    truth = rgb_to_y(reference)
    gains = [
        metric(rgb_to_y(ours), truth, border=scale)
        - metric(rgb_to_y(bicubic), truth, border=scale)
        for metric in (psnr, ssim)
    ]
    assert gains[0] > CLEARLY[degradation]
    assert gains[1] > 0.005


def test_sample_is_a_quarter_of_the_original():
    assert np.array_equal(np.array(Image.open(SAMPLE)), imresize(hr(4), 0.25))


# DRCN's and DRRN's tiles overlap by the exact radius.
MEASURED = [e for e in manifest() if e.arch not in ("drcn", "drrn")]


@pytest.mark.parametrize("entry", MEASURED, ids=lambda entry: entry.file)
def test_tiles_join_to_the_whole(entry):
    """The automatic overlap leaves rounding alone, also where tiles are small."""
    scale = entry.scales[0]
    lr = np.array(Image.open(SAMPLE))[40:48, 16:64]
    network = srcli.load_model(entry.model, scale, degradation=entry.degradation)
    colours = torch.from_numpy(lr.astype(np.float32) / 255).permute(2, 0, 1)
    planes = colours[: network.channels]
    whole, tiled = (
        Runner(network, scale, device="cpu", precision="fp32", tile=tile)
        .enlarge(planes)
        .mul(255)
        for tile in (0, 32)
    )
    assert (whole - tiled).abs().max() < 0.002  # grey levels
    rounded = whole.round() != tiled.round()
    # Values that lie next to a tie: one in ten thousand at such differences.
    assert rounded.sum() <= 2 + 1e-4 * rounded.numel()


def test_upscale_command_on_a_photograph(run, tmp_path):
    photo, out = tmp_path / "photo.png", tmp_path / "large.png"
    with Image.open(SAMPLE) as image:
        image.crop((32, 16, 80, 56)).save(photo)
    result = run("upscale", photo, "-o", out)
    assert result.exit_code == 0, result.stderr
    large = np.array(Image.open(out))
    assert large.shape == (160, 192, 3)
    # The default precision may be lower than fp32, but not visibly so.
    exact = srcli.upscale(str(photo), precision="fp32")
    assert psnr(rgb_to_y(large), rgb_to_y(np.array(exact))) > 45


def test_networks_without_weights_are_never_run(run, tmp_path):
    for name in ("drcn", "drrn", "drrn-b1u9", "dsrn", "mrnet", "rrrn"):
        assert served_scales(name, installed=True) == (2, 3, 4)
    untrained = run("upscale", SAMPLE, "-m", "drcn-d6", "-o", tmp_path / "never.png")
    assert untrained.exit_code == 5
    assert "no weights are bundled yet" in untrained.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "channels"), [("png", 4), ("tiff", 3)])
def test_sixteen_bits_all_the_way(suffix, channels, tmp_path, run):
    random = np.random.default_rng(0)
    low = random.integers(0, 257, (20, 24, channels), np.uint16)
    deep = np.zeros_like(low)
    deep[:, :, :3] = hr(4)[100:120, 100:124].astype(np.uint16) * 256 + low[:, :, :3]
    deep[:, :, 3:] = 65535 - low[:, :, 3:]
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    if suffix == "png":
        source.write_bytes(imagecodecs.png_encode(deep))
    else:
        tifffile.imwrite(source, deep, photometric="rgb")
    result = run("upscale", source, "-o", target, "-x", "2", "--precision", "fp32")
    assert (result.exit_code, result.stderr) == (0, "")
    if suffix == "png":
        larger = imagecodecs.png_decode(target.read_bytes())
    else:
        larger = tifffile.imread(target)
    assert (larger.shape, larger.dtype) == ((40, 48, channels), np.uint16)

    network = srcli.load_model("mrnet", 2).eval()
    lr = torch.from_numpy(deep[:, :, :3].astype(np.float32) / 65535)
    with torch.no_grad():
        sr = network(lr.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
    expected = (sr.numpy().clip(0, 1) * 65535).round().astype(int)
    # In 8 bits the nearest level would be 64 away on average.
    assert np.abs(larger[:, :, :3] - expected).max() <= 3
    assert np.mean(larger % 257 == 0) < 0.05
    if channels == 4:
        assert (larger[:, :, 3] == imresize(deep[:, :, 3], 2.0)).all()
