from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from refcut_backend.database.engine import open_database
from refcut_backend.database.tables import TrainingRun
from refcut_backend.training.runs import Outcome, RequestedBy, Stage, TrainingRuns


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(tmp_path):
    opened = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def runs(engine, clock) -> TrainingRuns:
    return TrainingRuns(engine, clock)


def asked(runs: TrainingRuns, project: int = 7):
    run, _ = runs.request(project, RequestedBy.COMMAND)
    return run


def test_a_request_while_a_training_is_active_returns_that_run(runs):
    first, is_new = runs.request(7, RequestedBy.BUTTON)
    second, is_second_new = runs.request(7, RequestedBy.COMMAND)
    assert (first.id, is_new, is_second_new) == (second.id, True, False)
    assert asked(runs, 8).id != first.id


def test_many_who_ask_at_once_get_one_run(engine):
    at_once = threading.Barrier(8)

    def ask(_: int) -> str:
        at_once.wait()
        return TrainingRuns(engine).request(7, RequestedBy.BUTTON)[0].id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


def test_a_run_is_taken_by_one_worker(runs):
    run = asked(runs)
    claim = runs.claim(run.id, "a")
    assert claim is not None
    assert (claim.project_id, claim.attempt) == (7, 1)
    assert runs.claim(run.id, "b") is None
    assert runs.claim("no such run", "b") is None


def test_after_its_end_a_run_is_claimed_by_nobody_and_another_can_be_requested(runs):
    run = asked(runs)
    claim = runs.claim(run.id, "a")
    assert runs.end(claim, Outcome.NOT_PROMOTED, "no better", "v-1")
    ended = runs.of(run.id)
    assert (ended.stage, ended.outcome, ended.message, ended.version) == (
        Stage.DONE,
        Outcome.NOT_PROMOTED,
        "no better",
        "v-1",
    )
    assert runs.claim(run.id, "b") is None
    assert asked(runs).id != run.id
    assert runs.outcomes() == {Outcome.NOT_PROMOTED: 1}


def test_a_silent_worker_loses_its_run_once_and_at_the_second_time_the_run_has_failed(runs, clock):
    run = asked(runs)
    runs.claim(run.id, "a")
    clock.now += 29
    assert runs.give_up_silent(30) == []
    clock.now += 2
    assert [lost.id for lost in runs.give_up_silent(30)] == [run.id]
    assert (runs.of(run.id).stage, runs.of(run.id).worker) == (Stage.QUEUED, None)
    assert runs.claim(run.id, "b").attempt == 2
    clock.now += 31
    runs.give_up_silent(30)
    failed = runs.of(run.id)
    assert (failed.stage, failed.outcome) == (Stage.FAILED, Outcome.FAILED)
    assert "two workers died" in failed.message


def test_a_worker_that_says_that_it_lives_keeps_its_run(runs, clock):
    run = asked(runs)
    claim = runs.claim(run.id, "a")
    for _ in range(5):
        clock.now += 20
        assert runs.beat(claim)
        assert runs.give_up_silent(30) == []


def test_a_worker_that_was_given_up_changes_nothing_any_more(runs, clock):
    run = asked(runs)
    old = runs.claim(run.id, "a")
    clock.now += 31
    runs.give_up_silent(30)
    assert not runs.progress(old, Stage.TRAINING, 5, 10)
    runs.claim(run.id, "b")
    assert not runs.beat(old)
    assert not runs.end(old, Outcome.PROMOTED, "", "v-1")
    assert not runs.give_back(old)
    assert (runs.of(run.id).worker, runs.of(run.id).stage) == ("b", Stage.QUEUED)


def test_a_run_that_is_given_back_waits_again_and_that_is_no_loss(runs, clock):
    run = asked(runs)
    for _ in range(3):
        assert runs.give_back(runs.claim(run.id, "a"))
    clock.now += 100
    assert runs.give_up_silent(30) == []
    assert runs.of(run.id).attempt == 3


def test_progress_is_stored(runs):
    claim = runs.claim(asked(runs).id, "a")
    runs.progress(claim, Stage.TRAINING, 3, 10, 42.0, {"loss": 0.5})
    runs.leave_out(claim, ["task 1: damaged"])
    run = runs.under_way(7)
    assert (run.stage, run.step, run.steps, run.eta_s, run.metrics) == (
        Stage.TRAINING,
        3,
        10,
        42.0,
        {"loss": 0.5},
    )
    assert run.left_out == ("task 1: damaged",)
    runs.progress(claim, Stage.COMPARING)
    assert runs.under_way(7).metrics == {"loss": 0.5}


def test_there_is_one_row_a_run(runs, engine):
    for _ in range(3):
        runs.end(runs.claim(asked(runs).id, "a"), Outcome.FAILED, "x" * 10_000)
    with Session(engine) as session:
        messages = [row.message for row in session.scalars(select(TrainingRun))]
    assert [len(message) for message in messages] == [2000] * 3
