"""Pictures from and to what Python programs hold: paths, Pillow images, arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srcli.errors import UsageError
from srcli.imaging.files import Picture, read_picture

# Modes that PNG holds as they are; TIFF holds the others, if any format does.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def picture_of_array(array: NDArray[Any]) -> Picture:
    """A grey or RGB array as a picture.

    Args:
        array: (H, W) or (H, W, 3), uint8 or uint16.

    Raises:
        UsageError: If it is anything else.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise UsageError(f"arrays must be uint8 or uint16, not {array.dtype}")
    is_grey = array.ndim == 2
    if array.size == 0 or not (is_grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise UsageError(f"arrays must be (H, W) or (H, W, 3), not {array.shape}")
    return Picture(array[:, :, None] if is_grey else array)


def array_of_picture(picture: Picture, ndim: int) -> NDArray[Any]:
    """The picture as an array of 2 dimensions (grey) or 3."""
    return picture.pixels[:, :, 0] if ndim == 2 else picture.pixels


def picture_of_image(image: Image.Image) -> Picture:
    """A Pillow image as a picture, decoded by the rules for files.

    Args:
        image: Any mode that a file can have; an EXIF orientation is applied.

    Raises:
        UsageError: If no file format holds its mode.
        InputError: If its mode would lose what it holds (floating point).
    """
    buffer = io.BytesIO()
    # Pillow writes the colour profile by itself, these only when told.
    options: dict[str, Any] = {"exif": image.getexif(), "dpi": image.info.get("dpi")}
    if image.mode in _PNG_MODES:
        options |= {"format": "PNG", "compress_level": 1}
    else:
        options |= {"format": "TIFF"}
    try:
        image.save(buffer, **options)
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"Pillow images of mode {image.mode} cannot be read: convert to RGB"
        ) from error
    return read_picture(buffer.getvalue())


def image_of_picture(picture: Picture) -> Image.Image:
    """The picture as a Pillow image of mode L, LA, RGB, RGBA, or I;16 for deep grey.

    Pillow has no deep colour and no deep transparency: these come in 8 bits. Colour
    profile, EXIF and resolution are in `info`.
    """
    planes: NDArray[Any] = picture.pixels
    if picture.alpha is not None:
        planes = np.concatenate((planes, picture.alpha[:, :, None]), axis=2)
    if planes.dtype == np.uint16 and planes.shape[2] > 1:
        planes = ((planes.astype(np.uint32) + 128) // 257).astype(np.uint8)
    image = Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else planes)
    metadata = picture.metadata
    known = {
        "icc_profile": metadata.icc,
        "exif": metadata.exif,
        "xmp": metadata.xmp,
        "dpi": metadata.dpi,
    }
    image.info.update({key: value for key, value in known.items() if value is not None})
    return image


def picture_of(image: Path | str | Image.Image | NDArray[Any]) -> Picture:
    """Whatever holds one picture, as a picture.

    Raises:
        UsageError: If it is of no kind that is known, or an array that is no picture.
        InputError: If a file cannot be read.
    """
    if isinstance(image, (str, Path)):
        return read_picture(Path(image))
    if isinstance(image, Image.Image):
        return picture_of_image(image)
    if isinstance(image, np.ndarray):
        return picture_of_array(image)
    kind = type(image).__name__
    raise UsageError(f"a path, Pillow image or NumPy array can be upscaled, not {kind}")
