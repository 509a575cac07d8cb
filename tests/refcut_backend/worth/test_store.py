"""Runs and figures in the database."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from refcut_backend.database.projects import Projects
from refcut_backend.worth.figures import ReferenceFigures, TaskFigures
from refcut_backend.worth.store import (
    GIVEN_UP_S,
    INTERRUPTED,
    LOST_AGAIN,
    MAX_LOSSES,
    SILENT_S,
    Outcome,
    WorthStore,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: Engine, clock: Clock) -> WorthStore:
    return WorthStore(engine, clock)


def figures(version: str, model: str = "m", label: str = "Wheel") -> ReferenceFigures:
    tasks = (TaskFigures(3, 0.75, 0.5, None, True), TaskFigures(4, 0.25, 0.5, 0.125))
    return ReferenceFigures(label, version, model, 5.0, tasks, ("task 9: gone",))


def test_one_run_of_a_project_at_a_time(store):
    run, is_new = store.request(7, None)
    again, is_new_again = store.request(7, "Wheel")
    assert (is_new, is_new_again) == (True, False)
    assert again.id == run.id
    assert store.request(8, None)[1]


def test_progress_and_end_are_read_back_and_an_ended_run_changes_no_more(store):
    run, _ = store.request(7, "Wheel")
    assert store.progress(run, 3, 20)
    assert (store.latest(7).step, store.latest(7).steps, store.latest(7).label) == (3, 20, "Wheel")
    assert store.end(run, Outcome.DONE, "all done", [f"task {n}" for n in range(30)])
    ended = store.latest(7)
    assert (ended.outcome, ended.message, len(ended.problems)) == (Outcome.DONE, "all done", 21)
    assert ended.problems[-1] == "and 10 more"
    assert not store.progress(run, 4)
    assert not store.end(run, Outcome.FAILED, "late")
    assert store.request(7, None)[1]


def test_a_stopped_run_belongs_to_nobody(store):
    assert not store.stop(7)
    run, _ = store.request(7, None)
    assert store.stop(7)
    assert not store.progress(run, 1)
    assert store.latest(7).outcome is Outcome.STOPPED


def test_a_run_whose_process_is_silent_is_taken_up_and_begins_anew(store, clock):
    run, _ = store.request(7, "Wheel")
    clock.now += SILENT_S / 2
    store.progress(run, 3, 20)
    clock.now += SILENT_S - 1
    assert store.take_silent() == []
    clock.now += 2
    assert not store.latest(7).has_ended
    (taken,) = store.take_silent()
    assert (taken.project_id, taken.label, taken.step, taken.losses) == (7, "Wheel", 0, 1)
    assert store.latest(7) == taken
    assert store.take_silent() == []
    assert not store.progress(run), "the silent process learns of it"
    assert store.progress(taken)


def test_a_run_that_loses_process_after_process_has_failed(store, clock):
    store.request(7, None)
    for _ in range(MAX_LOSSES - 1):
        clock.now += SILENT_S + 1
        assert len(store.take_silent()) == 1
    clock.now += SILENT_S + 1
    assert store.take_silent() == []
    assert (store.latest(7).outcome, store.latest(7).message) == (Outcome.FAILED, LOST_AGAIN)


def test_a_run_that_nobody_takes_up_has_failed_and_another_may_begin(store, clock):
    run, _ = store.request(7, None)
    clock.now += GIVEN_UP_S + 1
    assert (store.latest(7).outcome, store.latest(7).message) == (Outcome.FAILED, INTERRUPTED)
    assert store.take_silent() == []
    other, is_new = store.request(7, None)
    assert is_new
    assert not store.progress(run)
    assert store.progress(other)


def test_whoever_asks_for_a_silent_run_leads_it_at_once(store, clock):
    run, _ = store.request(7, None)
    clock.now += SILENT_S + 1
    other, is_new = store.request(7, "Wheel")
    assert (is_new, other.label) == (True, "Wheel")
    assert not store.progress(run)
    assert store.take_silent() == []


def test_figures_are_kept_with_the_version_of_the_model(store):
    both = {("Wheel", "a" * 12)}
    store.save(7, [figures("a" * 12, "m1")], both)
    store.save(7, [figures("a" * 12, "m2")], both)
    found = store.of_project(7)["Wheel", "a" * 12]
    assert found == [figures("a" * 12, "m1"), figures("a" * 12, "m2")]
    assert store.of_project(8) == {}


def test_a_second_measurement_with_the_same_model_replaces_the_first(store):
    present = {("Wheel", "a" * 12)}
    store.save(7, [figures("a" * 12)], present)
    newer = ReferenceFigures("Wheel", "a" * 12, "m", 9.0)
    store.save(7, [newer], present)
    assert store.of_project(7) == {("Wheel", "a" * 12): [newer]}


def test_figures_of_references_that_are_gone_or_changed_are_removed(store):
    store.save(7, [figures("a" * 12), figures("b" * 12)], {("Wheel", "a" * 12), ("Wheel", "b" * 12)})
    store.save(8, [figures("a" * 12)], {("Wheel", "a" * 12)})
    store.save(7, [figures("c" * 12)], {("Wheel", "b" * 12)})
    assert set(store.of_project(7)) == {("Wheel", "b" * 12)}
    assert set(store.of_project(8)) == {("Wheel", "a" * 12)}


def test_a_forgotten_project_takes_its_measurements_along(store, engine):
    store.request(7, None)
    store.save(7, [figures("a" * 12)], {("Wheel", "a" * 12)})
    Projects(engine).forget(7)
    assert store.latest(7) is None
    assert store.of_project(7) == {}
