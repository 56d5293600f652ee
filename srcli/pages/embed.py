"""Pictures as `data:` addresses, so that a page has no other file to ask for."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

_QUALITY = 92
_SMALL = 512 * 512  # pixels; up to here a picture loses nothing


def embed_exact(pixels: NDArray[np.uint8], icc: bytes | None = None) -> str:
    """A picture that loses nothing.

    Args:
        pixels: (H, W, C): grey, grey and alpha, RGB, or RGB and alpha.
        icc: Its colour profile.
    """
    if _fits_webp(pixels):
        # Pixels that are wholly transparent keep their colour as well.
        options = {"lossless": True, "exact": True, "quality": 60, "method": 2}
        return _embed(pixels, "webp", icc, **options)
    return _embed(pixels, "png", icc, optimize=True)


def embed_view(pixels: NDArray[np.uint8], icc: bytes | None = None) -> str:
    """A picture to look at: one that is not small may lose what nobody sees.

    Args:
        pixels: As for `embed_exact`.
        icc: Its colour profile.
    """
    height, width, channels = pixels.shape
    if height * width > _SMALL:
        if channels in (1, 3):
            return _embed(pixels, "jpeg", icc, quality=_QUALITY, subsampling=0)
        if _fits_webp(pixels):
            return _embed(pixels, "webp", icc, quality=_QUALITY, method=4)
    return embed_exact(pixels, icc)


def _fits_webp(pixels: NDArray[np.uint8]) -> bool:
    """Whether it can be a WebP file, which knows no grey, and so no grey profile."""
    return pixels.shape[2] >= 3 and bool(features.check("webp"))


def _embed(
    pixels: NDArray[np.uint8],
    format: str,
    icc: bytes | None,
    **options: Any,  # noqa: ANN401 - Pillow's own
) -> str:
    planes = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    buffer = io.BytesIO()
    if icc is not None:
        options["icc_profile"] = icc
    Image.fromarray(np.ascontiguousarray(planes)).save(buffer, format, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{format};base64,{text}"
