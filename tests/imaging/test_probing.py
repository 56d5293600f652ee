"""What a header says: without the pixels, and no other than what is then read."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from exact import planes_of
from PIL import ImageFile
from sample_files import (
    HEIGHT,
    SAMPLES,
    WIDTH,
    chunk,
    make_exif,
    make_png,
    png_of,
    sample,
)

from srcli.imaging.files import probe_picture, read_picture

FRAMES = {name: 2 for name in SAMPLES if "animated" in name or "pages" in name}
FRAMES |= {"apng": 2}


@pytest.mark.parametrize("name", SAMPLES)
def test_probing_agrees_with_reading_and_decodes_nothing(name, monkeypatch):
    frame = FRAMES.get(name)
    with monkeypatch.context() as patch:
        forbid_decoding(patch)
        # Pillow composes the frames before the one that it is asked for.
        early = 1 if name.startswith(("gif", "apng")) else frame
        assert probe_picture(sample(name), frame=early).width > 0
    info = probe_picture(sample(name), frame=frame)
    result = read_picture(sample(name), frame=frame)
    assert (info.width, info.height) == (result.width, result.height)
    assert info.alpha == (result.alpha is not None)
    assert (info.depth, info.format) == (result.depth, result.format)
    assert info.channels == result.pixels.shape[2]
    assert info.frames == FRAMES.get(name, 2 if name == "mpo" else 1)
    if name != "tiff-12bit":
        assert sorted((info.width, info.height)) == [HEIGHT, WIDTH]
    # The pixels are in memory of their own, in order, and to be written to.
    assert result.pixels.dtype in (np.uint8, np.uint16, np.float32)
    assert result.pixels.flags.c_contiguous
    assert result.alpha is None or result.alpha.flags.c_contiguous
    # The picture of which these are made is not flat.
    levels = result.levels[1] - result.levels[0]
    assert np.ptp(planes_of(result)[:, :, :3]) > 0.5 * levels


def forbid_decoding(patch):
    def forbid(*_, **__):
        raise AssertionError("decoded")

    def load(image):
        # A file of one pixel, where Pillow is asked what a PNG says beside its own.
        assert image.size == (1, 1), "decoded"
        return plainly(image)

    plainly = ImageFile.ImageFile.load
    patch.setattr(ImageFile.ImageFile, "load", load)
    for decode in ("png_decode", "avif_decode", "cms_transform"):
        patch.setattr(imagecodecs, decode, forbid)
    patch.setattr(tifffile.TiffPage, "asarray", forbid)


def test_probing_reads_past_the_pixels(tmp_path):
    """A PNG that says its orientation behind them, and has none that can be decoded."""
    whole = png_of(
        np.zeros((4, 6, 3), np.uint8), after=chunk(b"eXIf", make_exif(6)[6:])
    )
    at = whole.index(b"IDAT")
    path = tmp_path / "turned.png"
    path.write_bytes(whole[: at + 6] + bytes(4) + whole[at + 10 :])
    info = probe_picture(path)
    assert (info.width, info.height) == (4, 6)


def test_large_pictures_need_no_memory_to_be_probed():
    # Beyond both of Pillow's own limits, without a warning.
    info = probe_picture(make_png(20_000, 20_000, 8, 2, b""))
    assert (info.width, info.height) == (20_000, 20_000)
