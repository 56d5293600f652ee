"""MATLAB's imresize: against an exact reference, Pillow, and what must hold anyway."""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference_imresize import Rounder, reference_imresize

from srcli.errors import UsageError
from srcli.imaging.resize import imresize, imresize_torch, reach, resize_part


def random_plane(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@functools.cache
def exact(
    height, width, *, scale=None, size=None, antialias=True, rounded=False, seed=0
):
    """The reference's answer for `random_plane`, and how far it stays from a tie."""
    plane = random_plane(height, width, seed).tolist()
    if size is None:
        factor = Fraction(scale)
        size = (math.ceil(height * scale), math.ceil(width * scale))
        scales = (factor, factor)
    else:
        scales = (Fraction(size[0], height), Fraction(size[1], width))
    rounder = Rounder() if rounded else None
    rows = reference_imresize(plane, size, scales, antialias=antialias, rounder=rounder)
    values = np.array([[float(value) for value in row] for row in rows])
    return values, float(rounder.margin) if rounder else None


CASES = [
    *[{"scale": factor} for factor in (1 / 2, 1 / 3, 0.37, 1.7, 4)],
    *[{"scale": factor, "antialias": False} for factor in (1 / 2, 0.37)],
    *[{"size": size} for size in ((7, 9), (11, 30), (23, 5))],
    {"size": (5, 31), "antialias": False},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_the_exact_reference(case):
    """In floating point never rounded, of integers after each pass; and with torch."""
    plane, (expected, _) = random_plane(11, 14), exact(11, 14, **case)
    result = imresize(plane.astype(np.float64), **case)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-10)
    lines = torch.from_numpy(plane) / 255
    double = imresize_torch(lines.double(), **case).numpy()
    single = imresize_torch(lines, **case).numpy()
    assert (result.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(double, expected / 255, rtol=0, atol=1e-7)
    np.testing.assert_allclose(single, expected / 255, rtol=0, atol=1e-6)
    rounded, margin = exact(11, 14, **case, rounded=True)
    result = imresize(plane, **case)
    assert result.dtype == np.uint8
    # Near a tie the answer hangs on the last bit of the weights, unless these are
    # whole fractions of a power of two: then ties are met, and go up.
    if margin > 1e-9 or case.get("scale") in (1 / 2, 4):
        np.testing.assert_array_equal(result, rounded)
    else:
        assert np.abs(result - rounded).max() <= 1


def test_every_channel_is_resampled_alone():
    planes = [random_plane(13, 17, seed) for seed in range(3)]
    result = imresize(np.stack(planes, axis=2), 1 / 2)
    assert result.shape == (7, 9, 3)
    for channel, seed in enumerate(range(3)):
        expected, _ = exact(13, 17, scale=1 / 2, rounded=True, seed=seed)
        np.testing.assert_array_equal(result[:, :, channel], expected)


def test_uint16_pictures_keep_their_depth():
    # Away from 0 and 65535, so that nothing is clipped between the passes.
    plane = random_plane(9, 8).astype(np.uint16) * 128 + 16384
    result = imresize(plane, 1.7)
    assert result.dtype == np.uint16
    expected = exact(9, 8, scale=1.7)[0] * 128 + 16384
    assert np.abs(result - expected).max() < 2  # two roundings, the first amplified


def test_doubling_an_impulse_gives_the_known_weights():
    """Keys' kernel at distances 1/4, 3/4, 5/4 and 7/4."""
    line = np.zeros((1, 9))
    line[0, 4] = 1.0
    weights = np.array([-3 / 128, -9 / 128, 29 / 128, 111 / 128])
    expected = np.concatenate([weights, weights[::-1]])
    np.testing.assert_array_equal(imresize(line, 2)[0, 5:13], expected)


@pytest.mark.parametrize("size", [(30, 55), (91, 16)], ids=str)
def test_pillow_agrees_away_from_the_edges(size):
    """Pillow has the same kernel and grid, yet drops what lies outside the picture."""
    plane = np.random.default_rng(3).random((60, 48)).astype(np.float32)
    theirs = Image.fromarray(plane).resize(size[::-1], Image.Resampling.BICUBIC)
    cuts = [math.ceil(3 * max(1, size[0] / 60)), math.ceil(3 * max(1, size[1] / 48))]
    inside = tuple(slice(cut, -cut) for cut in cuts)
    ours = imresize(plane, size=size)
    np.testing.assert_allclose(ours[inside], np.asarray(theirs)[inside], atol=2e-6)


lengths = st.integers(1, 40)


@settings(deadline=None, max_examples=20, database=None)
@given(
    shape=st.tuples(lengths, lengths),
    size=st.tuples(lengths, lengths),
    seed=st.integers(0, 2**32 - 1),
)
def test_mirroring_and_transposing_commute_with_resampling(shape, size, seed):
    picture = np.random.default_rng(seed).random(shape)
    result = imresize(picture, size=size)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)
    close(imresize(picture[::-1], size=size), result[::-1])
    close(imresize(picture[:, ::-1], size=size), result[:, ::-1])
    close(imresize(picture.T, size=size[::-1]), result.T)


def test_tall_and_wide_pictures_are_worked_through_without_seams():
    """A strip comes out the same alone as within a picture of several work loads."""
    picture = np.random.default_rng(5).random((7000, 300)).astype(np.float32)
    widened = imresize(picture, size=(7000, 900))
    heightened = imresize(picture.T, size=(900, 7000))
    for strip in (slice(0, 50), slice(2320, 2350), slice(5000, 5050)):
        part = picture[strip]
        expected = imresize(part, size=(len(part), 900))
        np.testing.assert_array_equal(widened[strip], expected)
        expected = imresize(part.T, size=(900, len(part)))
        np.testing.assert_array_equal(heightened[:, strip], expected)


def test_the_torch_version_equals_numpy_on_long_sides():
    size = (900, 40)
    picture = np.random.default_rng(1).random((300, 270))
    result = imresize_torch(torch.from_numpy(picture), size=size).numpy()
    np.testing.assert_allclose(result, imresize(picture, size=size), rtol=0, atol=1e-12)


class TestTorch:
    @pytest.mark.parametrize("scale", [3, 0.5, 1])
    def test_batches_and_channels_are_resampled_alone(self, scale):
        batch = torch.rand(2, 3, 13, 10, dtype=torch.float64)
        result = imresize_torch(batch, scale)
        for picture, resized in zip(batch, result, strict=True):
            expected = imresize(picture.permute(1, 2, 0).numpy(), scale)
            np.testing.assert_allclose(
                resized.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-12
            )

    def test_gradients_are_exact(self):
        images = torch.rand(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: imresize_torch(x, 0.5), (images,))

    def test_half_precision_is_rounded_only_at_the_end(self):
        images = torch.rand(1, 3, 9, 11).half()
        result = imresize_torch(images, 2)
        assert result.dtype == torch.float16
        assert torch.equal(result, imresize_torch(images.float(), 2).half())

    def test_autocast_leaves_it_in_full_precision(self):
        images = torch.rand(1, 1, 9, 11)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = imresize_torch(images, 2)
        assert result.dtype == torch.float32
        assert torch.equal(result, imresize_torch(images, 2))

    def test_training_works_after_validation_at_the_same_size(self):
        with torch.inference_mode():
            imresize_torch(torch.rand(1, 1, 14, 15), 2)
        images = torch.rand(1, 1, 14, 15, requires_grad=True)
        imresize_torch(images, 2).square().sum().backward()
        assert images.grad is not None


class TestSizes:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"scale": 2, "size": (4, 4)},
            {"scale": 0},
            {"scale": math.nan},
            {"scale": 1e-12},
            {"size": (0, 4)},
        ],
        ids=str,
    )
    def test_impossible_sizes_are_refused(self, options):
        with pytest.raises(UsageError):
            imresize(random_plane(4, 4), **options)
        with pytest.raises(UsageError):
            imresize_torch(torch.rand(1, 1, 4, 4), **options)


