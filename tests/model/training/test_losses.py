"""Losses, against the recording of SimpleClick's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.random import default_rng

from model.data.click_sampling import add_next_clicks, click_table
from model.training.losses import LOSSES, bce_and_dice, normalised_focal, pointed_loss
from tests.support.recordings import FOLDER


def test_normalised_focal_loss_and_its_gradient_are_simpleclicks() -> None:
    with np.load(FOLDER / "losses.npz") as recorded:
        logits = torch.from_numpy(recorded["logits"]).requires_grad_()
        label = torch.from_numpy(recorded["label"])
        assert (label == -1).any(), "the recording has pixels that do not count"
        values = normalised_focal(logits, label)
        assert np.abs(values.detach().numpy() - recorded["nfl"]).max() < 1e-6
        loss = values.mean()
        assert float(loss.detach()) == pytest.approx(float(recorded["nfl"].mean()), abs=1e-6)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert np.abs(gradient.numpy() - recorded["nfl_grad"]).max() < 1e-6
        assert np.abs(recorded["nfl_grad"]).max() > 1e-5, "else that would prove nothing"


def test_pixels_that_do_not_count_have_no_gradient() -> None:
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    label = (logits.detach() > 0.3).float()
    label[:, :, :3] = -1
    (gradient,) = torch.autograd.grad(normalised_focal(logits, label).sum(), logits)
    assert not gradient[:, :, :3].any()
    assert gradient[:, :, 3:].abs().min() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_being_right_costs_less_than_being_unsure_and_that_less_than_being_wrong(
    name: str, target: float
) -> None:
    targets = torch.full((1, 1, 6, 6), target)
    right, unsure, wrong = (
        LOSSES[name](torch.full_like(targets, (2 * target - 1) * sureness), targets)
        for sureness in (9, 0, -9)
    )
    assert 0 <= right < unsure < wrong


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_extreme_logits_keep_losses_and_gradients_finite(name: str) -> None:
    logits = torch.tensor([-1e4, -80.0, 80.0, 1e4]).reshape(1, 1, 2, 2).requires_grad_()
    loss = LOSSES[name](logits, torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 2, 2))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


def test_an_empty_target_that_is_left_empty_costs_almost_nothing() -> None:
    assert bce_and_dice(torch.full((1, 1, 8, 8), -20.0), torch.zeros(1, 1, 8, 8)) < 1e-3


def test_a_small_piece_that_a_click_points_at_counts_as_much_as_a_large_one() -> None:
    targets = torch.zeros(2, 1, 112, 112)
    targets[0, :, 10:20, 10:20] = 1
    targets[1, :, 10:60, 10:60] = 1
    nothing = torch.full((2, 1, 112, 112), -4.0)
    table = click_table(torch.full((2, 2), -1.0))
    guess = torch.sigmoid(nothing)[:, 0].numpy()
    pieces = torch.from_numpy(add_next_clicks(table, targets[:, 0].bool().numpy(), guess, 1, default_rng(0)))
    each = [pointed_loss(nothing[n : n + 1], targets[n : n + 1], pieces[n : n + 1]).item() for n in range(2)]
    assert each[0] == pytest.approx(each[1]) == pytest.approx(4.02, abs=0.01)
    obeyed = torch.where(targets > 0, 4.0, -4.0)
    assert pointed_loss(obeyed, targets, pieces).item() == pytest.approx(0.018, abs=0.001)
    elsewhere = torch.where(targets > 0, 4.0, 9.0)
    assert pointed_loss(elsewhere, targets, pieces) == pointed_loss(obeyed, targets, pieces)


def test_without_a_piece_nothing_is_pointed_at() -> None:
    logits, targets = torch.randn(2, 1, 112, 112), torch.zeros(2, 1, 112, 112)
    assert pointed_loss(logits, targets, torch.zeros(2, 112, 112, dtype=torch.bool)).item() == 0
