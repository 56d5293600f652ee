"""What the tests of measuring work out for themselves."""

import numpy as np
from PIL import Image

MATRIX = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]
)


def pictures_of(folder, scale=2):
    """The pictures of a folder, cropped to multiples of the scale."""
    for path in sorted(folder.iterdir()):
        pixels = np.asarray(Image.open(path))
        height, width = (length // scale * scale for length in pixels.shape[:2])
        yield pixels[:height, :width]


def luma(rgb):
    return rgb @ MATRIX[0] / 255 + 16


def rounded(values):
    return np.clip(np.floor(values + 0.5), 0, 255)
