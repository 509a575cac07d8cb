"""The log of clicks is bounded by their age."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from refcut_backend.clicks.history import ClickPolarities
from refcut_backend.clicks.log import LOOK_EVERY_S, ClickLog, OldClicks
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.tables import ClickEvent, ClickPolarity
from refcut_backend.label_studio.prompts import Dot, PercentClick

DOOR = ClickedObject("Door", "image", "rc-a", (PercentClick(1.5, 2.5, True, "a"),))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def click(engine: Engine, task_id: int, days_ago: float) -> None:
    """An answered click on a dot of the task's number, so long ago."""
    ClickLog(engine).add(1, task_id, DOOR, model_version="v", reference_versions=(), milliseconds=1.0)
    ClickPolarities(engine).resolve(1, [Dot(str(task_id), 1, 2, False)])
    at = datetime.now(UTC) - timedelta(days=days_ago)
    with Session(engine) as session, session.begin():
        session.execute(update(ClickEvent).where(ClickEvent.task_id == task_id).values(answered_at=at))
        dot = ClickPolarity.click_id == str(task_id)
        session.execute(update(ClickPolarity).where(dot).values(said_at=at))


def known(engine: Engine) -> tuple[set[int], set[str]]:
    """Tasks with logged clicks, and dots whose sign is known."""
    logged = {task for task in range(10) if ClickLog(engine).last_clicks(1, task)}
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
        session.execute(update(ClickPolarity).values(said_at=None))
    old = OldClicks(engine, 365, clock)
    old.drop()
    with Session(engine) as session:
        assert all(session.scalars(select(ClickPolarity.said_at)))
    with Session(engine) as session, session.begin():
        session.execute(update(ClickPolarity).values(said_at=datetime.now(UTC) - timedelta(days=366)))
    clock.now_s += LOOK_EVERY_S
    old.drop()
    assert known(engine)[1] == set()


def test_it_looks_once_an_hour(engine, clock):
    old = OldClicks(engine, 365, clock)
    old.drop()
    click(engine, 1, 366)
    old.drop()
    assert known(engine)[0] == {1}
    clock.now_s += LOOK_EVERY_S
    old.drop()
    assert known(engine)[0] == set()
