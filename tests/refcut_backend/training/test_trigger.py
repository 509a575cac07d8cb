from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.errors import ConfigError
from refcut_backend.training.trigger import ProjectStatus, TrainingRules, reason_to_train

NOON = datetime(2026, 5, 4, 12, 0).timestamp()
HOUR = 3600.0
TWENTY = TrainingRules(20, 600)
NIGHTLY = TrainingRules(0, 600, "30 2 * * *")


def status(
    new: int, began_ago: float | None = None, new_for: float = HOUR, failures: int = 0
) -> ProjectStatus:
    started_at = None if began_ago is None else NOON - began_ago
    return ProjectStatus(new, NOON - new_for if new else None, started_at, failures)


@pytest.mark.parametrize(
    ("new", "expected"), [(0, None), (19, None), (20, "annotations"), (300, "annotations")]
)
def test_enough_that_is_new_begins_a_training(new, expected):
    assert reason_to_train(TWENTY, status(new), NOON) == expected


def test_not_more_often_than_the_interval():
    assert reason_to_train(TWENTY, status(20, began_ago=599), NOON) is None
    assert reason_to_train(TWENTY, status(20, began_ago=600), NOON) == "annotations"


def test_zero_switches_it_off():
    rules = TrainingRules(0, 600)
    assert not rules.is_automatic
    assert reason_to_train(rules, status(10_000), NOON) is None


def test_a_time_of_day_begins_a_training_of_what_came_before_it():
    assert reason_to_train(NIGHTLY, status(1, new_for=HOUR), NOON) is None
    assert reason_to_train(NIGHTLY, status(1, new_for=12 * HOUR), NOON) == "schedule"
    assert reason_to_train(NIGHTLY, status(0), NOON) is None


def test_a_time_of_day_counts_once():
    assert reason_to_train(NIGHTLY, status(1, began_ago=9 * HOUR, new_for=12 * HOUR), NOON) is None
    assert reason_to_train(NIGHTLY, status(1, began_ago=11 * HOUR, new_for=12 * HOUR), NOON) == "schedule"


def test_a_web_process_that_was_down_at_that_time_makes_up_for_it():
    assert reason_to_train(NIGHTLY, status(1, began_ago=60 * HOUR, new_for=50 * HOUR), NOON) == "schedule"


def test_trainings_that_fail_are_tried_ever_more_rarely_and_at_least_once_a_day():
    def is_due(failures: int, began_ago: float) -> bool:
        return reason_to_train(TWENTY, status(20, began_ago, failures=failures), NOON) is not None

    assert not is_due(1, 1199)
    assert is_due(1, 1200)
    assert not is_due(3, 4799)
    assert not is_due(1000, 86_399)
    assert is_due(1000, 86_400)


@given(st.integers(0, 100), st.floats(0, 1e6), st.integers(0, 50), st.integers(0, 100_000))
def test_no_two_trainings_begin_within_the_interval(new, began_ago, failures, interval_s):
    rules = TrainingRules(1, interval_s, "* * * * *")
    reason = reason_to_train(rules, status(new, began_ago, 1e6, failures), NOON)
    assert reason is None or began_ago >= interval_s - 1e-3


@pytest.mark.parametrize("cron", ["every night", "61 * * * *", "* * *"])
def test_a_cron_string_that_is_none_is_refused(cron):
    with pytest.raises(ConfigError, match="REFCUT_TRAIN_CRON"):
        TrainingRules.read(20, 600, cron)
