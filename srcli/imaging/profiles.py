"""Colours carried through ICC profiles into sRGB, at the depth that they have."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.planes import in_bands

log = logging.getLogger(__name__)

# Of a profile, ICC.1:2022, section 7.2: the class, bytes 12 to 15, of those that
# say what the colours of a picture are; and the data colour space, bytes 16 to 19.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_SPACES = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}
_CHANNELS = {"gray": 1, "rgb": 3, "cmyk": 4}


def profile_fits(icc: bytes, channels: int) -> bool:
    """Whether a profile says what colours of 1, 3 or 4 channels are."""
    space = _SPACES.get(icc[16:20])
    is_meaning = icc[12:16] in _CLASSES
    return space is not None and is_meaning and _CHANNELS[space] == channels


def convert_to_srgb(planes: NDArray[Any], icc: bytes) -> NDArray[Any]:
    """Planes in the colour space of a profile as sRGB.

    Relative colorimetric, with black point compensation. Floating point is not clipped:
    colours that sRGB lacks are below 0 or above 1 there.

    Args:
        planes: (H, W, C), C being the profile's: 1, 3 or 4; uint8, uint16 or float32
            (CMYK as whole numbers, 0 being no ink).
        icc: The profile.

    Returns:
        (H, W, 3), for grey (H, W, 1), same dtype; `planes` itself where the profile is
        that of sRGB, give or take a level in 255.

    Raises:
        ValueError: If the profile cannot be used.
    """
    if not profile_fits(icc, planes.shape[2]):
        raise ValueError("the profile does not fit the pixels")
    space = _SPACES[icc[16:20]]
    if space != "cmyk" and _is_srgb(icc, space):
        return planes
    channels = 1 if space == "gray" else 3

    def convert(band: NDArray[Any]) -> NDArray[Any]:
        return _transform(band, icc, space)[:, :, :channels]

    return in_bands(convert, planes, channels=channels, dtype=planes.dtype)


def convert_cmyk(planes: NDArray[Any], icc: bytes | None, name: str) -> NDArray[Any]:
    """CMYK as sRGB, through the file's own profile if it has one for CMYK.

    Args:
        planes: (H, W, 4), uint8 or uint16, 0 being no ink.
        icc: The file's profile, whatever it is for.
        name: What messages call the picture.

    Returns:
        (H, W, 3), same dtype.
    """
    if icc is not None and profile_fits(icc, 4):
        try:
            return convert_to_srgb(planes, icc)
        except ValueError:
            log.warning("%s: its CMYK profile cannot be used: converted plainly", name)
    peak = int(np.iinfo(planes.dtype).max)

    def convert(band: NDArray[Any]) -> NDArray[Any]:
        paper = peak - band.astype(np.uint32)
        return (paper[:, :, :3] * paper[:, :, 3:] + peak // 2) // peak

    return in_bands(convert, planes, channels=3, dtype=planes.dtype)


def _transform(planes: NDArray[Any], icc: bytes, space: str) -> NDArray[Any]:
    """A band of planes as sRGB, (H, W, 3)."""
    pixels = np.ascontiguousarray(planes[:, :, 0] if space == "gray" else planes)
    flags = int(imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION)
    if planes.dtype != np.uint8 or space == "cmyk":
        # Else it makes tables too coarse for these: up to 20 levels in 255 off.
        flags |= imagecodecs.CMS.FLAGS.NOOPTIMIZE
    try:
        return imagecodecs.cms_transform(
            pixels,
            icc,
            _srgb(),
            colorspace=space,
            outcolorspace="rgb",
            intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC,
            flags=flags,
        )
    except (RuntimeError, TypeError) as error:
        raise ValueError("the profile cannot be used") from error


@lru_cache(maxsize=8)
def _is_srgb(icc: bytes, space: str) -> bool:
    """Whether a profile says of a sample of colours what sRGB says."""
    steps = np.linspace(0, 1, 18, dtype=np.float32)
    if space == "gray":
        colours = steps[:, None, None]
    else:
        colours = np.stack(np.meshgrid(*(steps[::3],) * 3), axis=-1).reshape(-1, 1, 3)
    return bool(np.abs(_transform(colours, icc, space) - colours).max() < 1 / 255)


@lru_cache(maxsize=1)
def _srgb() -> bytes:
    return bytes(imagecodecs.cms_profile("srgb"))
