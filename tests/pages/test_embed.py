"""Embedded pictures: what is exact, and what is nearly so and small."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image, features

from srcli.pages import view as pictures
from srcli.pages.view import embed


def opened(address):
    head, body = address.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(body)))
    assert head == f"data:image/{image.format.lower()};base64"
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("webp", [True, False])
def test_exact_pictures_lose_nothing(picture, channels, webp, monkeypatch):
    monkeypatch.setattr(pictures.features, "check", lambda _: webp)
    pixels = picture(50, 70, channels)
    pixels[10:20, :, -1] = 0  # where there is alpha, the colour stays all the same
    assert np.array_equal(opened(embed(pixels)), pixels)
    assert np.array_equal(opened(embed(pixels, exact=False)), pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("webp", [True, False])
def test_large_pictures_to_look_at_are_nearly_exact(
    picture, channels, webp, monkeypatch
):
    known = features.check("webp")
    monkeypatch.setattr(pictures.features, "check", lambda _: webp and known)
    pixels = picture(520, 520, channels)
    address = embed(pixels, exact=False)
    seen = opened(address).astype(int)
    assert seen.shape == pixels.shape
    if channels in (2, 4):  # where nothing is seen, nothing need be alike
        assert np.abs(seen - pixels)[:, :, -1].max() <= 3
        seen[pixels[:, :, -1] < 128] = pixels[pixels[:, :, -1] < 128]
    assert np.abs(seen - pixels).mean() < 4
    if channels != 2:
        assert len(address) <= len(embed(pixels)) or not webp


def test_noise_can_be_embedded():
    noise = np.random.default_rng(0).integers(0, 256, (800, 900, 3), np.uint8)
    seen = opened(embed(noise, exact=False))
    assert np.abs(seen - noise.astype(int)).mean() < 10
