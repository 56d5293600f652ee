"""Picture files: every kind of picture in, the same kind out, or one clear error."""

import logging

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, JpegImagePlugin
from sample_files import opened, save

from srcli.errors import InputError, OutputError, UsageError
from srcli.imaging import encode
from srcli.imaging.files import (
    Picture,
    encode_picture,
    read_picture,
    write_picture,
)

LOSSLESS = ("png", "tiff", "bmp")


def read_back(picture, format, quality=95):
    return read_picture(encode_picture(picture, format, quality))


# What comes in


@pytest.mark.parametrize("format", LOSSLESS)
def test_opaque_pixels_are_read_and_written_exactly(format, picture):
    mode, channels = ("L", 1) if format == "tiff" else ("RGB", 3)
    pixels = picture(channels=channels)
    image = Image.fromarray(pixels.squeeze())
    result = read_picture(save(image, format))
    assert (result.pixels == pixels).all()
    assert (result.alpha, result.format) == (None, format)
    again = opened(encode_picture(result, format))
    assert again.mode == mode
    assert (np.asarray(again) == pixels.squeeze()).all()


@pytest.mark.parametrize(
    ("format", "mode", "channels"), [("png", "LA", 2), ("tiff", "RGBA", 4)]
)
def test_transparency_is_read_and_written_exactly(format, mode, channels, picture):
    planes = picture(channels=channels)
    result = read_picture(save(Image.fromarray(planes), format))
    assert (result.pixels == planes[:, :, :-1]).all()
    assert (result.alpha == planes[:, :, -1]).all()
    again = opened(encode_picture(result, format))
    assert again.mode == mode
    assert (np.asarray(again) == planes).all()


def test_one_bit_becomes_grey():
    dots = np.indices((9, 11)).sum(axis=0) % 2 == 0
    result = read_picture(save(Image.fromarray(dots), "png"))
    assert (result.pixels[:, :, 0] == dots * 255).all()


def test_palette_becomes_rgb(picture):
    image = Image.fromarray(picture()).quantize(16)
    result = read_picture(save(image, "png"))
    assert (result.pixels == np.asarray(image.convert("RGB"))).all()
    assert result.alpha is None


def test_palette_with_transparency_becomes_rgba():
    image = Image.new("P", (4, 3), 1)
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.putpixel((0, 0), 0)
    image.putpixel((1, 0), 2)
    result = read_picture(save(image, "png", transparency=bytes([0, 255, 128])))
    assert result.alpha[0].tolist() == [0, 128, 255, 255]
    assert result.pixels[0].tolist()[1:3] == [[1, 2, 3], [200, 100, 50]]


def test_gif_of_one_frame_becomes_png(picture):
    image = Image.fromarray(picture()).quantize(32)
    result = read_picture(save(image, "gif"))
    assert (result.pixels == np.asarray(image.convert("RGB"))).all()
    assert result.format == "png"


# Never damaged without a word


def test_grey_with_eight_bits_is_not_announced(picture, caplog):
    read_picture(save(Image.fromarray(picture()), "png"))
    read_picture(save(Image.fromarray(picture()), "avif"))
    read_picture(save(Image.fromarray(picture()[:, :, 0].astype(np.uint16)), "png"))
    assert not caplog.messages


# What goes out


def test_jpeg_keeps_every_chroma_sample(picture):
    image = opened(encode_picture(Picture(picture()), "jpg"))
    assert JpegImagePlugin.get_sampling(image) == 0
    standard = opened(save(Image.fromarray(picture()), "jpeg", quality=95))
    assert image.quantization == standard.quantization


def test_quality_decides_the_size(picture):
    large = Picture(picture(120, 160))
    for format in ("jpg", "webp", "avif"):
        low, high = (encode_picture(large, format, number) for number in (30, 90))
        assert len(low) < len(high)


@pytest.mark.parametrize(("format", "channels"), [("webp", 3), ("avif", 1)])
def test_lossy_formats_hold_transparency(format, channels):
    alpha = np.tile(np.arange(32, dtype=np.uint8) * 8, (24, 1))
    pixels = np.full((24, 32, channels), 90, np.uint8)
    result = read_back(Picture(pixels, alpha), format, 100)
    assert np.abs(result.alpha.astype(int) - alpha).max() <= 2
    assert np.abs(result.pixels[:, 8:].astype(int) - 90).max() <= 2


def test_webp_of_quality_100_is_lossless(picture):
    pixels = picture()
    assert (read_back(Picture(pixels), "webp", 100).pixels == pixels).all()


def test_opaque_alpha_does_not_keep_a_picture_out_of_jpeg(picture):
    alpha = np.full((24, 32), 255, np.uint8)
    assert read_back(Picture(picture(), alpha), "jpg").alpha is None


@pytest.mark.parametrize(
    ("shape", "format", "reason"),
    [
        ((1, 65_501), "jpg", "JPEG holds no picture of 65501x1 pixels"),
        ((16_384, 1), "webp", "WebP holds no picture of 1x16384 pixels"),
        ((1, 32_769), "avif", "AVIF holds no picture of 32769x1 pixels"),
    ],
)
def test_sizes_that_a_format_cannot_hold_are_refused(shape, format, reason):
    with pytest.raises(OutputError, match=reason):
        encode_picture(Picture(np.zeros((*shape, 1), np.uint8)), format)


