from __future__ import annotations

import numpy as np
import pytest

from refcut_backend.references.parse import Weakness, weaknesses


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """100 x 100 with boxes (top, left, bottom, right)."""
    mask_hw = np.zeros((100, 100), bool)
    for top, left, bottom, right in boxes:
        mask_hw[top:bottom, left:right] = True
    return mask_hw


GOOD, ELSEWHERE = mask((20, 20, 60, 60)), mask((70, 70, 90, 90))


def test_a_good_reference_has_no_weakness():
    assert weaknesses(GOOD, ELSEWHERE) == ()


@pytest.mark.parametrize(
    ("positive_hw", "weakness"),
    [
        (mask((50, 50, 59, 61)), Weakness.SMALL),
        (mask((0, 20, 60, 60)), Weakness.BORDER),
        (mask((20, 40, 60, 100)), Weakness.BORDER),
        (mask((1, 1, 97, 97)), Weakness.LARGE),
        (mask((20, 20, 50, 50), (60, 60, 80, 80)), Weakness.PARTS),
    ],
)
def test_a_weakness_of_the_target_is_named(positive_hw, weakness):
    assert weaknesses(positive_hw, ~positive_hw) == (weakness,)


@pytest.mark.parametrize("negative_hw", [None, np.zeros((100, 100), bool)])
def test_a_reference_without_a_negative_says_so(negative_hw):
    assert weaknesses(GOOD, negative_hw) == (Weakness.NO_NEGATIVE,)


def test_specks_of_the_brush_are_no_parts():
    assert weaknesses(mask((20, 20, 60, 60), (70, 70, 72, 72)), ELSEWHERE) == ()


def test_an_empty_reference_is_small_and_raises_nothing():
    assert weaknesses(mask(), None) == (Weakness.SMALL, Weakness.NO_NEGATIVE)


def test_a_label_that_left_the_config_is_named():
    assert weaknesses(GOOD, ELSEWHERE, label_in_config=False) == (Weakness.NO_LABEL,)
