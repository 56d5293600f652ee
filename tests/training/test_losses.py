"""Each loss against a case worked out by hand."""

import pytest
import torch

from srcli.training.losses import Norm, supervised_loss

HR = torch.zeros(2, 1, 1, 2)
FIRST = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])  # |.|: 3, squares: 5
SECOND = torch.tensor([[[[0.0, 1.0]]], [[[3.0, 0.0]]]])  # |.|: 4, squares: 10
FINAL = torch.tensor([[[[0.5, 0.0]]], [[[0.0, 0.5]]]])  # |.|: 1, squares: 0.5


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (Norm("l1", "mean"), 3 / 4),
        (Norm("l1", "sum"), 3 / 2),
        (Norm("l2", "mean"), 0.5 * 5 / 4),
        (Norm("l2", "sum"), 0.5 * 5 / 2),
    ],
)
def test_norms(norm, expected):
    assert norm(FIRST, HR).item() == pytest.approx(expected)


def test_final_supervision_looks_at_the_last_prediction_only():
    loss = supervised_loss((FIRST, SECOND, FINAL), HR, Norm(), "final")
    assert loss.item() == pytest.approx(1 / 4)


def test_mean_supervision_averages_all_predictions():
    loss = supervised_loss((FIRST, SECOND, FINAL), HR, Norm(), "mean")
    assert loss.item() == pytest.approx((3 + 4 + 1) / 4 / 3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_recursive_supervision_is_equation_13(alpha):
    loss = supervised_loss(
        (FIRST, SECOND, FINAL), HR, Norm("l2", "sum"), "recursive", alpha
    )
    stages = (0.5 * 5 / 2 + 0.5 * 10 / 2) / 2
    final = 0.5 * 0.5 / 2
    assert loss.item() == pytest.approx(alpha * stages + (1 - alpha) * final)
