"""Pictures compared with what they have to be, level by level."""

import numpy as np

from srcli.imaging.files import Picture, probe_picture, read_picture

KINDS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha"}


def planes_of(picture):
    """Colours and opacity as one array."""
    if picture.alpha is None:
        return picture.pixels
    return np.dstack((picture.pixels, picture.alpha))


def picture_of(planes):
    if planes.shape[2] in (2, 4):
        return Picture(planes[:, :, :-1], planes[:, :, -1])
    return Picture(planes)


def check(data, expected, *, frame=None):
    """A file is read exactly so, and its header says no more and no less."""
    result = read_picture(data, frame=frame)
    planes = planes_of(result)
    assert planes.dtype == expected.dtype
    assert planes.shape == expected.shape
    assert (planes == expected).all()
    info = probe_picture(data, frame=frame)
    assert (info.width, info.height) == (result.width, result.height)
    assert (info.depth, info.format) == (result.depth, result.format)
    assert info.alpha == (result.alpha is not None)
    assert info.channels == result.pixels.shape[2]
    return result
