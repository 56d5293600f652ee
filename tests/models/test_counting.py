"""Multiply-accumulates of single operations against a count by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srcli.imaging.resize import imresize_torch
from srcli.models.counting import MacCounter

A = torch.zeros(5, 7)
B = torch.zeros(7, 3)


@pytest.mark.parametrize(
    ("work", "macs"),
    [
        (lambda: torch.addmm(torch.zeros(3), A, B), 5 * 7 * 3),
        (lambda: torch.zeros(5, 3).addmm_(A, B), 5 * 7 * 3),
        (lambda: F.linear(A, B.T, torch.zeros(3)), 5 * 7 * 3),
        (lambda: nn.Conv2d(2, 4, 3)(torch.zeros(1, 2, 6, 8)), 4 * 6 * 4 * 2 * 9),
        # Interpolation is not learned, and the papers do not count it.
        (lambda: imresize_torch(torch.zeros(1, 1, 6, 6), 2.0), 0),
        # Every pixel of the small side meets all taps.
        (
            lambda: nn.ConvTranspose2d(2, 4, 6, 2, 2)(torch.zeros(1, 2, 3, 5)),
            3 * 5 * 2 * 4 * 36,
        ),
    ],
)
def test_learned_layers_are_counted(work, macs):
    with torch.no_grad(), MacCounter() as counter:
        work()
    assert counter.macs == macs
