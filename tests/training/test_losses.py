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


def test_equation_13_of_drcn_in_full():
    # Two patches of one pixel, D = 3. Errors of the recursions 1 and 3, -2 and 0, 1 and
    # -1: l1 = (1 + 9 + 4 + 0 + 1 + 1) / (2 * 3 * 2) = 4 / 3. Weights 0.5, 0.25, 0.25:
    # errors of the sum 0.25 and 1.25, l2 = (0.0625 + 1.5625) / (2 * 2) = 0.40625.
    hr = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1)
    errors = torch.tensor([[1.0, 3.0], [-2.0, 0.0], [1.0, -1.0]]).view(3, 2, 1, 1, 1)
    estimates = hr + errors
    weights = torch.tensor([0.5, 0.25, 0.25]).view(3, 1, 1, 1, 1)
    final = (weights * estimates).sum(dim=0)
    predictions = (*estimates, final)
    for reduction in ("sum", "mean"):  # the same for patches of one pixel
        norm = Norm("l2", reduction)
        loss = supervised_loss(predictions, hr, norm, "recursive", 0.75)
        assert loss.item() == pytest.approx(0.75 * 4 / 3 + 0.25 * 0.40625)


def test_a_weight_on_the_device_counts_as_the_same_number():
    predictions, norm = (FIRST, SECOND, FINAL), Norm("l2", "mean")
    for alpha in (0.0, 0.3, 1.0):
        as_number = supervised_loss(predictions, HR, norm, "recursive", alpha)
        tensor = torch.tensor(alpha)
        as_tensor = supervised_loss(predictions, HR, norm, "recursive", tensor)
        assert as_tensor.item() == pytest.approx(as_number.item())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_a_network_with_one_prediction_is_supervised_by_it(alpha):
    for supervision in ("final", "mean", "recursive"):
        loss = supervised_loss((FIRST,), HR, Norm(), supervision, alpha)
        assert loss.item() == pytest.approx(3 / 4)


def test_equation_10_of_rrrn_averages_four_pictures():
    # L1 over the four values: 0.5, 0.25, 0.125 and 0.
    steps = (0.5, 0.25, 0.125, 0.0)
    images = tuple(torch.full_like(HR, step) for step in steps)
    loss = supervised_loss(images, HR, Norm("l1", "mean"), "mean")
    assert loss.item() == pytest.approx(0.875 / 4)


def test_equation_10_of_drrn_halves_the_squares_and_divides_by_the_patches():
    # ||1, 2||^2 + ||3, 4||^2 + ||0, 1||^2 = 31 over 2 * 3 patches.
    sr = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]).view(3, 1, 1, 2)
    loss = supervised_loss((sr,), torch.zeros_like(sr), Norm("l2", "sum"), "final")
    assert loss.item() == pytest.approx(31 / 6)


def test_half_precision_estimates_are_compared_in_float32():
    sr = torch.full((1, 1, 2, 2), 1 / 256, dtype=torch.bfloat16)
    hr = torch.full((1, 1, 2, 2), 1.0)
    loss = Norm("l1", "mean")(sr, hr)
    assert loss.dtype == torch.float32
    assert loss.item() == 1 - 1 / 256  # bfloat16 has no such number
