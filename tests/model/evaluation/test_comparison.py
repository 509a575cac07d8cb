"""The standard errors of the difference between two networks."""

from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.comparison import AnnotatedMask, Spread, paired_spread
from model.types import Click


def masks(*ious: list[float]) -> list[AnnotatedMask]:
    nothing = np.zeros((2, 2), bool)
    return [AnnotatedMask("a.png", "door", own, None, Click(0, 0, True), nothing, nothing) for own in ious]


def test_the_spread_is_the_standard_error_of_what_each_mask_gained():
    before = masks([0.5, 0.9], [0.5, 0.6, 0.9], [0.7, 0.8, 0.8, 0.9])
    after = masks([0.9], [0.6, 0.9], [0.5, 0.9])
    clicks, ious = np.array([-1, -1, -2]), np.array([0.4, 0.1, -0.2])
    spread = paired_spread(before, after, max_clicks=20, noc_iou=0.85)
    assert spread.noc85 == pytest.approx(clicks.std(ddof=1) / 3**0.5)
    assert spread.first_click_iou == pytest.approx(ious.std(ddof=1) / 3**0.5)


def test_equal_networks_and_a_single_mask_have_no_spread():
    before = masks([0.5, 0.9], [0.5, 0.6, 0.9])
    assert paired_spread(before, before, 20, 0.85) == Spread()
    assert paired_spread(before[:1], masks([0.9]), 20, 0.85) == Spread()
