"""BT.601 studio-range colour: the standard's own corner values, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srcli.imaging.color import (
    rgb_to_y,
    rgb_to_y_uint8,
    rgb_to_ycbcr_torch,
    ycbcr_to_rgb_torch,
)

# Colour, then Y, Cb, Cr by ITU-R BT.601: Y spans 219 levels from 16, Cb and Cr span
# 224 levels around 128; 0.299, 0.587 and 0.114 are the shares of red, green and blue.
CORNERS = {
    "black": ((0, 0, 0), (16, 128, 128)),
    "white": ((255, 255, 255), (235, 128, 128)),
    "red": ((255, 0, 0), (16 + 219 * 0.299, 128 - 112 * 0.299 / 0.886, 240)),
    "green": (
        (0, 255, 0),
        (16 + 219 * 0.587, 128 - 112 * 0.587 / 0.886, 128 - 112 * 0.587 / 0.701),
    ),
    "blue": ((0, 0, 255), (16 + 219 * 0.114, 240, 128 - 112 * 0.114 / 0.701)),
}


@pytest.mark.parametrize(("rgb", "ycbcr"), CORNERS.values(), ids=CORNERS)
def test_corners(rgb, ycbcr):
    picture = np.array([[rgb]], np.uint8)
    assert rgb_to_y(picture)[0, 0] == pytest.approx(ycbcr[0], abs=1e-9)
    assert rgb_to_y_uint8(picture).dtype == np.uint8
    assert rgb_to_y_uint8(picture)[0, 0] == round(ycbcr[0])
    pixel = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1) / 255
    result = rgb_to_ycbcr_torch(pixel).flatten() * 255
    # MATLAB's table has three decimals of a level.
    assert result.tolist() == pytest.approx(list(ycbcr), abs=1e-3)


def test_uint8_luma_is_the_nearest_level():
    steps = np.arange(0, 256, 5)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    thousandths = rgb @ np.array([65481, 128553, 24966])  # of 255 levels above 16
    nearest = 16 + (2 * thousandths + 255_000) // 510_000
    ties = (2 * thousandths + 255_000) % 510_000 == 0
    result = rgb_to_y_uint8(rgb.astype(np.uint8))
    np.testing.assert_array_equal(result[~ties], nearest[~ties])


def test_there_and_back():
    rgb = torch.rand(2, 3, 7, 5)
    back = ycbcr_to_rgb_torch(rgb_to_ycbcr_torch(rgb))
    assert back.dtype == torch.float32
    assert (back - rgb).abs().max() < 1e-6
