"""What clicks, webhooks, `/status` and comparisons read of a project does not grow with the project."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine

from refcut_backend.clicks.forgotten_masks import ForgottenMasks
from refcut_backend.clicks.log import CHECK_EVERY_S, ClickLog, OldClicks
from refcut_backend.database.engine import open_database
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Action, Authors, OwnerRule
from refcut_backend.references.sync_states import SyncStates
from refcut_backend.training.new_annotations import NewAnnotations
from refcut_backend.training.runs import TrainingRuns
from refcut_backend.training.status import TrainingStatus
from tests.refcut_backend.database.test_upgrade import BEFORE_RENAMES
from tests.support.statements import indexes_read, recorded_statements

LARGE = {
    "references",
    "annotation_states",
    "task_states",
    "click_events",
    "click_polarities",
    "unaccepted_masks",
}
OF_ANNOTATION = "sqlite_autoindex_annotation_states_1"
OF_REFERENCE = "sqlite_autoindex_references_1"
OF_TASK = "sqlite_autoindex_task_states_1"


@dataclass(frozen=True)
class Question:
    """What is done, and the indexes that find its rows."""

    act: Callable[[Engine], object]
    indexes: set[tuple[str, str]]


def click_with_rules(engine: Engine) -> None:
    references = References(engine, Authors.read("1,lead@example.com"))
    for action, task, annotation in [
        (Action.PIN, 1, None),
        (Action.ADD, 2, 3),
        (Action.DISABLE, 4, None),
        (Action.DISABLE, 5, 6),
        (Action.DISABLE, None, 7),
    ]:
        references.rules.add(7, OwnerRule(action, "Door", task, annotation))
    references.newest(7, "Door", 4)


def drop_old_clicks(engine: Engine) -> None:
    clock = count(step=CHECK_EVERY_S)
    OldClicks(engine, 365, lambda: next(clock)).drop()


def status(engine: Engine) -> None:
    TrainingStatus(TrainingRuns(engine), NewAnnotations(engine), engine).summary()
    ForgottenMasks(engine).counts()


QUESTIONS = {
    "a click": Question(
        lambda engine: References(engine).newest(7, "Door", 4), {("references", "references_newest")}
    ),
    "a click on a label with rules": Question(
        click_with_rules,
        {
            ("references", "references_newest"),
            ("references", "references_of_task"),
            ("references", OF_REFERENCE),
        },
    ),
    "accepted masks": Question(
        lambda engine: ClickLog(engine).accept(7, ["rc-a", "rc-b"]),
        {("click_events", "click_events_of_region")},
    ),
    "the clicks of a snapshot": Question(
        lambda engine: ClickLog(engine).last_clicks(7, [1, 2]),
        {("click_events", "click_events_of_task"), ("click_events", "INTEGER PRIMARY KEY")},
    ),
    "/status": Question(
        status,
        {
            ("annotation_states", "annotation_states_new"),
            ("annotation_states", "annotation_states_left_out"),
            ("references", "references_left_out"),
            ("task_states", "task_states_left_out"),
            ("unaccepted_masks", "unaccepted_masks_missing"),
        },
    ),
    "a compared task": Question(
        lambda engine: References(engine).annotations.remove_missing(7, 1, [5], 2e9),
        {
            ("references", "references_of_task"),
            ("annotation_states", "annotation_states_of_task"),
            ("annotation_states", OF_ANNOTATION),
            ("task_states", OF_TASK),
        },
    ),
    "deleted tasks": Question(
        lambda engine: References(engine).annotations.remove_tasks(7, [1, 2]),
        {
            ("references", "references_of_task"),
            ("annotation_states", "annotation_states_of_task"),
            ("task_states", OF_TASK),
        },
    ),
    "the labels that were clicked last": Question(
        lambda engine: ClickLog(engine).last_labels(7),
        {("click_events", "click_events_newest")},
    ),
    "what the last comparison left": Question(
        lambda engine: SyncStates(engine).unfinished_tasks(7),
        {
            ("task_states", "task_states_to_check"),
            ("task_states", "task_states_left_out"),
            ("task_states", "task_states_unread"),
            ("references", "references_of_task"),
        },
    ),
    "a deleted annotation whose tick was forgotten": Question(
        lambda engine: ForgottenMasks(engine).follow_removal(7, [5, 6]),
        {("unaccepted_masks", "unaccepted_masks_missing")},
    ),
    "old clicks": Question(
        drop_old_clicks,
        {("click_events", "click_events_oldest"), ("click_polarities", "click_polarities_oldest")},
    ),
}


@pytest.fixture(params=["fresh", "of the version before"])
def any_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A fresh database, and one that has the indexes of the version before besides."""
    path = tmp_path / "refcut.db"
    if request.param != "fresh":
        with sqlite3.connect(path) as connection:
            connection.executescript(BEFORE_RENAMES.read_text())
        connection.close()
    opened = open_database(f"sqlite:///{path}")
    yield opened
    opened.dispose()


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_asked_often_is_found_by_an_index(any_engine, name):
    with recorded_statements(any_engine) as statements:
        QUESTIONS[name].act(any_engine)
    found = {(table, index) for table, index in indexes_read(any_engine, statements) if table in LARGE}
    assert found == QUESTIONS[name].indexes


def test_the_newest_references_are_not_sorted_because_the_index_has_their_order(engine):
    with recorded_statements(engine) as statements:
        References(engine).newest(7, "Door", 4)
    (of_references,) = [one for one in statements if "references" in one[0]]
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {of_references[0]}", of_references[1]).all()
    assert not [step for step in plan if "B-TREE" in step.detail]


def test_a_training_notes_what_it_has_seen_without_reading_the_project(engine):
    with recorded_statements(engine) as statements:
        NewAnnotations(engine).taken(7, {number: "2026-01-01" for number in range(1200)}, time.time())
    assert [text.split()[0] for text, _ in statements] == ["INSERT"] * 3
    assert NewAnnotations(engine).of(7).annotations == 0
