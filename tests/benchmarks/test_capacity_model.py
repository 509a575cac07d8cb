"""The queueing model of docs/scaling.md against what is known of such queues."""

from __future__ import annotations

import math

import pytest

from benchmarks.capacity_model import forecast, states, workers_needed


def test_one_annotator_never_waits() -> None:
    found = forecast(1, 1, service_s=0.2, pause_s=3.0)
    assert found.mean_s == pytest.approx(0.2)
    assert found.utilisation == pytest.approx(0.2 / 3.2)
    assert found.p95_s == pytest.approx(-0.2 * math.log(0.05), rel=0.02)


def test_two_annotators_and_one_worker_are_as_worked_out_by_hand() -> None:
    assert states(2, 1, service_s=1.0, pause_s=1.0) == pytest.approx([1 / 5, 2 / 5, 2 / 5])
    found = forecast(2, 1, service_s=1.0, pause_s=1.0)
    assert found.clicks_per_s == pytest.approx(0.8)
    assert found.mean_s == pytest.approx(1.5)


def test_with_a_worker_per_annotator_nobody_waits() -> None:
    assert forecast(8, 8, service_s=0.2, pause_s=1.0).mean_s == pytest.approx(0.2)


def test_an_overloaded_worker_answers_as_fast_as_it_can_and_no_faster() -> None:
    found = forecast(1000, 2, service_s=0.2, pause_s=1.0)
    assert found.clicks_per_s == pytest.approx(10.0)
    assert found.utilisation == pytest.approx(1.0)


def test_the_workers_needed_are_the_fewest_that_are_enough() -> None:
    count = workers_needed(20, service_s=0.2, pause_s=1.0, p95_s=1.0)
    assert forecast(20, count, 0.2, 1.0).p95_s <= 1.0 < forecast(20, count - 1, 0.2, 1.0).p95_s


def test_a_click_that_is_too_slow_by_itself_is_named() -> None:
    with pytest.raises(ValueError, match="too slow"):
        workers_needed(5, service_s=2.0, pause_s=1.0, p95_s=1.0)
