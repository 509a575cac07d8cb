from __future__ import annotations

import numpy as np
import pytest

from model.evaluation.calibration import calibrate
from model.evaluation.records import Record
from tests.model.evaluation.test_metrics import record


def masks(expected: list[float], ious: list[float]) -> list[Record]:
    return [
        record([iou], expected_ious=[guess], image=f"{number}.png")
        for number, (guess, iou) in enumerate(zip(expected, ious, strict=True))
    ]


def test_expectations_that_come_true_have_no_error() -> None:
    rng = np.random.default_rng(0)
    expected = rng.uniform(0.2, 0.9, 20_000)
    found = calibrate(masks(expected.tolist(), (expected + rng.normal(0, 0.1, 20_000)).tolist()), clicks=1)
    assert found is not None
    assert found.largest_error < 0.01
    assert [one.expected for one in found.bins] == sorted(one.expected for one in found.bins)


def test_an_expectation_that_is_always_high_is_as_wrong_as_the_masks_are_bad() -> None:
    """The score that was shown before: .90 for good and bad masks alike."""
    ious = np.linspace(0.2, 1.0, 200)
    found = calibrate(masks([0.9] * 200, ious.tolist()), clicks=1)
    assert found is not None
    assert found.mean_error == pytest.approx(0.3, abs=0.07)


def test_errors_of_opposite_sign_do_not_cancel_out() -> None:
    found = calibrate(masks([0.1] * 50 + [0.9] * 50, [0.3] * 50 + [0.7] * 50), clicks=1)
    assert found is not None
    assert (found.mean_error, found.largest_error) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (len(found.bins), found.masks) == (10, 100)


def test_masks_without_an_expectation_are_left_out() -> None:
    assert calibrate([record([0.5])], clicks=1) is None
    found = calibrate([*masks([0.4], [0.5]), record([0.9])], clicks=1)
    assert found is not None
    assert found.masks == 1
