"""Layers of joined features against the concatenation that they stand for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from srcli.models.layers import JointConv, JointConvOfSums


def make(layer, count=4, width=3):
    torch.manual_seed(0)
    conv = layer(count * width, 5).double()
    shape = (2, width, 6, 7)
    features = [torch.randn(shape, dtype=torch.float64) for _ in range(count)]
    return conv, [feature.requires_grad_() for feature in features]


def join(layer, features):
    if layer is JointConvOfSums:
        features = itertools.accumulate(features, torch.add)
    return torch.cat(list(features), dim=1)


@pytest.mark.parametrize("layer", [JointConv, JointConvOfSums])
def test_it_is_the_convolution_of_the_concatenation(layer):
    conv, features = make(layer)
    expected = F.conv2d(join(layer, features), conv.weight, conv.bias)
    made = conv(features)
    torch.testing.assert_close(made, expected)
    inputs = (*features, conv.weight, conv.bias)
    slopes = torch.randn_like(made)
    for ours, theirs in zip(
        torch.autograd.grad(made, inputs, slopes),
        torch.autograd.grad(expected, inputs, slopes),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_missing_features_are_as_good_as_zeros():
    conv, features = make(JointConv)
    rest = [torch.zeros_like(feature) for feature in features[2:]]
    torch.testing.assert_close(conv(features[:2]), conv([*features[:2], *rest]))


@pytest.mark.parametrize("layer", [JointConv, JointConvOfSums])
def test_it_works_in_half_precision_on_channels_last(layer):
    conv, features = make(layer)
    conv.float()
    given = [f.detach().float().to(memory_format=torch.channels_last) for f in features]
    with torch.autocast("cpu", torch.bfloat16):
        made = conv([feature.bfloat16() for feature in given])
    assert made.dtype == torch.bfloat16
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made.float(), conv(given), atol=0.05, rtol=0.05)
