"""TIFF files of every kind, read and written exactly or refused."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from exact import KINDS, check, picture_of
from sample_files import make_planes, make_tiff, save_tiff

from srcli.errors import InputError
from srcli.imaging.files import Picture, encode_picture, probe_picture, read_picture

DEEP = [np.uint16, np.float32]

LAYOUTS = {
    "plain": {},
    "strips": {"rowsperstrip": 5},
    "tiles": {"tile": (16, 16)},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate", "predictor": True},
    "zstd": {"compression": "zstd", "predictor": True},
    "big": {"bigtiff": True},
    "motorola": {"byteorder": ">"},
    "motorola-lzw": {"byteorder": ">", "compression": "lzw", "predictor": True},
}


@pytest.mark.parametrize("separate", [False, True], ids=["mixed", "planes"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", KINDS, ids=KINDS.values())
@pytest.mark.parametrize("dtype", [np.uint8, *DEEP])
def test_tiff_is_read_exactly(dtype, channels, layout, separate):
    planes = make_planes(channels, dtype)
    options = {"photometric": "rgb" if channels > 2 else "minisblack"}
    if channels in (2, 4):
        options["extrasamples"] = ["unassalpha"]
    if channels > 1:
        options["planarconfig"] = "separate" if separate else "contig"
    stored = planes if channels > 1 else planes[:, :, 0]
    if separate and channels > 1:
        stored = np.moveaxis(planes, 2, 0)
    check(save_tiff(stored, **options, **LAYOUTS[layout]), planes)


@pytest.mark.parametrize("size", [(24, 32), (1, 7), (9, 1), (1, 1)])
@pytest.mark.parametrize("channels", KINDS, ids=KINDS.values())
@pytest.mark.parametrize("dtype", [np.uint8, *DEEP])
def test_tiff_is_written_exactly(dtype, channels, size, monkeypatch):
    """As libtiff reads it, which has no part in the writing."""
    monkeypatch.setattr("srcli.imaging.tiff.write._STRIP", 500)
    planes = make_planes(channels, dtype)[: size[0], : size[1]]
    data = encode_picture(picture_of(planes), "tiff")
    again = imagecodecs.tiff_decode(data)
    assert again.dtype == dtype
    assert (again.reshape(planes.shape) == planes).all()
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        (page,) = tiff.pages
        kinds = (tifffile.EXTRASAMPLE.UNASSALPHA,) if channels in (2, 4) else ()
        assert page.extrasamples == kinds
        assert len(page.dataoffsets) == -(-size[0] // page.rowsperstrip)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("samples", [1, 3])
def test_every_depth_fills_the_range(samples, bits):
    levels = np.random.default_rng(bits).integers(0, 2**bits, (3, 5, samples))
    levels[0, 0], levels[0, 1] = 0, 2**bits - 1
    rows = b""
    for row in levels:
        # The first sample's highest bit comes first; rows are padded to whole bytes.
        text = "".join(f"{level:0{bits}b}" for level in row.ravel())
        text += "0" * (-len(text) % 8)
        rows += int(text, 2).to_bytes(len(text) // 8, "big")
    photometric = 1 if samples == 1 else 2
    kind = {"bits": bits, "photometric": photometric, "samples": samples}
    peak = 255 if bits <= 8 else 65535
    tiff = make_tiff(">", rows, width=5, height=3, **kind)
    expected = np.rint(levels * peak / (2**bits - 1))
    check(tiff, expected.astype(np.uint8 if bits <= 8 else np.uint16))


@pytest.mark.parametrize("dtype", [np.uint8, *DEEP])
def test_zero_may_be_white(dtype):
    planes = make_planes(1, dtype)
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    check(save_tiff(planes[:, :, 0], photometric="miniswhite"), peak - planes)


@pytest.mark.parametrize("dtype", [np.uint8, *DEEP])
def test_premultiplied_colours_are_divided(dtype):
    peak = 1 if dtype == np.float32 else np.iinfo(dtype).max
    straight = make_planes(3, dtype)
    opacity = np.tile(np.linspace(0, 1, 32), (24, 1))
    whole = np.rint if peak > 1 else np.asarray
    alpha = whole(opacity * peak).astype(dtype)
    stored = whole(straight * (alpha[:, :, None] / peak)).astype(dtype)
    stored = np.dstack((stored, alpha))
    data = save_tiff(stored, photometric="rgb", extrasamples=["assocalpha"])
    result = read_picture(data)
    assert (result.alpha == alpha).all()
    assert (result.pixels[:, 0] == 0).all()
    # What rounding has left: half a level, divided by the opacity.
    left = 1e-6 if peak == 1 else 0.5 * peak / np.maximum(alpha, 1)[:, :, None] + 0.5
    wrong = np.abs(result.pixels.astype(float) - straight)
    assert (wrong <= left)[:, 1:].all()


@pytest.mark.parametrize("dtype", [np.uint8, *DEEP])
@pytest.mark.parametrize(
    ("channels", "kinds", "alpha", "said"),
    [
        (4, [0], None, "1 further channel is"),
        (5, [0, 2], 4, "1 further channel is"),
        (6, [2, 0, 0], 3, "2 further channels are"),
        (5, [2, 2], 3, "1 further channel is"),
    ],
)
def test_further_channels_are_left_out_and_said(
    channels, kinds, alpha, said, dtype, caplog
):
    planes = make_planes(channels, dtype)
    data = save_tiff(
        planes, photometric="rgb", planarconfig="contig", extrasamples=kinds
    )
    check(data, planes[:, :, [0, 1, 2] + ([] if alpha is None else [alpha])])
    assert f"{said} left out" in caplog.text


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("channels", [1, 4])
def test_floating_point_of_other_lengths(channels, dtype, caplog):
    planes = make_planes(channels, dtype) * 4 - 1
    stored = planes if channels > 1 else planes[:, :, 0]
    if channels == 4:
        planes[:, :, 3] = planes[:, :, 3].clip(0, 1)
    kind = (
        {"photometric": "rgb", "extrasamples": ["unassalpha"]} if channels > 1 else {}
    )
    check(save_tiff(stored, **kind), planes.astype(np.float32))
    assert ("its 64-bit values are read with 32 bits" in caplog.text) == (
        dtype == np.float64
    )


def test_values_beyond_black_and_white_are_kept():
    planes = make_planes(3, np.float32) * 6 - 2
    result = check(save_tiff(planes, photometric="rgb"), planes)
    assert result.levels == (planes.min(), planes.max())
    assert (imagecodecs.tiff_decode(encode_picture(result, "tiff")) == planes).all()
    inside = read_picture(save_tiff(planes.clip(0.2, 0.7), photometric="rgb"))
    assert inside.levels == (0, 1)
    assert Picture(make_planes(1)).levels == (0, 255)
    assert Picture(make_planes(1, np.uint16)).levels == (0, 65535)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite_are_refused(dtype, value):
    planes = make_planes(3, dtype)
    planes[3, 4, 1] = value
    with pytest.raises(InputError, match="holds values that are not finite numbers"):
        read_picture(save_tiff(planes, photometric="rgb"))


def test_values_that_overflow_are_refused():
    with pytest.raises(InputError, match="not finite"):
        read_picture(save_tiff(np.full((4, 5), 1e300)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_with_transparency(dtype):
    planes = make_planes(5, dtype)
    tiff = save_tiff(
        planes,
        photometric="separated",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    result = read_picture(tiff)
    peak = float(np.iinfo(dtype).max)
    paper = peak - planes[:, :, :4].astype(float)
    expected = paper[:, :, :3] * paper[:, :, 3:] / peak
    assert result.pixels.dtype == dtype
    assert np.abs(result.pixels - expected).max() <= 0.5
    assert (result.alpha == planes[:, :, 4]).all()


@pytest.mark.parametrize(
    ("planes", "options", "reason"),
    [
        (np.zeros((3, 4), np.uint32), {}, "whole numbers of 32 bits"),
        (np.zeros((3, 4), np.int16), {}, "signed whole numbers"),
        (np.zeros((3, 4), np.int8), {}, "signed whole numbers"),
        (np.zeros((3, 4), np.complex64), {}, "pixels of an unknown kind"),
        (
            np.zeros((3, 4, 3), np.uint16),
            {"photometric": "cielab"},
            "Lab pixels of 16 bits a channel, which are not supported: save it as RGB",
        ),
        (
            np.zeros((3, 4, 4), np.float32),
            {"photometric": "separated"},
            "CMYK in floating point",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_lose_is_refused(planes, options, reason):
    tiff = save_tiff(planes, **options)
    for look in (read_picture, probe_picture):
        with pytest.raises(InputError, match=f"^ad.tif holds {reason}"):
            look(tiff, name="ad.tif")
