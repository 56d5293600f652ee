"""Transparency: enlarged edges show no colour that was never visible."""

import numpy as np
import pytest

from srcli.imaging.alpha import fill_transparent
from srcli.imaging.resize import imresize


def disc(size, radius, softness=1.0):
    """Opacity of a soft-edged disc, (size, size) in [0, 1]."""
    y, x = np.mgrid[0:size, 0:size] - (size - 1) / 2
    return np.clip((radius - np.hypot(x, y)) / softness + 0.5, 0, 1)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_enlarged_disc_has_no_fringe(background, dtype):
    top = np.iinfo(dtype).max
    alpha = np.rint(disc(40, 13) * top).astype(dtype)
    pixels = np.zeros((40, 40, 3), dtype)
    pixels[alpha > 0] = (top, 0, 0)

    def composite(colour):
        sharp = imresize(colour / top, 4).clip(0, 1)
        opacity = imresize(alpha / top, 4).clip(0, 1)[:, :, None]
        return opacity * sharp + (1 - opacity) * (background / 255), opacity

    result, opacity = composite(fill_transparent(pixels, alpha))
    ideal = opacity * np.array([1.0, 0, 0]) + (1 - opacity) * (background / 255)
    assert np.abs(result - ideal).max() < 0.5 / 255
    # The measure sees the fringe that the hidden black would make.
    fringed, _ = composite(pixels)
    assert np.abs(fringed - ideal).max() > 10 / 255


def test_pixels_with_any_opacity_are_untouched(picture):
    pixels = picture()
    alpha = np.random.default_rng(3).integers(0, 4, (24, 32)).astype(np.uint8)
    filled = fill_transparent(pixels, alpha)
    assert (filled[alpha > 0] == pixels[alpha > 0]).all()
    assert (filled[alpha == 0] != pixels[alpha == 0]).any()


def test_hidden_colour_has_no_influence(picture):
    alpha = (disc(33, 9) * 255).astype(np.uint8)
    pixels = picture(33, 33)
    black, white = pixels.copy(), pixels.copy()
    black[alpha == 0], white[alpha == 0] = 0, 255
    assert (fill_transparent(black, alpha) == fill_transparent(white, alpha)).all()


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


@pytest.mark.parametrize("opacity", [0, 9, 255])
def test_nothing_to_fill(opacity, picture):
    pixels = picture()
    alpha = np.full((24, 32), opacity, np.uint8)
    assert fill_transparent(pixels, alpha) is pixels


@pytest.mark.parametrize("shape", [(1, 2), (7, 1), (3, 5), (300, 2)])
def test_any_size(shape):
    pixels = np.zeros((*shape, 1), np.uint8)
    alpha = np.zeros(shape, np.uint8)
    alpha[0, 0], pixels[0, 0] = 255, 77
    assert (fill_transparent(pixels, alpha) == 77).all()
