"""Transparency: enlarged edges show no colour that was never visible."""

import numpy as np
import pytest

from srcli.imaging.alpha import fill_transparent, peak_level
from srcli.imaging.resize import imresize


def disc(size, radius, softness=1.0):
    """Opacity of a soft-edged disc, (size, size) in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    return np.clip((radius - np.hypot(x, y)) / softness + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("hidden", "background", "dtype"),
    [
        (0, (255, 255, 255), np.uint8),
        (255, (128, 128, 128), np.uint16),
        (255, (255, 200, 0), np.float32),
    ],
)
def test_enlarged_disc_has_no_fringe(hidden, background, dtype):
    top = peak_level(np.dtype(dtype))
    behind = np.array(background) / 255
    alpha = disc(40, 13) * top
    alpha = (alpha if top == 1 else np.rint(alpha)).astype(dtype)
    pixels = np.full((40, 40, 3), hidden * (top / 255)).astype(dtype)
    pixels[alpha > 0] = (top, 0, 0)

    def composite(colour):
        sharp = imresize(colour / top, 4).clip(0, 1)
        opacity = imresize(alpha / top, 4).clip(0, 1)[:, :, None]
        return opacity * sharp + (1 - opacity) * behind, opacity

    result, opacity = composite(fill_transparent(pixels, alpha))
    ideal = opacity * np.array([1.0, 0, 0]) + (1 - opacity) * behind
    assert np.abs(result - ideal).max() < 0.5 / 255
    # The measure sees the fringe that the hidden colour would make.
    fringed, _ = composite(pixels)
    assert np.abs(fringed - ideal).max() > 10 / 255


def test_visible_pixels_are_untouched(picture):
    pixels = picture()
    alpha = np.random.default_rng(3).integers(0, 32, (24, 32)).astype(np.uint8)
    filled = fill_transparent(pixels, alpha)
    assert (filled[alpha >= 16] == pixels[alpha >= 16]).all()
    assert (filled[alpha == 0] != pixels[alpha == 0]).any()
    # In floating point there is no rounding to distrust.
    faint = (alpha / np.float32(1e6)).astype(np.float32)
    exact = pixels.astype(np.float32)
    filled = fill_transparent(exact, faint)
    assert (filled[faint > 0] == exact[faint > 0]).all()


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255)])
def test_colours_rounded_while_premultiplied_leave_no_fringe(background):
    """As a program leaves a cut-out that computes with premultiplied colours."""
    opacity = disc(40, 13, softness=5.0)
    alpha = np.rint(opacity * 255).astype(np.uint8)
    colour = np.array([200.0, 90, 30])
    stored = np.rint(alpha[:, :, None] / 255 * colour)
    pixels = np.zeros((40, 40, 3), np.uint8)
    seen = alpha > 0
    pixels[seen] = np.clip(stored[seen] * 255 / alpha[seen, None], 0, 255)

    def fringe(straight):
        sharp = imresize(straight / 255, 4).clip(0, 1) * 255
        share = imresize(alpha / 255, 4).clip(0, 1)[:, :, None]
        behind = (1 - share) * np.array(background)
        return np.abs(share * sharp + behind - (share * colour + behind)).max()

    assert fringe(fill_transparent(pixels, alpha)) < 2.0
    assert fringe(pixels) > 4.0


def test_fill_stays_between_the_colours_around_it():
    pixels = np.zeros((50, 70, 3), np.uint8)
    alpha = np.zeros((50, 70), np.uint8)
    pixels[:5], alpha[:5] = (200, 40, 10), 255
    pixels[-5:], alpha[-5:] = (100, 80, 30), 255
    filled = fill_transparent(pixels, alpha)
    low, high = (100, 40, 10), (200, 80, 30)
    assert (filled >= low).all()
    assert (filled <= high).all()
    # Each edge goes on in its own colour.
    assert np.abs(filled[5].astype(int) - (200, 40, 10)).max() <= 30
    assert np.abs(filled[-6].astype(int) - (100, 80, 30)).max() <= 30


@pytest.mark.parametrize(
    ("shape", "dtype", "channels"),
    [((1, 2), np.uint8, 1), ((7, 1), np.uint16, 3), ((300, 2), np.float32, 3)],
)
def test_any_size(shape, dtype, channels):
    pixels = np.zeros((*shape, channels), dtype)
    alpha = np.zeros(shape, dtype)
    alpha[0, 0], pixels[0, 0] = peak_level(alpha.dtype), 77
    filled = fill_transparent(pixels, alpha)
    assert filled.dtype == dtype
    assert (filled == 77).all()
