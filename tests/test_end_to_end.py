"""The bundled weights on a real photograph: better than bicubic, tiled as whole."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import srcli
from srcli.evaluation.metrics import psnr, ssim
from srcli.imaging.color import rgb_to_y
from srcli.imaging.resize import imresize
from srcli.pretrained.catalog import manifest

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "docs" / "sample" / "astronaut.png"
ORIGINAL = ROOT / "tests" / "data" / "astronaut.png"

BUNDLED = [
    (entry.model, scale)
    for entry in manifest()
    for scale in entry.scales
    if entry.degradation == "bi"
]


def hr(scale):
    pixels = np.array(Image.open(ORIGINAL))
    side = pixels.shape[0] // scale * scale
    return pixels[:side, :side]


@pytest.mark.parametrize(("model", "scale"), BUNDLED)
def test_bundled_weights_beat_bicubic_clearly(model, scale):
    reference = hr(scale)
    lr = imresize(reference, 1 / scale)
    ours = srcli.upscale(lr, model=model, scale=scale, precision="fp32")
    bicubic = imresize(lr, float(scale))
    truth = rgb_to_y(reference)
    gains = [
        metric(rgb_to_y(ours), truth, border=scale)
        - metric(rgb_to_y(bicubic), truth, border=scale)
        for metric in (psnr, ssim)
    ]
    assert gains[0] > 1.0
    assert gains[1] > 0.005


def test_sample_is_a_quarter_of_the_original():
    assert np.array_equal(np.array(Image.open(SAMPLE)), imresize(hr(4), 0.25))


@pytest.mark.parametrize(("model", "scale"), BUNDLED)
def test_tiles_join_to_the_whole(model, scale):
    """At most one grey level in at most one of 100,000 values (docs/design.md)."""
    lr = np.array(Image.open(SAMPLE))[:96, :96]
    whole = srcli.upscale(lr, model, scale, precision="fp32", tile=0)
    tiled = srcli.upscale(lr, model, scale, precision="fp32", tile=33)
    difference = np.abs(whole.astype(int) - tiled.astype(int))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= max(1, difference.size // 100_000)


def test_upscale_command_on_the_sample(run, tmp_path):
    out = tmp_path / "large.png"
    result = run("upscale", SAMPLE, "-o", out)
    assert result.exit_code == 0, result.stderr
    large = np.array(Image.open(out))
    assert large.shape == (512, 512, 3)
    # The default precision may be lower than fp32, but not visibly so.
    exact = srcli.upscale(str(SAMPLE), precision="fp32")
    assert psnr(rgb_to_y(large), rgb_to_y(np.array(exact))) > 45


def test_models_lists_what_is_bundled_and_what_is_not(run):
    result = run("models")
    assert result.exit_code == 0
    assert "bundled: x2 x3 x4" in result.stdout
    untrained = run("upscale", SAMPLE, "-m", "drcn", "-o", "never.png")
    assert untrained.exit_code == 5
    assert "no weights are bundled yet" in untrained.stderr
    assert not Path("never.png").exists()
