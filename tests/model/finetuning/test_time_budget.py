"""How many steps a fine-tuning takes when time is short for a while, or for good."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from model.finetuning.config import FineTuneSettings
from model.finetuning.time_budget import (
    EARLY_REVIEWS,
    REVIEW_EVERY,
    Plan,
    TimeBudget,
    make_plan,
    read_plan,
    write_plan,
)
from model.training.distributed import Processes

LIMIT_S = 1000.0


def run_through(plan: Plan, step_s: Callable[[int], float]) -> tuple[Plan, int, float]:
    """The plan at the end, the steps taken, and the seconds spent, on a machine where the n-th step takes `step_s(n)`."""
    spent_s = since_s = 0.0
    since = 0
    for taken in itertools.count():
        if plan.is_due(taken):
            plan = plan.reviewed(taken, (spent_s - since_s) / (taken - since), spent_s, LIMIT_S)
            since, since_s = taken, spent_s
        if plan.is_over(taken):
            return plan, taken, spent_s
        spent_s += step_s(taken)
    raise AssertionError


def test_a_run_with_time_enough_takes_all_steps() -> None:
    plan, taken, _ = run_through(Plan(600), lambda step: 1.0)
    assert (plan.steps, taken) == (600, 600)


def test_a_machine_that_is_busy_at_the_start_costs_no_steps() -> None:
    shortest = []

    def step_s(step: int) -> float:
        return 10.0 if step < 15 else 1.0

    plan, taken, spent_s = run_through(Plan(600), step_s)
    shortest = [review.steps for review in plan.reviews]
    assert min(shortest) < 200, "while it was busy it did not look as if there were time for all"
    assert taken == 600
    assert spent_s < LIMIT_S


@pytest.mark.parametrize("busy_from", [0, 50, 300])
def test_a_machine_that_becomes_slow_for_good_shortens_the_run_to_its_time(busy_from: int) -> None:
    plan, taken, spent_s = run_through(Plan(600), lambda step: 5.0 if step >= busy_from else 1.0)
    assert taken < 600
    assert 0.85 * LIMIT_S < spent_s <= LIMIT_S
    assert plan.progress(taken) == pytest.approx(1.0), "the learning rate has come to its end"


def test_the_estimate_is_never_longer_than_the_time_that_is_left(tmp_path: Path) -> None:
    seconds = iter([0.0, 100.0, 100.0, 101.0, 101.0])
    budget = TimeBudget(Plan(600), tmp_path, LIMIT_S, Processes(), lambda: next(seconds))
    assert budget.step_taken(1) == 900.0, "one slow step says that 600 would take 60,000 s"
    assert budget.step_taken(598) == 101.0, "2 more steps at 50.5 s"


def test_progress_never_jumps_and_never_falls() -> None:
    plan, taken, _ = run_through(Plan(600), lambda step: [1.0, 12.0, 0.5][step // 60 % 3])
    shares = [plan.progress(step) for step in range(taken + 1)]
    assert shares[0] == 0.0
    assert shares[-1] == pytest.approx(1.0)
    jumps = [after - before for before, after in itertools.pairwise(shares)]
    assert min(jumps) > 0
    assert max(jumps) < 0.06


def test_what_later_reviews_decide_changes_nothing_before_them() -> None:
    before = Plan(600).reviewed(20, 10.0, 200.0, LIMIT_S)
    after = before.reviewed(40, 1.0, 400.0, LIMIT_S)
    assert after.steps != before.steps
    for step in range(41):
        assert after.progress(step) == before.progress(step)


def test_what_was_looked_at_once_stays_decided(tmp_path: Path) -> None:
    plan = Plan(600).reviewed(20, 10.0, 200.0, LIMIT_S)
    write_plan(plan, tmp_path)
    found = read_plan(tmp_path)
    assert found == plan
    assert found is not None
    assert not any(found.is_due(step) for step in (*EARLY_REVIEWS, 20))
    assert found.is_due(20 + REVIEW_EVERY)
    assert (found.spent_s(19), found.spent_s(20), found.spent_s(35)) == (0.0, 200.0, 200.0)


def test_a_run_without_time_left_is_over() -> None:
    plan = Plan(600).reviewed(20, 50.0, 1000.0, LIMIT_S)
    assert plan.is_over(20)
    assert not plan.is_over(19), "what came before that look goes on as it was"


@pytest.mark.parametrize(("images", "steps"), [(1, 120), (30, 180), (500, 400)])
def test_images_say_how_many_steps_are_wanted(images: int, steps: int) -> None:
    assert make_plan(images, FineTuneSettings()).steps == steps
    assert make_plan(images, FineTuneSettings(steps=7)).steps == 7


def test_a_run_without_a_plan_has_none(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
