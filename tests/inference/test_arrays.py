"""Arrays and tensors of every shape and dtype come back larger and of the same kind."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import srcli
from srcli import upscale
from srcli.errors import UsageError
from srcli.imaging.resize import imresize

EXACT = {"device": "cpu", "precision": "fp32", "tile": 0}
SHAPES = [(6, 5), (6, 5, 1), (6, 5, 2), (6, 5, 3), (6, 5, 4), (2, 6, 5, 3)]
DTYPES = ["uint8", "uint16", "float16", "float32", "float64"]
# Every shape with two of the types, every type with several shapes.
KINDS = [(shape, DTYPES[(n + m) % 5]) for n, shape in enumerate(SHAPES) for m in (0, 2)]


def white(dtype):
    return 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max


def draw(shape, dtype):
    """Random levels; alpha, where there is some, is opaque."""
    values = np.random.default_rng(0).random(shape)
    if len(shape) > 2 and shape[-1] in (2, 4):
        values[..., -1] = 1
    return (values * white(dtype)).astype(dtype)


def bicubic(array, scale=2):
    """What bicubic interpolation of every channel gives, within the levels."""
    working = np.float32 if array.dtype.kind == "f" else array.dtype
    one = array.ndim < 4
    larger = [
        imresize(a.astype(working), scale) for a in (array[None] if one else array)
    ]
    result = larger[0] if one else np.stack(larger)
    return result.clip(0, white(array.dtype)).astype(array.dtype)


@pytest.fixture(scope="module")
def mrnet():
    return srcli.load_model("mrnet", 2)


@pytest.mark.parametrize(("shape", "dtype"), KINDS, ids=str)
def test_arrays_keep_their_kind(shape, dtype):
    array = draw(shape, dtype)
    kept = array.copy()
    array.flags.writeable = False
    result = upscale(array, "bicubic", 2)
    assert type(result) is np.ndarray
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, bicubic(kept))
    np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize(("shape", "dtype"), KINDS, ids=str)
def test_tensors_are_arrays_with_channels_first(shape, dtype):
    array = draw(shape, dtype)
    tensor = torch.from_numpy(array)
    if len(shape) > 2:
        tensor = tensor.movedim(-1, -3)
    kept = tensor.clone()
    result = upscale(tensor, "bicubic", 2)
    assert result.dtype == tensor.dtype
    assert result.device == tensor.device
    assert torch.equal(tensor, kept)
    if len(shape) > 2:
        result = result.movedim(-3, -1)
    np.testing.assert_array_equal(result.numpy(), upscale(array, "bicubic", 2))


def test_bfloat16_tensors():
    tensor = torch.rand(3, 6, 5).bfloat16()
    result = upscale(tensor, "bicubic", 2)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, upscale(tensor.float(), "bicubic", 2).bfloat16())


def test_tensors_of_a_gradient_come_back_without_one():
    tensor = torch.rand(3, 6, 5, requires_grad=True)
    result = upscale(tensor * 1, "bicubic", 2)
    assert not result.requires_grad
    assert torch.equal(result, upscale(tensor.detach(), "bicubic", 2))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tensors_come_back_to_their_device(dtype, device):
    tensor = torch.ones(2, 3, 6, 5).to(dtype)
    result = upscale(tensor.cuda(), "mrnet", 2, device=device)
    assert result.device.type == "cuda"
    assert result.dtype == dtype


@pytest.mark.parametrize(
    "arrange",
    [
        lambda a: np.asfortranarray(a),
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
        lambda a: np.repeat(a, 2, 1)[:, ::2],
        lambda a: a.view(type("Own", (np.ndarray,), {})),
    ],
    ids=["Fortran", "swapped", "backwards", "sliced", "subclass"],
)
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4)], ids=str)
def test_layout_and_byte_order_do_not_matter(shape, arrange):
    array = draw(shape, "uint16")
    arranged = arrange(array)
    result = upscale(arranged, "bicubic", 2)
    assert type(result) is np.ndarray
    assert result.dtype == arranged.dtype
    np.testing.assert_array_equal(result, upscale(array, "bicubic", 2))


def test_a_tensor_is_what_the_network_gives(mrnet):
    lr = torch.rand(2, 3, 12, 10)
    with torch.inference_mode():
        expected = mrnet(lr, 2).clamp(0, 1)
    torch.testing.assert_close(
        upscale(lr, mrnet, 2, **EXACT), expected, atol=2e-5, rtol=0
    )


def test_whole_numbers_are_the_rounded_fractions(mrnet, picture):
    fractions = picture(12, 10) / 255
    exact = upscale(fractions, mrnet, 2, **EXACT)
    for dtype in ("uint8", "uint16"):
        levels = np.rint(fractions * white(dtype)).astype(dtype)
        result = upscale(levels, mrnet, 2, **EXACT)
        assert np.abs(result - exact * white(dtype)).max() < 0.51


@pytest.mark.parametrize(("low", "high"), [(0, 12), (-3, 0.5), (-2, 5), (0, 255)])
def test_a_wider_range_is_scaled_to_and_from_the_network(mrnet, low, high):
    black, white = min(low, 0), max(high, 1)
    light = torch.rand(3, 10, 12) * (high - low) + low
    light[:, 0, 0], light[:, 0, 1] = low, high
    with torch.inference_mode():
        seen = (light - black) / (white - black)
        expected = mrnet(seen[None], 2)[0].clamp(0, 1) * (white - black) + black
    result = upscale(light, mrnet, 2, **EXACT)
    torch.testing.assert_close(result, expected, atol=2e-5 * (white - black), rtol=0)


def test_twice_the_light_is_twice_the_result(mrnet):
    light = np.random.default_rng(0).random((10, 12, 3)) * 12
    once, twice = (upscale(light * factor, mrnet, 2, **EXACT) for factor in (1, 2))
    assert once.max() > 8
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_every_picture_of_a_batch_is_enlarged_by_itself(mrnet):
    array = draw((3, 8, 9, 3), "float32") * np.array([1, 4, 9], "f").reshape(3, 1, 1, 1)
    result = upscale(array, mrnet, 2, **EXACT)
    singles = [upscale(each, mrnet, 2, **EXACT) for each in array]
    np.testing.assert_array_equal(result, singles)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_last_of_four_channels_is_opacity(dtype):
    array = np.zeros((16, 16, 4), dtype)
    array[:, 5:11] = np.array([0.75, 0.5, 0.25, 1]) * white(dtype)
    result = upscale(array, "bicubic", 2).astype(np.float32)
    expected = bicubic(array[:, :, 3])
    np.testing.assert_array_equal(result[:, :, 3], expected)
    seen = result[result[:, :, 3] > 0] / np.float32(white(dtype))
    assert np.abs(seen[:, :3] - (0.75, 0.5, 0.25)).max() < 0.004  # no dark fringe


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4), bool), "arrays must be uint8, .* not bool: convert"),
        (np.zeros((4, 4), np.int32), "not int32"),
        (np.zeros((4, 4), np.longdouble), "not "),
        (np.zeros((4, 4), complex), "not complex128"),
        (np.zeros((4, 4), object), "not object"),
        (np.zeros(4, np.uint8), r"arrays must be \(H, W\)"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), r"arrays must be \(H, W\)"),
        (np.zeros((4, 4, 5), np.uint8), "1 to 4 channels C"),
        (np.zeros((3, 8, 9), np.uint8), r"come last, as in np.moveaxis\(array, -3, -1"),
        (np.zeros((0, 4), np.uint8), r"must hold pixels: \(0, 4\) is empty"),
        (np.zeros((0, 4, 4, 3), np.uint8), "is empty"),
        (np.ma.masked_equal(np.zeros((4, 4), np.uint8), 1), "array.filled"),
        (np.array([[0, math.nan]]), "NaN"),
        (np.array([[0, math.inf]], np.float16), "infinite"),
        (np.array([[0, -1e300]]), "too large for float32"),
        (np.full((4, 4, 4), 200.0), r"alpha must be in \[0, 1\], not 200 to 200"),
        (torch.zeros(4, 4, dtype=torch.int64), "tensors must be .* not int64"),
        (torch.zeros(4, 4, dtype=torch.bool), "not bool"),
        (torch.zeros(8, 9, 3), r"come first, as in tensor.movedim\(-1, -3\)"),
        (torch.zeros(1, 0, 4), "is empty"),
        (torch.full((3, 4, 4), math.nan), "NaN"),
        (torch.zeros(4, 4).to_sparse(), "sparse"),
        (torch.zeros(4, 4, device="meta"), "meta"),
        ([[1, 2]], "a path, Pillow image, NumPy array or PyTorch tensor .* not list"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(given, message):
    with pytest.raises(UsageError, match=message) as caught:
        upscale(given, "bicubic", 2)
    assert "\n" not in str(caught.value)
