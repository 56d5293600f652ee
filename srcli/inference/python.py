"""Arrays, tensors and Pillow images, enlarged and handed back as the same kind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, from_numpy, strided

from srcli.errors import InputError, UsageError
from srcli.imaging.exif import read_orientation
from srcli.imaging.files import read_picture
from srcli.imaging.geometry import turn_upright
from srcli.imaging.metadata import read_metadata, scale_metadata
from srcli.imaging.picture import Picture, join_planes, reduce_depth
from srcli.imaging.pillow import DECODE_ERRORS, decode_planes, explain, mend, quiet

log = logging.getLogger(__name__)

Enlarge = Callable[[Picture], Picture]
Enlarged = Picture | Image.Image | NDArray[Any] | Tensor
Given = Path | str | Enlarged

_NAME = "the Pillow image"
_TYPES = ("uint8", "uint16", "float16", "float32", "float64")


def map_pictures(given: Given, enlarge: Enlarge) -> Enlarged:
    """The enlarged pictures of `given`, as the same kind; of a path, a Pillow image.

    `given` is what `Upscaler` takes, and not modified; `enlarge` gets the pictures in
    turn, floating point as float32.

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
        return _map_array(given, enlarge)
    if isinstance(given, Tensor):
        return _map_tensor(given, enlarge)
    raise UsageError(
        "a path, Pillow image, NumPy array or PyTorch tensor can be upscaled, "
        f"not {type(given).__name__}"
    )


def _map_array(array: NDArray[Any], enlarge: Enlarge) -> NDArray[Any]:
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(
            "a masked array has no values under its mask: fill it first, as in "
            "array.filled(0)"
        )
    _check_layout("arrays", _TYPES, array.dtype.name, array.shape)
    return _map_checked(np.asarray(array), enlarge)


def _map_tensor(tensor: Tensor, enlarge: Enlarge) -> Tensor:
    if tensor.layout is not strided or tensor.is_meta:
        raise UsageError("sparse and meta tensors hold no picture: pass a dense one")
    dtype = str(tensor.dtype).removeprefix("torch.")
    _check_layout("tensors", (*_TYPES, "bfloat16"), dtype, tensor.shape)
    values = tensor.detach()
    if values.is_floating_point():
        values = values.float()  # NumPy has no bfloat16
    channels = -1 if tensor.ndim == 2 else -3
    pictures: NDArray[Any] = np.moveaxis(values.numpy(force=True), channels, -1)
    larger = np.moveaxis(_map_checked(pictures, enlarge), -1, channels)
    result = from_numpy(np.ascontiguousarray(larger))
    return result.to(tensor.device, tensor.dtype)


def _check_layout(
    kind: str, types: tuple[str, ...], dtype: str, shape: tuple[int, ...]
) -> None:
    """Refuse what is no grey picture, no picture with channels and no batch."""
    forms, channels, elsewhere = "(H, W), (H, W, C) or (N, H, W, C)", -1, -3
    advice = "channels come last, as in np.moveaxis(array, -3, -1)"
    if kind == "tensors":
        forms, channels, elsewhere = "(H, W), (C, H, W) or (N, C, H, W)", -3, -1
        advice = "channels come first, as in tensor.movedim(-1, -3)"
    if dtype not in types:
        raise UsageError(
            f"{kind} must be {', '.join(types[:-1])} or {types[-1]}, not {dtype}: "
            "convert it so that white is 255, 65535 or 1.0"
        )
    if 0 in shape:
        raise UsageError(f"{kind} must hold pixels: {tuple(shape)} is empty")
    has_channels = len(shape) in (3, 4)
    if len(shape) != 2 and not (has_channels and shape[channels] <= 4):
        hint = f": {advice}" if has_channels and shape[elsewhere] <= 4 else ""
        raise UsageError(
            f"{kind} must be {forms} with 1 to 4 channels C, not {tuple(shape)}{hint}"
        )


