"""YCbCr, Lab and palettes in TIFFs, by other decoders or by the formulas themselves."""

import io
import itertools

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from sample_files import check, make_page, make_planes, save, save_tiff
from test_tiff import attempt, check_boxes, read_box, read_whole

from srcli.errors import InputError
from srcli.imaging.files import read_picture

HEIGHT, WIDTH = 24, 48
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 12, 3), np.uint8)
COLOURS = COLOURS.repeat(4, 0).repeat(4, 1)
CODECS = {
    "plain": (1, bytes),
    "lzw": (5, imagecodecs.lzw_encode),
    "deflate": (8, imagecodecs.zlib_encode),
    "packbits": (32773, imagecodecs.packbits_encode),
    "old-deflate": (32946, imagecodecs.zlib_encode),
}
CUTS = {"one": (24, 48), "strips": (8, 48), "odd": (20, 48), "tiles": (16, 16)}
FACTORS = list(itertools.product((1, 2, 4), repeat=2))


def ycbcr(rgb):
    """JFIF 1.02, section 7."""
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128
    return np.rint(np.stack((luma, *chroma), 2)).clip(0, 255).astype(np.uint8)


def pack(planes, across, down):
    """The data units of a strip or tile: TIFF 6.0, section 21."""
    high, wide = (-planes.shape[0] % down, -planes.shape[1] % across)
    planes = np.pad(planes, ((0, high), (0, wide), (0, 0)), "edge")
    rows, columns = planes.shape[0] // down, planes.shape[1] // across
    blocks = planes.reshape(rows, down, columns, across, 3).swapaxes(1, 2)
    luma = blocks[..., 0].reshape(rows, columns, -1)
    return np.concatenate((luma, blocks[:, :, 0, 0, 1:]), 2).tobytes()


def cut_up(planes, size, *, is_tiled):
    """Strips or tiles of a picture, those at the edge of a tiled one filled up."""
    height, width = size
    for top in range(0, planes.shape[0], height):
        for left in range(0, planes.shape[1], width):
            part = planes[top : top + height, left : left + width]
            missing = [
                whole - own for whole, own in zip(size, part.shape, strict=False)
            ]
            fill = [(0, more if is_tiled else 0) for more in missing]
            yield np.pad(part, (*fill, (0, 0)), "edge")


def make_ycbcr(factors, codec="plain", cut="one", order="<", planes=None, **tags):
    number, encode = CODECS[codec]
    planes = ycbcr(COLOURS) if planes is None else planes
    pieces = cut_up(planes, CUTS[cut], is_tiled=cut == "tiles")
    data = [bytes(encode(pack(piece, *factors))) for piece in pieces]
    fields = {256: (3, [planes.shape[1]]), 257: (3, [planes.shape[0]])}
    fields |= {258: (3, [8] * 3), 259: (3, [number]), 262: (3, [6]), 277: (3, [3])}
    fields |= {530: (3, factors), 278: (3, [CUTS[cut][0]])}
    if cut == "tiles":
        del fields[278]
        fields |= {322: (3, [16]), 323: (3, [16])}
    fields |= {int(tag[1:]): value for tag, value in tags.items()}
    return make_page(order, data, fields, behind=b"\x80" * 4000)


def by_libtiff(data):
    return imagecodecs.tiff_decode(data, asrgb=True)[:, :, :3].astype(int)


def levels_of(data):
    return check_boxes(data).pixels.astype(int)


