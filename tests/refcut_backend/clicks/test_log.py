"""The click log, and how long its rows are kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from refcut_backend.clicks.history import ClickPolarities
from refcut_backend.clicks.log import CHECK_EVERY_S, ClickCost, ClickLog, OldClicks
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.click_tables import ClickEvent, ClickPolarity
from refcut_backend.label_studio.prompts import Dot, PercentBox, PercentClick
from tests.support.statements import recorded_statements

CLICKS = (PercentClick(1.5, 2.5, True, "a"), PercentClick(3, 4, False, "b"), PercentClick(5, 6, True, "c"))
DOOR = ClickedObject("Door", "image", "rc-a", CLICKS[:1])


@pytest.fixture
def log(engine) -> ClickLog:
    return ClickLog(engine)


def add(log: ClickLog, clicked: ClickedObject, version: str = "s14-1", project: int = 1) -> None:
    log.add(project, 2, clicked, model_version=version, reference_versions=("v1",), milliseconds=12.5)


def test_an_event_says_what_was_clicked_where_and_with_what_it_was_answered(log, engine):
    add(log, replace(DOOR, clicks=CLICKS[:2], box=PercentBox(1, 2, 3, 4, "x")))
    with Session(engine) as session:
        (event,) = session.scalars(select(ClickEvent))
    assert (event.project_id, event.task_id, event.label, event.region_id) == (1, 2, "Door", "rc-a")
    assert event.clicks == [["a", 1.5, 2.5, True], ["b", 3, 4, False]]
    assert event.box == ["x", 1, 2, 3, 4]
    assert (event.model_version, event.reference_versions, event.milliseconds) == ("s14-1", ["v1"], 12.5)
    assert event.answered_at is not None
    assert event.accepted_at is None


def test_clicks_per_mask_counts_accepted_masks_with_the_clicks_that_they_had_last(log):
    for count in (1, 2, 3):
        add(log, replace(DOOR, clicks=CLICKS[:count]))
    add(log, replace(DOOR, region_id="rc-b"))
    add(log, replace(DOOR, region_id="rc-dropped"))
    add(log, replace(DOOR, region_id="rc-w", label="Wheel", box=PercentBox(1, 2, 3, 4, "x")))
    log.accept(1, ["rc-a", "rc-b", "rc-w", "drawn by hand"])
    assert log.clicks_per_mask(1) == [ClickCost("Door", "s14-1", 2, 2.0), ClickCost("Wheel", "s14-1", 1, 2.0)]


def test_a_mask_counts_for_the_model_version_that_gave_it_last(log):
    add(log, DOOR, "s14-1")
    add(log, replace(DOOR, clicks=CLICKS[:2]), "s14-2")
    log.accept(1, ["rc-a"])
    assert log.clicks_per_mask(1) == [ClickCost("Door", "s14-2", 1, 2.0)]


def test_the_labels_that_were_clicked_last_come_first(log, monkeypatch):
    for label in ("Hood", "Wheel", "Door", "Wheel"):
        add(log, replace(DOOR, label=label))
    for _ in range(3):
        add(log, replace(DOOR, label="Mirror"), project=2)
    assert log.last_labels(1) == ["Wheel", "Door", "Hood"]
    assert log.last_labels(3) == []
    monkeypatch.setattr("refcut_backend.clicks.log.LAST_CLICKS", 3)
    assert log.last_labels(1) == ["Wheel", "Door"], "only the newest clicks of the project are looked at"


def test_projects_do_not_mix(log):
    add(log, DOOR)
    add(log, DOOR, project=9)
    log.accept(1, ["rc-a"])
    assert log.clicks_per_mask(9) == []


def test_an_annotation_with_very_many_regions_is_no_problem(log):
    add(log, DOOR)
    log.accept(1, [f"rc-{number}" for number in range(100_000)] + ["rc-a"])
    assert [cost.masks for cost in log.clicks_per_mask(1)] == [1]


def test_the_last_clicks_of_a_region_are_those_of_its_last_answer_and_not_those_that_a_box_began(log):
    add(log, replace(DOOR, clicks=CLICKS))
    add(log, replace(DOOR, clicks=CLICKS[:2]))
    add(log, replace(DOOR, region_id="rc-w", box=PercentBox(1, 2, 3, 4, "x")))
    add(log, replace(DOOR, region_id="rc-elsewhere"), project=9)
    assert log.last_clicks(1, [2, 3]) == {2: {"rc-a": [["a", 1.5, 2.5, True], ["b", 3, 4, False]]}}
    assert log.last_clicks(1, []) == {}


def test_the_last_clicks_of_many_tasks_are_one_query(log, engine):
    for task in range(1, 100):
        log.add(1, task, DOOR, model_version="v", reference_versions=(), milliseconds=1.0)
    with recorded_statements(engine) as statements:
        found = log.last_clicks(1, range(1, 100))
    assert found.keys() == set(range(1, 100))
    assert len(statements) == 1


OLD_DOOR = ClickedObject("Door", "image", "rc-a", (PercentClick(1.5, 2.5, True, "a"),))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def click(engine: Engine, task_id: int, days_ago: float) -> None:
    """An answered click on a dot of the task's number, so long ago."""
    ClickLog(engine).add(1, task_id, OLD_DOOR, model_version="v", reference_versions=(), milliseconds=1.0)
    ClickPolarities(engine).resolve(1, [Dot(str(task_id), 1, 2, False)])
    at = datetime.now(UTC) - timedelta(days=days_ago)
    with Session(engine) as session, session.begin():
        session.execute(update(ClickEvent).where(ClickEvent.task_id == task_id).values(answered_at=at))
        dot = ClickPolarity.click_id == str(task_id)
        session.execute(update(ClickPolarity).where(dot).values(recorded_at=at))


def known(engine: Engine) -> tuple[set[int], set[str]]:
    """Tasks with logged clicks, and dots whose sign is known."""
    logged = set(ClickLog(engine).last_clicks(1, range(10)))
    return logged, set(ClickPolarities(engine).resolve(1, [Dot(str(n), 1, 2, None) for n in range(10)]))


def test_clicks_older_than_they_are_kept_are_dropped_and_no_others(engine, clock):
    click(engine, 1, 366)
    click(engine, 2, 364)
    OldClicks(engine, 365, clock).drop()
    assert known(engine) == ({2}, {"2"})


def test_clicks_can_be_kept_for_ever(engine, clock):
    click(engine, 1, 10_000)
    OldClicks(engine, 0, clock).drop()
    assert known(engine) == ({1}, {"1"})


def test_dots_of_an_earlier_version_without_a_time_age_from_now_on(engine, clock):
    click(engine, 1, 0)
    with Session(engine) as session, session.begin():
        session.execute(update(ClickPolarity).values(recorded_at=None))
    old = OldClicks(engine, 365, clock)
    old.drop()
    with Session(engine) as session:
        assert all(session.scalars(select(ClickPolarity.recorded_at)))
    with Session(engine) as session, session.begin():
        session.execute(update(ClickPolarity).values(recorded_at=datetime.now(UTC) - timedelta(days=366)))
    clock.now_s += CHECK_EVERY_S
    old.drop()
    assert known(engine)[1] == set()


def test_it_looks_once_an_hour(engine, clock):
    old = OldClicks(engine, 365, clock)
    old.drop()
    click(engine, 1, 366)
    old.drop()
    assert known(engine)[0] == {1}
    clock.now_s += CHECK_EVERY_S
    old.drop()
    assert known(engine)[0] == set()
