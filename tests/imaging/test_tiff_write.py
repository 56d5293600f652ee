"""TIFFs written whole or in pieces, in tiles: what other libraries read of them."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from sample_files import check, make_planes, make_rich_exif, picture_of, srgb_profile

from srcli.imaging.files import Metadata, encode_picture, read_picture
from srcli.imaging.tiff import write as tiff_write
from srcli.imaging.tiff.write import TileWriter

CUTS = {
    "whole": [(0, 24, 0, 32)],
    "bands": [(0, 5, 0, 32), (5, 21, 0, 32), (21, 24, 0, 32)],
    "tiles": [(y, min(24, y + 16), x, x + 16) for x in (16, 0) for y in (16, 0)],
    "odd": [(9, 24, 7, 32), (0, 9, 0, 30), (0, 9, 30, 32), (9, 24, 0, 7)],
}


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(tiff_write, "TILE", 16)


def write(planes, cuts, metadata=None):
    file = io.BytesIO()
    size, channels = planes.shape[:2], planes.shape[2]
    writer = TileWriter(file, size, channels, planes.dtype, metadata or Metadata())
    for top, bottom, left, right in cuts:
        writer.add(top, left, planes[top:bottom, left:right])
    writer.finish()
    return file.getvalue()


KINDS = [(1, np.uint8), (2, np.uint16), (3, np.float32), (4, np.uint8)]


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
def test_a_picture_written_in_pieces(dtype, channels):
    """As libtiff reads it, which has no part in the writing."""
    planes = make_planes(channels, dtype)
    data = write(planes, list(CUTS.values())[(channels + planes.itemsize) % 4])
    again = imagecodecs.tiff_decode(data)
    assert again.dtype == dtype
    assert np.array_equal(again.reshape(planes.shape), planes)
    check(data, planes)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.is_bigtiff
        (page,) = tiff.pages
        assert page.is_tiled
        assert np.array_equal(page.asarray().reshape(planes.shape), planes)
        kinds = (tifffile.EXTRASAMPLE.UNASSALPHA,) if channels in (2, 4) else ()
        assert page.extrasamples == kinds


@pytest.mark.parametrize(("channels", "dtype"), KINDS)
def test_a_picture_written_in_strips(dtype, channels, monkeypatch):
    monkeypatch.setattr(tiff_write, "_STRIP", 500)
    height, width = [(24, 32), (1, 7), (9, 1), (1, 1)][channels - 1]
    planes = make_planes(channels, dtype)[:height, :width]
    data = encode_picture(picture_of(planes), "tiff")
    again = imagecodecs.tiff_decode(data)
    assert again.dtype == dtype
    assert (again.reshape(planes.shape) == planes).all()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert not tiff.is_bigtiff
        (page,) = tiff.pages
        kinds = (tifffile.EXTRASAMPLE.UNASSALPHA,) if channels in (2, 4) else ()
        assert page.extrasamples == kinds
        assert len(page.dataoffsets) == -(-height // page.rowsperstrip)


def test_metadata_are_written_as_in_strips():
    exif = make_rich_exif()
    metadata = Metadata(icc=srgb_profile(), exif=exif, dpi=(300, 200), xmp=b"<x/>")
    again = read_picture(write(make_planes(3), CUTS["odd"], metadata)).metadata
    assert (again.icc, again.dpi, again.xmp) == (metadata.icc, (300, 200), b"<x/>")
    found = Image.Exif()
    found.load(again.exif)
    assert found.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert found.get_ifd(0x8825)[1] == "N"


def test_a_missing_part_is_no_black_one():
    with pytest.raises(ValueError, match="parts of the picture"):
        write(make_planes(3), CUTS["odd"][1:])
