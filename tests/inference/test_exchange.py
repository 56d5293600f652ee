"""Files and Pillow images come back larger and of the same kind."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageCms

from srcli import Upscaler, upscale
from srcli.errors import InputError, UsageError
from srcli.imaging.files import Picture, write_picture
from srcli.imaging.resize import imresize
from srcli.inference.python import image_of_picture, picture_of_image


@pytest.mark.parametrize("kind", [str, "path", "array", "image", "picture"])
def test_every_kind_of_input(picture, tmp_path, kind):
    pixels = picture(9, 7)
    path = tmp_path / "in.png"
    write_picture(Picture(pixels), path)
    given, becomes = {
        str: (str(path), Image.Image),
        "path": (path, Image.Image),
        "array": (pixels, np.ndarray),
        "image": (Image.fromarray(pixels), Image.Image),
        "picture": (Picture(pixels), Picture),
    }[kind]
    for result in (upscale(given, "bicubic", 2), Upscaler("bicubic", 2)(given)):
        assert isinstance(result, becomes)
        planes = result.pixels if kind == "picture" else np.asarray(result)
        np.testing.assert_array_equal(planes, imresize(pixels, 2))


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [
        ("1", "L"), ("L", "L"), ("LA", "LA"), ("La", "LA"), ("RGB", "RGB"),
        ("RGBX", "RGB"), ("RGBA", "RGBA"), ("RGBa", "RGBA"), ("P", "RGB"),
        ("PA", "RGBA"), ("CMYK", "RGB"), ("YCbCr", "RGB"), ("HSV", "RGB"),
        ("I;16", "I;16"), ("I;16B", "I;16"), ("F", "F"),
    ],
)  # fmt: skip
def test_pillow_modes(mode, becomes):
    image = Image.linear_gradient("L").resize((12, 10))
    for step in {"La": ["LA"], "RGBa": ["RGBA"], "I;16B": ["I"]}.get(mode, []):
        image = image.convert(step)
    if mode not in ("L", "F", "I;16", "La", "I;16B"):
        image = image.convert("RGB" if mode != "RGBa" else "RGBA")
    result = upscale(image.convert(mode), "bicubic", 2)
    assert result.mode == becomes
    assert result.size == (24, 20)


def test_floating_point_grey_keeps_its_values():
    values = np.linspace(-0.5, 3, 30, dtype=np.float32).reshape(5, 6)
    result = upscale(Image.fromarray(values), "bicubic", 3)
    expected = imresize(values, 3).clip(-0.5, 3)
    np.testing.assert_array_equal(np.asarray(result), expected)


def test_a_transparent_palette_colour_becomes_alpha():
    image = Image.new("P", (6, 6), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, 6, 3))
    image.info["transparency"] = 0
    result = upscale(image, "bicubic", 2)
    assert result.mode == "RGBA"
    assert result.getpixel((6, 11)) == (40, 50, 60, 255)
    assert result.getpixel((6, 0))[3] == 0


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "F"])
def test_what_an_image_says_of_itself_passes_through(mode):
    image = Image.new(mode, (6, 6))
    said = '<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'
    image.info.update(dpi=(72, 72), xmp=said.format(6).encode())
    if mode != "F":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        image.info["icc_profile"] = profile
    image.getexif()[0x010E] = "a plain field"
    result = upscale(image, "bicubic", 2)
    assert result.info.get("icc_profile") == image.info.get("icc_profile")
    assert result.info["dpi"] == (72, 72)
    assert result.info["xmp"] == said.format(1).encode()
    assert result.getexif()[0x010E] == "a plain field"


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "F"])
def test_a_turned_photograph_is_turned_upright(mode):
    image = Image.new(mode, (12, 8))
    image.getexif()[0x0112] = 6
    result = upscale(image, "bicubic", 2)
    assert result.size == (16, 24)
    assert result.getexif().get(0x0112, 1) == 1
    assert image.size == (12, 8)


def test_an_image_that_is_not_yet_decoded(picture, tmp_path):
    path = tmp_path / "in.png"
    write_picture(Picture(picture(9, 7)), path)
    with Image.open(path) as image:
        result = upscale(image, "bicubic", 2)
    np.testing.assert_array_equal(np.asarray(result), imresize(picture(9, 7), 2))


def test_of_an_animation_the_current_frame_is_enlarged():
    file = io.BytesIO()
    frames = [Image.new("L", (6, 6), level) for level in (10, 20, 30)]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    with Image.open(file) as image:
        image.seek(1)
        result = upscale(image, "bicubic", 2).convert("L")
        assert image.tell() == 1
    assert result.getextrema() == (20, 20)


def test_a_level_of_deep_grey_that_stands_for_transparency():
    grey = np.full((6, 6), 40000, np.uint16)
    grey[:3] = 7
    image = Image.fromarray(grey)
    image.info["transparency"] = 7
    picture = picture_of_image(image)
    np.testing.assert_array_equal(picture.pixels[:, :, 0], grey)
    np.testing.assert_array_equal(picture.alpha, np.where(grey == 7, 0, 65535))


def test_an_image_that_is_cut_off_is_an_input_error(picture):
    file = io.BytesIO()
    Image.fromarray(picture(40, 40)).save(file, format="PNG")
    with (
        Image.open(io.BytesIO(file.getvalue()[:-900])) as image,
        pytest.raises(InputError, match="cannot be decoded"),
    ):
        upscale(image, "bicubic", 2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("I", (4, 4)), 'convert to mode "I;16" or "F"'),
        (Image.new("F", (4, 4), math.inf), "infinite"),
        (Image.new("RGB", (0, 4)), "0x4 is empty"),
    ],
)
def test_images_without_a_meaning_are_refused(image, message):
    with pytest.raises(UsageError, match=message):
        upscale(image, "bicubic", 2)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("dtype", "white"), [("uint16", 65535), ("float32", 1)])
def test_deep_colour_becomes_an_image_of_8_bits_which_is_said(
    picture, dtype, white, channels, caplog
):
    planes = (picture(5, 6, channels) / 256 * white).astype(dtype)
    alpha = planes[:, :, 3] if channels == 4 else None
    result = image_of_picture(Picture(planes[:, :, :3], alpha), "deep.tif")
    expected = np.floor(planes.astype(float) / white * 255 + 0.5)
    np.testing.assert_array_equal(np.asarray(result), expected)
    (record,) = caplog.records
    assert record.getMessage().startswith("deep.tif: Pillow has no")
