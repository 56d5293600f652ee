"""Files, Pillow images, arrays and tensors come back larger and of the same kind."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import srcli
from srcli import Upscaler, upscale
from srcli.errors import InputError, UsageError
from srcli.imaging.files import write_picture
from srcli.imaging.picture import Picture
from srcli.imaging.resize import imresize
from srcli.inference.python import image_of_picture, picture_of_image

EXACT = {"device": "cpu", "precision": "fp32", "tile": 0}
SHAPES = [(6, 5), (6, 5, 1), (6, 5, 2), (6, 5, 3), (6, 5, 4), (2, 6, 5, 3)]
DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]
# Every shape with one of the types, every type with a shape or two.
KINDS = [(shape, DTYPES[n % 5]) for n, shape in enumerate(SHAPES)]


def white(dtype):
    return 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max


def draw(shape, dtype):
    """Random levels; alpha, where there is some, is opaque."""
    values = np.random.default_rng(0).random(shape)
    if len(shape) > 2 and shape[-1] in (2, 4):
        values[..., -1] = 1
    return (values * white(dtype)).astype(dtype)


def bicubic(array):
    """What bicubic interpolation of every channel by 2 gives, within the levels."""
    working = np.float32 if array.dtype.kind == "f" else array.dtype
    pictures = array if array.ndim == 4 else array[None]
    larger = np.stack([imresize(each.astype(working), 2) for each in pictures])
    result = larger if array.ndim == 4 else larger[0]
    return result.clip(0, white(array.dtype)).astype(array.dtype)


@pytest.fixture(scope="module")
def mrnet():
    return srcli.load_model("mrnet", 2)


# Arrays and tensors


@pytest.mark.parametrize(("shape", "dtype"), KINDS, ids=str)
def test_arrays_and_tensors_keep_their_kind(shape, dtype):
    array = draw(shape, dtype)
    kept = array.copy()
    array.flags.writeable = False
    result = upscale(array, "bicubic", 2)
    assert type(result) is np.ndarray
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, bicubic(kept))
    np.testing.assert_array_equal(array, kept)
    tensor = torch.from_numpy(kept)  # which has channels first
    tensor = tensor.movedim(-1, -3) if len(shape) > 2 else tensor
    larger = upscale(tensor, "bicubic", 2)
    assert larger.dtype == tensor.dtype
    larger = larger.movedim(-3, -1) if len(shape) > 2 else larger
    np.testing.assert_array_equal(larger.numpy(), result)


def test_bfloat16_and_gradients():
    tensor = torch.rand(3, 6, 5, requires_grad=True).bfloat16()
    result = upscale(tensor, "bicubic", 2)
    assert result.dtype == torch.bfloat16
    assert not result.requires_grad
    assert torch.equal(result, upscale(tensor.float(), "bicubic", 2).bfloat16())


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensors_come_back_to_their_device(device):
    tensor = torch.ones(2, 3, 6, 5).to(torch.uint16)
    result = upscale(tensor.cuda(), "mrnet", 2, device=device)
    assert (result.device.type, result.dtype) == ("cuda", torch.uint16)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
        lambda a: a.view(type("Own", (np.ndarray,), {})),
    ],
    ids=["Fortran", "swapped", "backwards", "subclass"],
)
def test_layout_and_byte_order_do_not_matter(arrange):
    array = draw((6, 5, 4), "uint16")
    arranged = arrange(array)
    result = upscale(arranged, "bicubic", 2)
    assert type(result) is np.ndarray
    assert result.dtype == arranged.dtype
    np.testing.assert_array_equal(result, upscale(array, "bicubic", 2))


def test_values_are_what_the_network_gives(mrnet, picture):
    lr = torch.rand(2, 3, 12, 10)
    with torch.inference_mode():
        expected = mrnet(lr, 2).clamp(0, 1)
    result = upscale(lr, mrnet, 2, **EXACT)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)
    fractions = picture(12, 10) / 255
    exact = upscale(fractions, mrnet, 2, **EXACT)
    for dtype in ("uint8", "uint16"):
        levels = np.rint(fractions * white(dtype)).astype(dtype)
        whole = upscale(levels, mrnet, 2, **EXACT)
        assert np.abs(whole - exact * white(dtype)).max() < 0.51


def test_a_wider_range_is_scaled_to_and_from_the_network(mrnet):
    low, high = black, white = -3, 12
    light = torch.rand(3, 10, 12) * (high - low) + low
    light[:, 0, 0], light[:, 0, 1] = low, high
    with torch.inference_mode():
        seen = (light - black) / (white - black)
        expected = mrnet(seen[None], 2)[0].clamp(0, 1) * (white - black) + black
    result = upscale(light, mrnet, 2, **EXACT)
    torch.testing.assert_close(result, expected, atol=2e-5 * (white - black), rtol=0)


def test_every_picture_of_a_batch_is_enlarged_by_itself(mrnet):
    array = draw((3, 8, 9, 3), "float32") * np.array([1, 4, 9], "f").reshape(3, 1, 1, 1)
    result = upscale(array, mrnet, 2, **EXACT)
    singles = [upscale(each, mrnet, 2, **EXACT) for each in array]
    np.testing.assert_array_equal(result, singles)


def test_the_last_of_four_channels_is_opacity():
    dtype = "float32"
    array = np.zeros((16, 16, 4), dtype)
    array[:, 5:11] = np.array([0.75, 0.5, 0.25, 1]) * white(dtype)
    result = upscale(array, "bicubic", 2).astype(np.float32)
    np.testing.assert_array_equal(result[:, :, 3], bicubic(array[:, :, 3]))
    seen = result[result[:, :, 3] > 0] / np.float32(white(dtype))
    assert np.abs(seen[:, :3] - (0.75, 0.5, 0.25)).max() < 0.004  # no dark fringe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4), bool), "not bool"),
        (np.zeros((4, 4, 5), np.uint8), "channels"),
        (np.zeros((3, 8, 9), np.uint8), r"np.moveaxis\(array, -3, -1"),
        (np.zeros((0, 4, 4, 3), np.uint8), "is empty"),
        (np.ma.masked_equal(np.zeros((4, 4), np.uint8), 1), "array.filled"),
        (np.array([[0, math.nan]]), "NaN"),
        (np.array([[0, -1e300]]), "too large for float32"),
        (np.full((4, 4, 4), 200.0), "alpha"),
        (torch.zeros(8, 9, 3), r"tensor.movedim\(-1, -3\)"),
        (torch.zeros(4, 4).to_sparse(), "sparse"),
        ([[1, 2]], "not list"),
        (Image.new("I", (4, 4)), "mode"),
        (Image.new("RGB", (0, 4)), "0x4 is empty"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(given, message):
    with pytest.raises(UsageError, match=message) as caught:
        upscale(given, "bicubic", 2)
    assert "\n" not in str(caught.value)


# Files and Pillow images


def test_every_kind_of_input(picture, tmp_path):
    pixels, path = picture(9, 7), tmp_path / "in.png"
    write_picture(Picture(pixels), path)
    for given, becomes in [
        (str(path), Image.Image),
        (path, Image.Image),
        (pixels, np.ndarray),
        (Image.open(path), Image.Image),  # not yet decoded
        (Picture(pixels), Picture),
    ]:
        for result in (upscale(given, "bicubic", 2), Upscaler("bicubic", 2)(given)):
            assert isinstance(result, becomes)
            planes = result.pixels if becomes is Picture else np.asarray(result)
            np.testing.assert_array_equal(planes, imresize(pixels, 2))


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [
        ("1", "L"), ("La", "LA"), ("RGBA", "RGBA"), ("PA", "RGBA"), ("CMYK", "RGB"),
        ("HSV", "RGB"), ("I;16B", "I;16"), ("F", "F"),
    ],
)  # fmt: skip
def test_pillow_modes(mode, becomes):
    image = Image.linear_gradient("L").resize((12, 10))
    for step in {"La": ["LA"], "I;16B": ["I"]}.get(mode, []):
        image = image.convert(step)
    if mode not in ("F", "La", "I;16B"):
        image = image.convert("RGB")
    result = upscale(image.convert(mode), "bicubic", 2)
    assert (result.mode, result.size) == (becomes, (24, 20))


def test_a_colour_or_level_that_stands_for_transparency_becomes_alpha():
    image = Image.new("P", (6, 6), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.paste(0, (0, 0, 6, 3))
    image.info["transparency"] = 0
    result = upscale(image, "bicubic", 2)
    assert result.mode == "RGBA"
    assert result.getpixel((6, 11)) == (40, 50, 60, 255)
    assert result.getpixel((6, 0))[3] == 0
    grey = np.full((6, 6), 40000, np.uint16)
    grey[:3] = 7
    image = Image.fromarray(grey)
    image.info["transparency"] = 7
    picture = picture_of_image(image)
    np.testing.assert_array_equal(picture.pixels[:, :, 0], grey)
    np.testing.assert_array_equal(picture.alpha, np.where(grey == 7, 0, 65535))


@pytest.mark.parametrize("mode", ["RGB", "F"])
def test_what_an_image_says_of_itself_passes_through(mode):
    image = Image.new(mode, (12, 8))
    said = '<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{}"/>'
    image.info.update(dpi=(72, 72), xmp=said.format(6).encode())
    if mode != "F":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        image.info["icc_profile"] = profile
    image.getexif()[0x010E] = "a plain field"
    image.getexif()[0x0112] = 6
    result = upscale(image, "bicubic", 2)
    assert result.size == (16, 24)  # turned upright
    assert image.size == (12, 8)
    assert result.info.get("icc_profile") == image.info.get("icc_profile")
    assert result.info["dpi"] == (72, 72)
    assert result.info["xmp"] == said.format(1).encode()
    assert result.getexif()[0x010E] == "a plain field"
    assert result.getexif().get(0x0112, 1) == 1


def test_of_an_animation_the_current_frame_is_enlarged():
    file = io.BytesIO()
    frames = [Image.new("L", (6, 6), level) for level in (10, 20, 30)]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    with Image.open(file) as image:
        image.seek(1)
        result = upscale(image, "bicubic", 2).convert("L")
        assert image.tell() == 1
    assert result.getextrema() == (20, 20)


def test_an_image_that_is_cut_off_is_an_input_error(picture):
    file = io.BytesIO()
    Image.fromarray(picture(40, 40)).save(file, format="PNG")
    with (
        Image.open(io.BytesIO(file.getvalue()[:-900])) as image,
        pytest.raises(InputError, match="cannot be decoded"),
    ):
        upscale(image, "bicubic", 2)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deep_colour_becomes_an_image_of_8_bits_which_is_said(picture, dtype, caplog):
    planes = (picture(5, 6, 4) / 256 * white(dtype)).astype(dtype)
    result = image_of_picture(Picture(planes[:, :, :3], planes[:, :, 3]), "deep.tif")
    expected = np.floor(planes.astype(float) / white(dtype) * 255 + 0.5)
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert caplog.messages[0].startswith("deep.tif: Pillow has no")
