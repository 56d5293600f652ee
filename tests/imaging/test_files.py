"""Picture files opened, probed and written: whole or not at all, or one clear error."""

import logging

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile
from sample_files import (
    HEIGHT,
    SAMPLES,
    WIDTH,
    chunk,
    make_exif,
    make_png,
    opened,
    planes_of,
    png_of,
    sample,
    save,
)

from srcli.errors import InputError, OutputError
from srcli.imaging.files import Picture, probe_picture, read_picture, write_picture

FRAMES = {n: 2 for n in SAMPLES if n == "apng" or "animated" in n or "pages" in n}


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
