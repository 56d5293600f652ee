"""Embedded pictures: what is exact, and what is nearly so and small."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from srcli.pages import view
from srcli.pages.view import embed


def opened(address):
    head, body = address.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(body)))
    assert head == f"data:image/{image.format.lower()};base64"
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


@pytest.mark.parametrize("webp", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_lose_nothing_or_what_nobody_sees(
    picture, channels, webp, monkeypatch
):
    monkeypatch.setattr(view.features, "check", lambda _: webp)
    pixels = picture(50, 70, channels)
    pixels[10:20, :, -1] = 0  # where there is alpha, the colour stays all the same
    assert np.array_equal(opened(embed(pixels)), pixels)
    assert np.array_equal(opened(embed(pixels, exact=False)), pixels)  # small
    monkeypatch.setattr(view, "_SMALL", 1000)
    address = embed(pixels, exact=False)
    seen = opened(address).astype(int)
    assert seen.shape == pixels.shape
    if channels in (2, 4):  # where nothing is seen, nothing need be alike
        assert np.abs(seen - pixels)[:, :, -1].max() <= 3
        seen[pixels[:, :, -1] < 128] = pixels[pixels[:, :, -1] < 128]
    assert np.abs(seen - pixels).mean() < 4
    assert address.startswith("data:image/jpeg") == (channels in (1, 3))
