"""Colours carried through ICC profiles into sRGB, at the depth that they have."""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.chunks import Chunk
from srcli.imaging.planes import in_bands

log = logging.getLogger(__name__)

# Of a profile, ICC.1:2022, section 7.2: the class, bytes 12 to 15, of those that
# say what the colours of a picture are; and the data colour space, bytes 16 to 19.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
_SPACES = {b"GRAY": "gray", b"RGB ": "rgb", b"CMYK": "cmyk"}
_CHANNELS = {"gray": 1, "rgb": 3, "cmyk": 4}

# x and y of white, red, green and blue, by code point of ITU-T H.273, table 2.
_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_ADOBE_RGB = (*_D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
_PRIMARIES: Mapping[int, tuple[float, ...]] = MappingProxyType(
    {
        1: _SRGB,
        2: _SRGB,
        4: (0.310, 0.316, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080),
        5: (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
        6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
        7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
        9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
        11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
        12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    }
)
# Transfer characteristics, table 3, that are shown as sRGB; and those of a power.
_SRGB_CURVES = (1, 2, 6, 13, 14, 15)
_GAMMAS: Mapping[int, float] = MappingProxyType({4: 2.2, 5: 2.8, 8: 1.0})
_LEAST_GAMMA = 0.1


def profile_fits(icc: bytes, channels: int) -> bool:
    """Whether a profile says what colours of 1, 3 or 4 channels are."""
    space = _SPACES.get(icc[16:20])
    is_meaning = icc[12:16] in _CLASSES
    return space is not None and is_meaning and _CHANNELS[space] == channels


def make_profile(
    chunks: Sequence[Chunk], channels: int, *, is_adobe: bool
) -> bytes | None:
    """An ICC profile of colours that a file without one says otherwise.

    Sources: PNG, third edition, sections 11.3.2.1, 11.3.2.2, 11.3.2.6 and 4.3 (which
    is in force); ITU-T H.273, tables 2 and 3; Adobe RGB (1998), section 4.3.

    Args:
        chunks: The PNG chunks cICP, sRGB, gAMA and cHRM, where it has them.
        channels: Colour channels of the pixels, 1 or 3.
        is_adobe: Whether EXIF says Adobe RGB.

    Returns:
        None where it says sRGB, nothing, or what no profile can say.
    """
    said = dict(chunks)
    primaries: tuple[float, ...] = _SRGB
    gamma: float | None = None
    if len(said.get(b"cICP", b"")) == 4:
        code, transfer, matrix, is_full = said[b"cICP"]
        if (matrix, is_full) != (0, 1) or code not in _PRIMARIES:
            return None
        if transfer not in (*_SRGB_CURVES, *_GAMMAS):
            return None  # high dynamic range
        primaries, gamma = _PRIMARIES[code], _GAMMAS.get(transfer)
    elif b"sRGB" not in said and len(said.get(b"gAMA", b"")) == 4:
        exponent = int.from_bytes(said[b"gAMA"], "big") / 100_000
        if not _LEAST_GAMMA < exponent < 1 / _LEAST_GAMMA:
            return None
        # Programs that mean sRGB write the gamma that is nearest to it.
        gamma = None if abs(exponent * 2.2 - 1) < 0.02 else 1 / exponent
        if len(said.get(b"cHRM", b"")) == 32:
            numbers = struct.unpack(">8I", said[b"cHRM"])
            primaries = tuple(number / 100_000 for number in numbers)
    elif is_adobe and b"sRGB" not in said:
        primaries, gamma = _ADOBE_RGB, 563 / 256
    if np.abs(np.subtract(primaries, _SRGB)).max() < 0.002 and gamma is None:
        return None
    return _build_profile(primaries, gamma, channels)


def _build_profile(
    primaries: tuple[float, ...], gamma: float | None, channels: int
) -> bytes | None:
    """A profile of white and primaries (x, y); a gamma of None is the curve of sRGB."""
    curve: dict[str, Any] = {"gamma": gamma}
    if gamma is None:
        steps = np.linspace(0, 1, 1024)
        steep = ((steps + 0.055) / 1.055) ** 2.4
        linear = np.where(steps <= 0.04045, steps / 12.92, steep)
        curve = {"transferfunction": linear.astype(np.float32)}
    white, *colours = zip(primaries[::2], primaries[1::2], strict=True)
    space = "gray" if channels == 1 else "rgb"
    if channels == 3:
        curve["primaries"] = [part for x, y in colours for part in (x, y, 1)]
    try:
        icc = bytes(imagecodecs.cms_profile(space, whitepoint=(*white, 1), **curve))
        convert_to_srgb(np.zeros((1, 1, channels), np.uint8), icc)
    except (RuntimeError, ValueError):
        return None
    return icc


def convert_to_srgb(planes: NDArray[Any], icc: bytes) -> NDArray[Any]:
    """Planes in the colour space of a profile as sRGB.

    Relative colorimetric, with black point compensation. Floating point is not clipped:
    colours that sRGB lacks are below 0 or above 1 there.

    Args:
        planes: (H, W, 1, 3 or 4), as the profile has it; uint8, uint16 or float32
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


def check_profile(icc: bytes | None, channels: int, fault: str) -> bytes | None:
    """A profile that can be used for so many channels; else None, which is logged."""
    if not icc:
        return None
    try:
        convert_to_srgb(np.zeros((1, 1, channels), np.uint8), icc)
    except ValueError:
        log.warning(fault)
        return None
    return icc


def find_cmyk(icc: bytes | None, name: str) -> bytes | None:
    """A file's profile, if it is one for CMYK that can be used."""
    if not icc or not profile_fits(icc, 4):
        return None
    fault = f"{name}: its CMYK profile cannot be used: converted plainly"
    return check_profile(icc, 4, fault)


def convert_cmyk(planes: NDArray[Any], icc: bytes | None) -> NDArray[Any]:
    """CMYK, (H, W, 4) whole numbers, 0 being no ink, as sRGB, (H, W, 3).

    It goes through a profile, or plainly if there is none.
    """
    if icc is not None:
        return convert_to_srgb(planes, icc)
    peak = int(np.iinfo(planes.dtype).max)

    def convert(band: NDArray[Any]) -> NDArray[Any]:
        paper = peak - band.astype(np.uint32)
        return (paper[:, :, :3] * paper[:, :, 3:] + peak // 2) // peak

    return in_bands(convert, planes, channels=3, dtype=planes.dtype)


def _transform(planes: NDArray[Any], icc: bytes, space: str) -> NDArray[Any]:
    """A band of planes as sRGB, (H, W, 3)."""
    pixels = np.ascontiguousarray(planes[:, :, 0] if space == "gray" else planes)
    flags = int(imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION)
    entries = icc[128 : 132 + 12 * int.from_bytes(icc[128:132], "big")]
    if planes.dtype != np.uint8 or space != "rgb" or b"A2B" in entries:
        # Else it makes tables too coarse for these: up to 20 levels in 255 off. Only
        # of 8 bits and a matrix it makes none.
        flags |= imagecodecs.CMS.FLAGS.NOOPTIMIZE
    try:
        return imagecodecs.cms_transform(
            pixels,
            icc,
            imagecodecs.cms_profile("srgb"),
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