def test_transparency_that_a_format_cannot_hold_is_refused(picture):
    half = np.full((24, 32), 127, np.uint8)
    with pytest.raises(OutputError, match=r"holds no transparency; choose png"):
        encode_picture(Picture(picture(), half), "bmp")


def test_unknown_format_names_the_nearest(picture):
    with pytest.raises(UsageError, match="did you mean webp"):
        encode_picture(Picture(picture()), "weppy")


def test_missing_avif_is_said(monkeypatch, picture):
    data = save(Image.fromarray(picture()), "avif")
    monkeypatch.setattr(encode.features, "check", lambda _: False)
    with pytest.raises(OutputError, match="no AVIF; choose png or install pillow"):
        encode_picture(Picture(picture()), "avif")
    monkeypatch.setitem(Image.OPEN, "AVIF", (Image.OPEN["AVIF"][0], lambda _: ""))
    with pytest.raises(InputError, match="is AVIF, which this Pillow cannot read"):
        read_picture(data)


def test_file_name_decides_the_format(tmp_path, picture):
    for name, format in [("a.jpeg", "JPEG"), ("b.tif", "TIFF"), ("c.JPG", "JPEG")]:
        write_picture(Picture(picture()), tmp_path / name)
        assert opened((tmp_path / name).read_bytes()).format == format
    write_picture(Picture(picture(), format="bmp"), tmp_path / "d")
    assert opened((tmp_path / "d").read_bytes()).format == "BMP"
    write_picture(Picture(picture()), tmp_path / "e.jpg", format="png")
    assert opened((tmp_path / "e.jpg").read_bytes()).format == "PNG"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("kind", "channels"), [("photograph", 3), ("drawing", 3), ("few colours", 1)]
)
def test_png_is_about_as_small_as_pillow_makes_it(kind, channels):
    generator = np.random.default_rng(0)
    if kind == "drawing":  # the same shapes again and again
        shape = generator.integers(0, 256, (16, 16, channels), np.uint8)
        pixels = np.tile(shape, (12, 12, 1))
    elif kind == "few colours":
        palette = generator.integers(0, 256, (7, channels), np.uint8)
        pixels = palette[generator.integers(0, 7, (48, 48)).repeat(4, 0).repeat(4, 1)]
    else:
        steps = generator.integers(-3, 4, (192, 192, channels))
        pixels = (128 + steps.cumsum(0) + steps.cumsum(1)).clip(0, 255).astype(np.uint8)
    data = encode_picture(Picture(pixels), "png")
    usual = save(Image.fromarray(pixels.squeeze()), "PNG")
    assert len(data) <= (0.7 if kind == "few colours" else 1.15) * len(usual)
    assert (read_picture(data).pixels == pixels).all()


@pytest.mark.parametrize(
    ("format", "failure"),
    [
        ("PNG", KeyboardInterrupt()),
        ("JPEG", OSError(28, "No space left")),
        ("TIFF", OSError(28, "No space left")),
    ],
)
def test_interrupted_write_leaves_what_was_there(
    failure, format, tmp_path, picture, monkeypatch
):
    path = tmp_path / f"photo.{format.lower()}"
    path.write_bytes(b"precious")

    def cut_off(*_, **__):
        raise failure

    writers = {
        "TIFF": (tifffile.TiffWriter, "write"),
        "PNG": (imagecodecs, "png_encode"),
    }
    monkeypatch.setattr(*writers.get(format, (Image.Image, "save")), cut_off)
    expected = OutputError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_picture(Picture(picture()), path)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_one_clear_error(tmp_path, picture):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "a.png", tmp_path / "file" / "a.png"):
        with pytest.raises(OutputError, match=r"cannot write .*a\.png: "):
            write_picture(Picture(picture()), path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder\.png"):
        write_picture(Picture(picture()), tmp_path / "folder.png")
    assert not list(tmp_path.rglob("*.part"))


# What is refused


def refusal(source):
    """The one line that probing and reading refuse a source with."""
    with pytest.raises(InputError) as caught:
        read_picture(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_things_than_pictures(tmp_path):
    empty, text, folder = (tmp_path / name for name in ("e.png", "t.png", "folder.png"))
    empty.write_bytes(b"")
    text.write_text("dear diary\n" * 50)
    folder.mkdir()
    assert refusal(empty) == f"{empty} is empty"
    assert refusal(text).startswith(f"{text} is not a picture that can be read (PNG,")
    assert refusal(folder) == f"{folder} is a folder, not a picture"
    assert refusal(tmp_path / "none.png") == f"{tmp_path / 'none.png'} does not exist"
    assert refusal(b"") == "the picture is empty"
    with pytest.raises(InputError, match="standard input is empty"):
        read_picture(b"", name="standard input")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "locked.png"
    path.write_bytes(b"x")

    def deny(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", deny)
    assert refusal(path) == f"{path} cannot be read: Permission denied"


def test_pillows_own_settings_are_restored(picture):
    limit, handlers = Image.MAX_IMAGE_PIXELS, logging.getLogger("PIL").handlers[:]
    read_picture(save(Image.fromarray(picture()), "png"))
    with pytest.raises(InputError):
        read_picture(b"nothing")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert logging.getLogger("PIL").handlers == handlers
