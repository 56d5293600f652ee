"""The page beside an enlarged picture: what it shows of pictures of every kind."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
from PIL import ImageCms

from srcli.imaging.alpha import fill_transparent
from srcli.imaging.files import Metadata, Picture
from srcli.imaging.resize import imresize
from srcli.pages import comparison
from srcli.pages.comparison import write_comparison

FACTS = {"Model": "mrnet", "Scale": "x4"}
WHITE = {np.uint8: 255, np.uint16: 65535, np.float32: 1}


@pytest.fixture
def compare(tmp_path, read_page):
    """A function that writes the page of two pictures, and reads it."""

    def write(source, result, facts=FACTS, title="photo.png"):
        path = tmp_path / "page.html"
        write_comparison(source, result, path, title=title, facts=facts)
        return read_page(path)

    return write


@pytest.fixture
def pair(picture):
    """A function that makes a source, and a result that differs from bicubic."""

    def make(height=60, width=80, scale=4, channels=3, dtype=np.uint8, alpha=False):
        pixels = picture(height, width, channels)
        opacity = picture(height, width, 1)[:, :, 0] if alpha else None
        if opacity is not None:
            opacity[: height // 3] = 0
            opacity = (opacity / 255 * WHITE[dtype]).astype(dtype)
        pixels = (pixels / 255 * WHITE[dtype]).astype(dtype)
        larger = pixels.repeat(scale, 0).repeat(scale, 1)
        size = larger.shape[:2]
        opaque = None if opacity is None else imresize(opacity, size=size)
        return Picture(pixels, opacity), Picture(larger, opaque)

    return make


def narrow(values, white):
    return np.floor(values.astype(np.float64) * 255 / white + 0.5).clip(0, 255)


def squeezed(pixels):
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def shots(page):
    """The crops: place, pixels of bicubic, pixels of ours."""
    places = re.findall(r"(\d+) \S (\d+) pixels at x (\d+), y (\d+)", page.text)
    images = [image for image in page.images if image.kind is None]
    for number, place in enumerate(places):
        width, height, left, top = map(int, place)
        pair = images[2 * number : 2 * number + 2]
        assert [image.alt for image in pair] == ["Bicubic", "mrnet"]
        assert all(image.size == (width, height) for image in pair)
        where = (slice(top, top + height), slice(left, left + width))
        yield where, *(image.pixels for image in pair)


@pytest.mark.parametrize(
    ("dtype", "channels", "scale"),
    [(np.uint8, 3, 3), (np.uint8, 1, 2), (np.uint16, 3, 2), (np.float32, 1, 3)],
)
def test_both_pictures_are_shown_to_the_last_pixel(
    compare, pair, dtype, channels, scale
):
    source, result = pair(100, 130, scale, channels, dtype)
    page = compare(source, result)
    bicubic = imresize(source.pixels, size=result.pixels.shape[:2])
    assert [image.kind for image in page.images[:2]] == ["before", "after"]
    before, after = (image.pixels for image in page.images[:2])
    for shown, expected in ((before, bicubic), (after, result.pixels)):
        difference = np.abs(shown - squeezed(narrow(expected, WHITE[dtype])))
        # Floating point may fall on either side of a tie.
        assert difference.max() <= (1 if dtype == np.float32 else 0)
    found = list(shots(page))
    assert len(found) >= 3
    seen = np.zeros(result.pixels.shape[:2], int)
    for where, theirs, own in found:
        assert np.array_equal(theirs, before[where])
        assert np.array_equal(own, after[where])
        seen[where] += 1
    assert seen.max() == 1


def test_transparent_pictures_lie_over_a_checkerboard(compare, pair):
    source, result = pair(alpha=True)
    page = compare(source, result)
    filled = fill_transparent(source.pixels, source.alpha)
    size = result.pixels.shape[:2]
    expected = np.dstack([imresize(filled, size=size), result.alpha])
    assert np.array_equal(page.images[0].pixels, expected)
    assert any("checkered" in known.get("class", "") for _, known in page.tags)
    assert len(list(shots(page))) >= 3

    opaque = compare(*pair())
    assert not any("checkered" in known.get("class", "") for _, known in opaque.tags)


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint16, 1), (np.float32, 3)])
def test_transparent_pictures_of_any_depth(compare, pair, dtype, channels):
    page = compare(*pair(channels=channels, dtype=dtype, alpha=True))
    assert page.images[1].pixels.shape == (240, 320, channels + 1)


@pytest.mark.parametrize(
    ("size", "alpha"), [((1, 1), True), ((1, 300), False), ((3, 2), False)]
)
def test_tiny_pictures_are_magnified_in_the_slider_only(compare, pair, size, alpha):
    source, result = pair(*size, alpha=alpha)
    page = compare(source, result)
    height, width, _ = result.pixels.shape
    slider, crop = page.images[0], page.images[-1]
    assert max(slider.size) <= max(320, height, width)
    assert slider.size[0] / width == slider.size[1] / height >= 1
    assert (min(height, 64), min(width, 64)) == crop.size[::-1]


def test_large_pictures_are_reduced_in_the_slider_only(compare, pair, monkeypatch):
    monkeypatch.setattr(comparison, "LONGEST", 300)
    source, result = pair(200, 120, 4)
    page = compare(source, result)
    assert "Reduced to 180 \xd7 300 of 480 \xd7 800 pixels." in page.text
    for image, picture in zip(page.images[:2], (source, result), strict=True):
        reduced = imresize(picture.pixels, size=(300, 180)).astype(int)
        # That one is rounded after each of the two passes.
        assert np.abs(image.pixels - reduced).max() <= 2
    assert {image.size for image in page.images[2:]} == {(137, 137)}
    assert len(page.images) == 2 + 2 * 6


def test_pictures_without_any_difference_have_a_page(compare, pair):
    source, _ = pair()
    same = Picture(imresize(source.pixels, 4.0))
    assert len(list(shots(compare(source, same)))) >= 4


@pytest.mark.parametrize("size", [(97, 131), (61, 240)])
def test_any_size_of_the_result(compare, pair, size):
    source, _ = pair()
    result = Picture(imresize(source.pixels, size=size))
    page = compare(source, result)
    for _, theirs, own in shots(page):
        assert np.array_equal(theirs, own)


def test_floating_point_is_shown_between_the_levels_of_the_source(compare, pair):
    source, _ = pair(dtype=np.float32)
    source = Picture(source.pixels * 6 - 2)
    bicubic = imresize(source.pixels, 4.0)  # which swings over
    page = compare(source, Picture(bicubic))
    black, white = source.levels
    assert white > 3
    expected = narrow(bicubic - black, white - black)
    for image in page.images[:2]:
        assert np.abs(image.pixels - expected).max() <= 1


def test_only_the_profile_of_the_metadata_is_in_the_page(compare, pair, tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    metadata = Metadata(icc=icc, exif=b"Exif\0\0secret", xmp=b"<secret/>", dpi=(72, 72))
    source, result = (
        Picture(picture.pixels, picture.alpha, metadata) for picture in pair(150, 200)
    )
    page = compare(source, result)
    for image in page.images:
        assert image.info["icc_profile"] == icc
        assert not {"exif", "xmp", "dpi"} & set(image.info)


def test_facts_and_title_are_shown(compare, pair):
    title = "<my> \udcff photo.png"
    facts = {"Scale": "x2.5 & more", "MODEL": "rrrn </dl>"}
    page = compare(*pair(10, 10), facts=facts, title=title)
    for text in ("<my> \ufffd photo.png", "x2.5 & more", "rrrn </dl>", "Bicubic"):
        assert text in page.text
    assert page.images[1].alt == "rrrn </dl>"
    assert compare(*pair(10, 10), facts={}).images[1].alt == "srcli"


def test_a_large_picture_is_never_copied(tmp_path, pair, monkeypatch):
    """A page takes less memory than the picture, of which there may be gigabytes."""
    monkeypatch.setattr(comparison, "LONGEST", 300)
    source, _ = pair(500, 376)
    result = Picture(np.broadcast_to(np.uint8(77), (4000, 3000, 3)))
    tracemalloc.start()
    write_comparison(source, result, tmp_path / "a.html", title="a", facts={})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.6 * result.pixels.size
    assert (tmp_path / "a.html").stat().st_size < 6_000_000