@pytest.mark.parametrize("number", range(len(FACTORS)))
def test_ycbcr(number):
    """Every subsampling; of the other parameters each pair."""
    factors = FACTORS[number % 9]
    codec = list(CODECS)[number % len(CODECS)]
    cut = list(CUTS)[(number + number // 9) % len(CUTS)]
    data = make_ycbcr(factors, codec, cut, "<>"[number % 2])
    result = levels_of(data)
    assert np.abs(result - COLOURS).max() <= 3
    if factors not in {(1, 4), (2, 4)}:  # which libtiff refuses
        assert np.abs(result - by_libtiff(data)).max() <= 2


@pytest.mark.parametrize(("cut", "size"), [("strips", (21, 45)), ("tiles", (23, 47))])
def test_ycbcr_of_sizes_that_are_no_whole_units(cut, size):
    planes = ycbcr(COLOURS)[: size[0], : size[1]]
    data = make_ycbcr((4, 2), "lzw", cut, planes=planes)
    result = read_picture(data).pixels
    assert np.abs(result.astype(int) - COLOURS[: size[0], : size[1]]).max() <= 3


@pytest.mark.parametrize(
    "tags",
    [
        {"_532": (5, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])},
        {"_529": (5, [2126, 10000, 7152, 10000, 722, 10000])},
        {"_266": (3, [2])},
    ],
    ids=["ReferenceBlackWhite", "YCbCrCoefficients", "FillOrder"],
)
def test_ycbcr_as_further_tags_say(tags):
    data = make_ycbcr((2, 2), **tags)
    # libtiff rounds each step to whole levels.
    assert np.abs(levels_of(data) - by_libtiff(data)).max() <= 3


def test_ycbcr_in_planes():
    data = save_tiff(
        np.moveaxis(ycbcr(COLOURS), 2, 0),
        photometric="ycbcr",
        planarconfig="separate",
        compression="lzw",
        extratags=[(530, 3, 2, (1, 1), True)],
    )
    result = levels_of(data)
    assert np.abs(result - COLOURS).max() <= 3
    assert np.abs(result - by_libtiff(data)).max() <= 2


@pytest.mark.parametrize(
    ("factors", "tags"),
    [
        ((2, 2), {"_284": (3, [2])}),
        ((2, 2), {"_317": (3, [2])}),
        ((2, 2), {"_259": (3, [50001])}),
        ((1, 1), {"_258": (3, [16] * 3)}),
    ],
    ids=["subsampled planes", "predictor", "WebP", "16 bits"],
)
def test_ycbcr_that_no_decoder_is_known_for_is_refused(factors, tags):
    with pytest.raises(InputError, match=r"^it holds YCbCr pixels .* not supported"):
        read_picture(make_ycbcr(factors, **tags), name="it")


@pytest.mark.parametrize("codec", ["plain", "deflate"])
def test_ycbcr_that_ends_too_early(codec):
    cut = "tiles" if "deflate" in codec else "strips"
    tag = 325 if cut == "tiles" else 279
    data = make_ycbcr((2, 2), codec, cut)
    counts = tifffile.TiffFile(io.BytesIO(data)).pages.first.tags[tag].value
    counts = [*counts[:-1], counts[-1] // 2]
    data = make_ycbcr((2, 2), codec, cut, **{f"_{tag}": (4, counts)})
    for look in (read_box, read_whole):
        assert attempt(look, data) is None


# L*, a*, b* under D50, and the colour of sRGB by CIE 15, Bradford and IEC 61966-2-1.
KNOWN = [
    ((100, 0, 0), (255, 255, 255)),
    ((0, 0, 0), (0, 0, 0)),
    ((178 / 2.55, 0, 0), (171, 171, 171)),  # a neutral grey
    ((205 / 2.55, -60, 20), (0, 227, 159)),
]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_lab_of_known_colours(photometric, bits):
    """TIFF 6.0, section 23; ICCLab as ICC profiles of version 2 have it."""
    unit, peak = 1 if bits == 8 else 256, (1 << bits) - 1
    white, zero = (peak, 0) if photometric == "cielab" else (255 * unit, 128 * unit)
    levels = [
        (light * white / 100, a * unit + zero, b * unit + zero)
        for (light, a, b), _ in KNOWN
    ]
    row = (np.rint(levels).astype(int) & peak).astype(f"u{bits // 8}")
    planes = np.broadcast_to(row, (24, 4, 3)).repeat(8, 1)
    is_contig = (bits == 8) == (photometric == "cielab")
    data = save_tiff(
        planes if is_contig else np.moveaxis(planes, 2, 0),
        photometric={"cielab": 8, "icclab": 9}[photometric],
        planarconfig="contig" if is_contig else "separate",
        compression="lzw" if bits == 8 else None,
    )
    expected = np.repeat([rgb for _, rgb in KNOWN], 8, 0)
    assert np.abs(levels_of(data) * 255 / peak - expected).max() <= 1
    assert read_picture(data).depth == bits


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits):
    image = Image.fromarray(make_planes(3)).quantize(1 << bits)
    data = save(image, "tiff", bits=bits, compression="packbits")
    check(data, np.asarray(image.convert("RGB")))
    check_boxes(data)


def test_a_palette_with_a_further_channel():
    colours = np.random.default_rng(3).integers(0, 256, (3, 256), np.uint16)
    planes = make_planes(2)
    tags = {256: (3, [32]), 257: (3, [24]), 258: (3, [8] * 2), 262: (3, [3])}
    tags |= {277: (3, [2]), 338: (3, [2]), 320: (3, (colours * 257).ravel())}
    data = make_page(">", [planes.tobytes()], tags)
    expected = colours.T[planes[:, :, 0]].astype(np.uint8)
    check(data, np.dstack((expected, planes[:, :, 1])))


def test_a_palette_of_levels_of_8_bits():
    colours = np.arange(768, dtype=np.uint16).reshape(3, 256) % 256
    planes = make_planes(1)[:, :, 0]
    data = save_tiff(planes, photometric="palette", colormap=colours)
    check(data, colours.T[planes].astype(np.uint8))


def test_a_palette_that_is_too_short_is_damaged():
    tags = {256: (3, [4]), 257: (3, [2]), 258: (3, [8]), 262: (3, [3])}
    data = make_page("<", [bytes(8)], tags | {320: (3, [0] * 6)})
    with pytest.raises(InputError, match="its palette is too short"):
        read_picture(data)
