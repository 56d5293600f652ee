"""Multiply-accumulates and parameters against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srcli.imaging.resize import imresize_torch
from srcli.models.counting import MacCounter, count_macs, count_parameters
from srcli.models.mrnet import MRNet, MRNetConfig

A = torch.zeros(5, 7)
B = torch.zeros(7, 3)
PICTURE = torch.zeros(1, 3, 12, 12)


@pytest.mark.parametrize(
    ("work", "macs"),
    [
        (lambda: torch.zeros(5, 3).addmm_(A, B), 5 * 7 * 3),
        (lambda: F.linear(A, B.T, torch.zeros(3)), 5 * 7 * 3),
        # Interpolation is not learned, and the papers do not count it.
        (lambda: imresize_torch(torch.zeros(1, 1, 6, 6), 2.0), 0),
        # 144 positions, 8 outputs, 3 inputs, 3x3.
        (lambda: nn.Conv2d(3, 8, 3, padding=1, bias=False)(PICTURE), 144 * 8 * 3 * 9),
        (lambda: nn.Conv2d(3, 8, 3, 2, 1)(PICTURE), 36 * 8 * 3 * 9),
        # Three groups: an output reads one input.
        (lambda: nn.Conv2d(3, 6, 5, padding=2, groups=3)(PICTURE), 144 * 6 * 25),
        # Transposed: every *input* position spreads over 5 outputs of 6x6.
        (lambda: nn.ConvTranspose2d(3, 5, 6, 2, 2)(PICTURE), 144 * 3 * 5 * 36),
        # With groups: an input spreads over its group's two outputs.
        (lambda: nn.ConvTranspose2d(3, 6, 2, 2, groups=3)(PICTURE), 144 * 3 * 2 * 4),
    ],
)
def test_learned_layers_are_counted(work, macs):
    with torch.no_grad(), MacCounter() as counter:
        work()
    assert counter.macs == macs


def test_counts_grow_with_the_area_and_leave_the_network_alone():
    model = MRNet(MRNetConfig(width=8))
    once = count_macs(model, 2, height=100, width=100)
    assert count_macs(model, 2, height=200, width=300) == pytest.approx(6 * once)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_parameters_are_counted_once_where_shared():
    layer = nn.Conv2d(2, 3, 3)
    assert count_parameters(nn.Sequential(layer, layer)) == 3 * 2 * 9 + 3
