from __future__ import annotations

import numpy as np
import pytest

from model.errors import DataError
from model.evaluation.calibration import Correction, calibrate, correction_of, fit_correction
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


def test_a_correction_mends_expectations_that_are_too_high_and_too_sure() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, 400)
    measured = 1 / (1 + np.exp(-logits))
    expected = 1 / (1 + np.exp(-(2 * logits + 1)))
    found = fit_correction(list(expected), list(measured))
    assert found.scale == pytest.approx(0.5, abs=0.1)
    assert found.shift == pytest.approx(-0.5, abs=0.1)
    mended = 1 / (1 + np.exp(-(found.scale * (2 * logits + 1) + found.shift)))
    assert np.abs(mended - measured).mean() < 0.2 * np.abs(expected - measured).mean()


def test_honest_expectations_stay_as_they_are_and_few_masks_correct_little() -> None:
    measured = list(np.linspace(0.1, 0.9, 200))
    found = fit_correction(measured, measured)
    assert (found.scale, found.shift) == (pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.01))
    few, many = (fit_correction([0.9] * count, [0.3] * count) for count in (3, 300))
    assert -0.6 < few.shift < 0
    assert many.scale * np.log(9) + many.shift == pytest.approx(np.log(0.3 / 0.7), abs=0.3)


def test_two_corrections_after_each_other_are_one() -> None:
    both = Correction(0.5, 1.0).after(Correction(2.0, -3.0))
    assert both == Correction(1.0, -0.5)


def test_too_few_masks_are_refused() -> None:
    with pytest.raises(DataError, match="only 0 masks"):
        correction_of([])
