"""Pictures as a page shows them: in 8 bits, at one size, as `data:` addresses."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from srcli.imaging.alpha import fill_transparent, peak_level
from srcli.imaging.picture import Picture
from srcli.imaging.resize import Wanted, resize_part

_QUALITY = 92
_SMALL = 512 * 512  # pixels; up to here a picture loses nothing
_STRIP = 16  # rows of a whole picture at a time

Levels = tuple[float, float]  # of black and white


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture as seen at some size: bicubic unless the size is its own.

    Attributes:
        planes: Colour, (H, W, 1) or (H, W, 3), then opacity, (H, W, 1), if any; each
            with its levels.
        size: Height and width that it is seen at.
        icc: Its colour profile.
    """

    planes: tuple[tuple[NDArray[Any], Levels], ...]
    size: tuple[int, int]
    icc: bytes | None

    def part(self, rows: Wanted, columns: Wanted) -> NDArray[np.uint8]:
        """Some rows of some columns, (h, w, C), the last channel alpha if any."""
        return self._resize(self.size, (rows, columns))

    def whole(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """All of it at a size, (h, w, C); exact, and rounded twice, at the view's own.

        Strips keep the memory small, single precision the time of large pictures.
        """
        strips = [
            self._resize(size, (slice(top, top + _STRIP), slice(None)))
            for top in range(0, size[0], _STRIP)
        ]
        return np.concatenate(strips)

    def _resize(
        self, size: tuple[int, int], wanted: tuple[Wanted, Wanted]
    ) -> NDArray[np.uint8]:
        dtype = None if size == self.size else np.float32
        parts = []
        for plane, levels in self.planes:
            whole = plane.shape[0], plane.shape[1]
            part = resize_part(plane, (0, 0), whole, size, wanted, dtype=dtype)
            parts.append(_narrow(part, levels))
        return np.concatenate(parts, axis=2)


def view_pair(source: Picture, result: Picture) -> tuple[View, View]:
    """Bicubic of `source`, and `result`, both at the size of `result`.

    Floating-point pictures are shown between the levels of `source`, both alike.
    """
    pixels: NDArray[Any] = source.pixels
    if source.alpha is not None:
        # As for every enlargement, bicubic included (`srcli.inference.upscaler`).
        pixels = fill_transparent(pixels, source.alpha)
    levels = source.levels
    alike = source.pixels.dtype == result.pixels.dtype
    views = []
    for picture, planes in (
        (source, [(pixels, levels)]),
        (result, [(result.pixels, levels if alike else result.levels)]),
    ):
        if picture.alpha is not None:
            opacity = picture.alpha[:, :, None]
            planes.append((opacity, (0.0, peak_level(opacity.dtype))))
        size = result.height, result.width
        views.append(View(tuple(planes), size, picture.metadata.stripped().icc))
    return views[0], views[1]


def embed(
    pixels: NDArray[np.uint8], icc: bytes | None = None, *, exact: bool = True
) -> str:
    """A picture as an address that holds it, so that a page asks for no other file.

    Args:
        pixels: (H, W) or (H, W, C): grey, grey and alpha, RGB, RGB and alpha.
        icc: Its colour profile.
        exact: Lose nothing; else one that is not small may lose what nobody sees.
    """
    grey = pixels.ndim == 2 or pixels.shape[2] <= 2
    opaque = pixels.ndim == 2 or pixels.shape[2] in (1, 3)
    exact = exact or pixels.shape[0] * pixels.shape[1] <= _SMALL
    options: dict[str, Any] = {} if icc is None else {"icc_profile": icc}
    # WebP knows no grey, and so no grey profile.
    kind = "png" if grey or not features.check("webp") else "webp"
    if not exact and opaque:
        kind = "jpeg"
        options |= {"quality": _QUALITY, "subsampling": 0}
    elif kind == "png":
        options |= {"optimize": True}
    elif exact:
        # Pixels that are wholly transparent keep their colour as well.
        options |= {"lossless": True, "exact": True, "quality": 60, "method": 2}
    else:
        options |= {"quality": _QUALITY, "method": 4}
    buffer = io.BytesIO()
    planes = pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels
    Image.fromarray(np.ascontiguousarray(planes)).save(buffer, kind, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind};base64,{text}"


def _narrow(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """`values` in 8 bits, rounded and clipped, so that `levels` are 0 and 255."""
    if values.dtype == np.uint8:
        return values
    black, white = levels
    scaled = values.astype(np.float32)
    scaled -= black
    scaled *= 255.0 / (white - black)
    scaled += 0.5
    np.floor(scaled, out=scaled)
    return scaled.clip(0, 255, out=scaled).astype(np.uint8)