# Parts


def noise(shape, dtype):
    values = np.random.default_rng(1).random(shape)
    if np.issubdtype(dtype, np.integer):
        return (values * np.iinfo(dtype).max).astype(dtype)
    return (3 * values - 1).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (np.uint8, (46, 62)),
        (np.uint8, (23, 31)),
        (np.uint16, (90, 20)),
        (np.float32, (12, 100)),
    ],
)
def test_a_part_is_the_whole_ones_to_the_last_bit(dtype, size):
    image = noise((23, 31, 3), dtype)
    whole = imresize(image, size=size)
    height, width = size
    for rows, columns in (
        (np.arange(height), np.arange(width)),
        (np.arange(3), np.arange(width - 4, width)),
        (np.arange(2, height, 5), np.arange(1, width, 7)),
        (np.array([height - 1]), np.array([0])),
    ):
        part = resize_part(image, (0, 0), (23, 31), size, (rows, columns))
        assert part.dtype == dtype
        assert np.array_equal(part, whole[np.ix_(rows, columns)])
    wanted = slice(height // 2, height), slice(width // 3, width // 2)
    part = resize_part(image, (0, 0), (23, 31), size, wanted)
    assert np.array_equal(part, whole[wanted])


def test_a_part_of_a_part():
    image = noise((40, 50, 3), np.uint8)
    wanted = slice(40, 60), slice(30, 50)
    around = image[20 - reach(2) : 30 + reach(2), 15 - reach(2) : 25 + reach(2)]
    corner = 20 - reach(2), 15 - reach(2)
    part = resize_part(around, corner, (40, 50), (80, 100), wanted)
    assert np.array_equal(part, imresize(image, 2)[wanted])
    with pytest.raises(ValueError, match="the part is too small"):
        resize_part(image[20:30, 15:25], (20, 15), (40, 50), (80, 100), wanted)