def _map_checked(pictures: NDArray[Any], enlarge: Enlarge) -> NDArray[Any]:
    """The enlarged pictures of an array that holds some, channels last."""
    if pictures.ndim == 4:
        return np.stack([_map_checked(picture, enlarge) for picture in pictures])
    if pictures.ndim == 2:
        return _map_checked(pictures[:, :, None], enlarge)[:, :, 0]
    larger = join_planes(enlarge(_split_planes(pictures)))
    return larger.astype(pictures.dtype, copy=False)


def _split_planes(planes: NDArray[Any]) -> Picture:
    """The picture whose colour and alpha are the channels of an array (H, W, C)."""
    if planes.dtype.kind != "f":
        planes = planes.astype(planes.dtype.newbyteorder("="), copy=False)
    else:
        # NaN is its own minimum and maximum, and infinity less infinity is NaN.
        with np.errstate(over="ignore", invalid="ignore"):
            planes = planes.astype(np.float32, copy=False)
            is_finite = np.isfinite(planes.max() - planes.min())
        if not is_finite:
            raise UsageError(
                "the picture has values that are NaN, infinite or too large for "
                "float32: replace them, for example by nan_to_num(picture, posinf=1, "
                "neginf=0)"
            )
    if planes.shape[2] in (1, 3):
        return Picture(np.ascontiguousarray(planes))
    alpha = np.ascontiguousarray(planes[:, :, -1])
    if planes.dtype == np.float32 and not 0 <= alpha.min() <= alpha.max() <= 1:
        raise UsageError(
            f"floating-point alpha must be in [0, 1], not {alpha.min():g} to "
            f"{alpha.max():g}: divide or clip it"
        )
    return Picture(np.ascontiguousarray(planes[:, :, :-1]), alpha)


def picture_of_image(image: Image.Image) -> Picture:
    """A Pillow image, or its current frame, as a picture, turned upright.

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
    said = image.info
    with quiet():
        try:
            mended = mend(image)  # before Pillow loads it, as `getexif` may
            turned = read_orientation(mended.getexif())
            mended.load()
            planes, own_colours = _decode(mended)
        except DECODE_ERRORS as error:
            raise InputError(f"{_NAME} cannot be decoded: {explain(error)}") from error
        finally:
            image.info = said  # what is given is not modified
    # Only now: Pillow turns TIFF files itself as it loads them.
    exif = image.getexif()
    picture = _split_planes(turn_upright(planes, read_orientation(exif)))
    size = (picture.width, picture.height)
    channels = picture.pixels.shape[2] if own_colours else 0
    metadata = read_metadata(image.info, exif, (), _NAME, channels, size, turned)
    return replace(picture, metadata=metadata)


def _decode(image: Image.Image) -> tuple[NDArray[Any], bool]:
    """The channels (H, W, C) of a loaded image; whether in its own colour space."""
    if image.mode == "F" or image.mode.startswith("I;16"):
        grey = np.asarray(image)
        hidden = image.info.get("transparency")
        if image.mode == "F" or hidden is None:
            return grey[:, :, None], True
        alpha = np.where(grey == hidden, np.uint16(0), np.uint16(65535))
        return np.dstack((grey, alpha)), True
    return decode_planes(image.convert("RGB") if image.mode == "HSV" else image, _NAME)


def image_of_picture(picture: Picture, name: str = _NAME) -> Image.Image:
    """The picture as a Pillow image of mode L, LA, RGB, RGBA, I;16 or F.

    Pillow has no deep colour and no deep transparency: these come in 8 bits, of
    floating point what lies in [0, 1], which the log says under `name`. Colour profile,
    EXIF, XMP and resolution are in `info`.
    """
    planes = join_planes(picture)
    if planes.dtype != np.uint8 and planes.shape[2] > 1:
        depth = "16-bit" if planes.dtype == np.uint16 else "floating-point"
        log.warning(
            "%s: Pillow has no %s colour or transparency: 8 bits come back, where "
            "read_picture and write_picture keep all",
            name, depth,
        )  # fmt: skip
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
