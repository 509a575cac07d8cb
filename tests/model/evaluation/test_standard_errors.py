from __future__ import annotations

import math

import numpy as np
import pytest

from model.evaluation.standard_errors import (
    MIN_MASKS,
    NOT_SHOWN,
    TOO_FEW,
    difference_of,
    mean_of,
    ratio_of,
)


def test_one_mask_per_photograph_gives_the_usual_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=30).tolist()
    expected = np.std(values, ddof=1) / math.sqrt(30)
    assert mean_of(values, range(30)).error == pytest.approx(expected)


def test_repeating_every_mask_makes_no_mean_more_certain() -> None:
    values = np.random.default_rng(0).normal(size=30).tolist()
    once, thrice = mean_of(values, range(30)), mean_of(3 * values, 3 * list(range(30)))
    assert thrice.error == pytest.approx(once.error)


def test_standard_errors_are_as_large_as_means_of_new_photographs_scatter() -> None:
    rng = np.random.default_rng(1)
    photographs = np.repeat(np.arange(40), 5)

    def draw() -> list[float]:
        return (rng.normal(size=40)[photographs] + rng.normal(size=200)).tolist()  # type: ignore[no-any-return]

    estimates = [mean_of(draw(), photographs.tolist()) for _ in range(300)]
    scatter = float(np.std([one.value for one in estimates]))
    assert np.mean([one.error for one in estimates if one.error]) == pytest.approx(scatter, rel=0.15)


def test_the_error_of_a_ratio_is_as_large_as_ratios_of_new_photographs_scatter() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(300):
        first = rng.gamma(4, 1.5, 120)
        second = 0.7 * first + rng.gamma(2, 0.5, 120)
        found.append(ratio_of(first.tolist(), second.tolist(), range(120)).change)
    scatter = float(np.std([one.value for one in found]))
    assert np.mean([one.error for one in found if one.error]) == pytest.approx(scatter, rel=0.15)


def test_a_single_photograph_has_no_error() -> None:
    assert mean_of([0.1, 0.9], ["a", "a"]).error is None


@pytest.mark.parametrize(("errors", "verdict"), [(1.55, NOT_SHOWN), (1.65, "better"), (-1.65, "worse")])
def test_a_difference_is_called_one_from_1_6_standard_errors_on(errors: float, verdict: str) -> None:
    noise = np.random.default_rng(3).normal(size=200)
    standard_error = np.std(noise, ddof=1) / math.sqrt(200)
    second = noise - noise.mean() + errors * standard_error
    assert difference_of([0.0] * 200, second.tolist(), range(200)).verdict == verdict


def test_fewer_clicks_are_better() -> None:
    first = np.random.default_rng(4).integers(3, 9, 200).tolist()
    fewer = ratio_of(first, [clicks - 2 for clicks in first], range(200))
    assert fewer.verdict == "better"
    assert fewer.change.value == pytest.approx(1 - 2 / np.mean(first))


@pytest.mark.parametrize(("masks", "photographs"), [(MIN_MASKS - 1, MIN_MASKS - 1), (300, 10)])
def test_there_is_no_verdict_on_few_masks_or_photographs(masks: int, photographs: int) -> None:
    numbers = [number % photographs for number in range(masks)]
    assert difference_of([0.0] * masks, [1.0] * masks, numbers).verdict == TOO_FEW


def test_no_clicks_before_and_after_are_no_difference() -> None:
    equal = ratio_of([0.0] * 200, [0.0] * 200, range(200))
    assert (equal.change.value, equal.verdict) == (1.0, NOT_SHOWN)
    assert ratio_of([0.0], [1.0], "a").change.value == math.inf


def test_values_of_other_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        difference_of([0.0, 1.0], [1.0], "ab")
