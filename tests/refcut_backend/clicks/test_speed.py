from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, insert

from refcut_backend.clicks.speed import BIN_S, MOST_CLICKS, ClickSpeed
from refcut_backend.database.click_tables import ClickEvent

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def log(engine: Engine, *clicks: tuple[float, float]) -> None:
    """Clicks as (seconds ago, milliseconds)."""
    rows = [
        {
            "project_id": 7,
            "task_id": 1,
            "label": "Door",
            "region_id": "r",
            "clicks": [],
            "model_version": "s14",
            "reference_versions": [],
            "milliseconds": milliseconds,
            "answered_at": NOW - timedelta(seconds=ago_s),
        }
        for ago_s, milliseconds in clicks
    ]
    with engine.begin() as connection:
        connection.execute(insert(ClickEvent), rows)


def test_the_last_hour_is_summed_up_in_steps_of_two_minutes_and_older_clicks_are_not_in_it(
    engine: Engine,
) -> None:
    log(engine, (4000, 9000.0), *((600, 10.0 * (n + 1)) for n in range(20)), (5, 80.0))
    early, late = ClickSpeed(engine, lambda: NOW).last_hour()
    assert (early.clicks, early.p50_ms, early.p95_ms) == (20, 105.0, 190.5)
    assert (late.clicks, late.p50_ms, late.p95_ms) == (1, 80.0, 80.0)
    assert abs(early.at_s - (NOW.timestamp() - 600)) <= BIN_S / 2


def test_a_flood_of_clicks_is_not_read_as_a_whole(engine: Engine) -> None:
    log(engine, *((60, 1.0) for _ in range(MOST_CLICKS + 10)))
    assert sum(step.clicks for step in ClickSpeed(engine, lambda: NOW).last_hour()) == MOST_CLICKS


def test_without_clicks_there_is_nothing_to_show(engine: Engine) -> None:
    assert ClickSpeed(engine).last_hour() == []
