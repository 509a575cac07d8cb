from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from refcut_backend.clicks.log import ClickCost, ClickLog
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.tables import ClickEvent
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

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
    assert log.last_clicks(1, 2) == {"rc-a": [["a", 1.5, 2.5, True], ["b", 3, 4, False]]}
    assert log.last_clicks(1, 3) == {}
