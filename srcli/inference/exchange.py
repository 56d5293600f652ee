"""What Python programs hold pictures in: enlarged, and handed back as the same kind."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from srcli.errors import InputError, UsageError
from srcli.imaging.decode import decode_planes
from srcli.imaging.exif import read_orientation
from srcli.imaging.files import Picture, read_picture, reduce_depth
from srcli.imaging.metadata import read_metadata, scale_metadata
from srcli.imaging.opened import turn_upright
from srcli.imaging.pillow import DECODE_ERRORS, explain, quiet
from srcli.inference.arrays import (
    Enlarge,
    join_planes,
    map_array,
    map_tensor,
    split_planes,
)

log = logging.getLogger(__name__)

Enlarged = Picture | Image.Image | NDArray[Any] | Tensor
Given = Path | str | Enlarged

_NAME = "the Pillow image"


def map_pictures(given: Given, enlarge: Enlarge) -> Enlarged:
    """The enlarged pictures of `given`, as the same kind; of a path, a Pillow image.

    Args:
        given: A file; a Pillow image; an array or tensor, as `map_array` and
            `map_tensor`; a picture.
        enlarge: Given the pictures in turn.

    Raises:
        UsageError: If it is of no kind that is known, or is no picture.
        InputError: If a file or image cannot be read.
    """
    if isinstance(given, Picture):
        return enlarge(given)
    if isinstance(given, (str, Path)):
        return image_of_picture(enlarge(read_picture(Path(given))), str(given))
    if isinstance(given, Image.Image):
        return image_of_picture(enlarge(picture_of_image(given)))
    if isinstance(given, np.ndarray):
        return map_array(given, enlarge)
    if isinstance(given, Tensor):
        return map_tensor(given, enlarge)
    raise UsageError(
        "a path, Pillow image, NumPy array or PyTorch tensor can be upscaled, "
        f"not {type(given).__name__}"
    )


def picture_of_image(image: Image.Image) -> Picture:
    """A Pillow image as a picture, turned upright.

    Args:
        image: Any mode but I; of several frames the current one.

    Raises:
        UsageError: If its mode says nowhere how bright white is (I), or it is empty or
            not finite.
        InputError: If it cannot be decoded.
    """
    if 0 in image.size:
        raise UsageError(f"a Pillow image of {image.width}x{image.height} is empty")
    if image.mode == "I":
        raise UsageError(
            'Pillow images of mode I have no white: convert to mode "I;16" or "F"'
        )
    with quiet():
        try:
            turned = read_orientation(image.getexif())
            image.load()
            planes, own_colours = _decode(image)
        except DECODE_ERRORS as error:
            raise InputError(f"{_NAME} cannot be decoded: {explain(error)}") from error
    # Only now: Pillow turns TIFF files itself as it loads them.
    exif = image.getexif()
    picture = split_planes(turn_upright(planes, read_orientation(exif)))
    size = (picture.width, picture.height)
    channels = picture.pixels.shape[2] if own_colours else 0
    metadata = read_metadata(image.info, exif, (), _NAME, channels, size, turned)
    return replace(picture, metadata=metadata)


def _decode(image: Image.Image) -> tuple[NDArray[Any], bool]:
    """The channels (H, W, C) of a loaded image; whether in its own colour space."""
    if image.mode == "F":
        return np.asarray(image)[:, :, None], True
    if image.mode.startswith("I;16"):
        grey = np.asarray(image)
        hidden = image.info.get("transparency")
        if hidden is None:
            return grey[:, :, None], True
        alpha = np.where(grey == hidden, np.uint16(0), np.uint16(65535))
        return np.dstack((grey, alpha)), True
    return decode_planes(image.convert("RGB") if image.mode == "HSV" else image, _NAME)


def image_of_picture(picture: Picture, name: str = _NAME) -> Image.Image:
    """The picture as a Pillow image of mode L, LA, RGB, RGBA, I;16 or F.

    Pillow has no deep colour and no deep transparency: these come in 8 bits, of
    floating point what lies in [0, 1]. Colour profile, EXIF, XMP and resolution are in
    `info`.

    Args:
        picture: The picture.
        name: What the log calls it.
    """
    planes = join_planes(picture)
    if planes.dtype != np.uint8 and planes.shape[2] > 1:
        depth = "16-bit" if planes.dtype == np.uint16 else "floating-point"
        log.warning(
            "%s: Pillow has no %s colour or transparency: 8 bits come back, where "
            "read_picture and write_picture keep all",
            name,
            depth,
        )
        planes = join_planes(reduce_depth(picture, 8))
    image = Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)
    metadata = scale_metadata(picture.metadata, (picture.width, picture.height))
    known = {
        "icc_profile": metadata.icc,
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "dpi": metadata.dpi,
    }
    image.info.update({key: value for key, value in known.items() if value is not None})
    return image
