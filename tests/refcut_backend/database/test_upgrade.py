"""Databases that an earlier version of this program wrote are brought up to date."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.orm import Session

from refcut_backend.clicks.recent_objects import ClickedObjects
from refcut_backend.database import upgrade
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects, SetupResult
from refcut_backend.database.tables import Base
from refcut_backend.references.registry import References
from refcut_backend.references.selection import State
from refcut_backend.references.sync_states import SyncStates
from refcut_backend.training.new_annotations import AnnotationCounts, NewAnnotations
from tests.refcut_backend.references.test_registry import annotation_update, reference
from tests.support import forked_processes
from tests.support.recorded import FIXTURES

EARLIER = FIXTURES / "refcut_db_0_1_0.sql"


@pytest.fixture
def earlier(tmp_path: Path) -> str:
    """URL of a database that version 0.1.0 made: a project, and a reference for Wheel."""
    path = tmp_path / "refcut.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(EARLIER.read_text())
    connection.close()
    return f"sqlite:///{path}"


def columns_of(url: str) -> dict[str, set[str]]:
    engine = open_database(url)
    present = inspect(engine)
    found = {table: {c["name"] for c in present.get_columns(table)} for table in present.get_table_names()}
    engine.dispose()
    return found


def test_an_earlier_versions_database_keeps_its_projects_and_references(earlier):
    engine = open_database(earlier)
    assert Projects(engine).connection(7).label_studio == "http://127.0.0.1:8080"
    references = References(engine)
    (found,) = references.newest(7, "Wheel", 4)
    stored = references.load(found.id)
    assert stored is not None
    assert stored.positive_hw.any()
    (shown,) = references.overview(7, 4)
    assert shown.state is State.USED
    engine.dispose()


def test_an_earlier_versions_reference_is_not_overwritten_by_an_older_event(earlier):
    engine = open_database(earlier)
    references = References(engine)
    (kept,) = references.newest(7, "Wheel", 4)
    references.annotations.apply_webhook(
        annotation_update(5, 1, reference(2, "Wheel"), project=7, task=1), "ANNOTATION_UPDATED"
    )
    assert references.newest(7, "Wheel", 4) == [kept]
    references.annotations.remove_missing(7, 1, [], requested_at=2e9)
    assert references.newest(7, "Wheel", 4) == []
    engine.dispose()


def test_an_earlier_versions_reference_can_be_moved_before_a_newer_one(earlier):
    engine = open_database(earlier)
    references = References(engine)
    references.annotations.apply_webhook(
        annotation_update(50, 9, reference(2, "Wheel"), project=7, task=2), "ANNOTATION_CREATED"
    )
    newer, kept = references.overview(7, 4)
    assert newer.candidate.annotated_at > kept.candidate.annotated_at
    references.places.replace(7, "Wheel", {kept.candidate.given_by: 1})
    assert [found.id for found in references.newest(7, "Wheel", 4)] == [kept.candidate.id, newer.candidate.id]
    engine.dispose()


def test_an_earlier_versions_database_gets_every_declared_table_and_column(earlier, tmp_path):
    fresh = columns_of(f"sqlite:///{tmp_path / 'fresh.db'}")
    assert columns_of(earlier) == fresh
    assert set(fresh) == set(Base.metadata.tables)


def test_an_earlier_version_still_runs_on_a_database_of_this_one(earlier):
    """It inserts rows without the columns that it does not know."""
    open_database(earlier).dispose()
    insertions = [line for line in EARLIER.read_text().splitlines() if line.startswith("INSERT")]
    with sqlite3.connect(earlier.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM projects")
        connection.execute('DELETE FROM "references"')
        connection.executescript("\n".join(insertions))
        assert connection.execute('SELECT count(*) FROM "references"').fetchone() == (1,)
    connection.close()


BEFORE_RENAMES = FIXTURES / "refcut_db_before_plain_names.sql"
"""A row in every table, written before attributes got other names than their columns."""
RENAMED = {
    ("projects", "created_at"): "born",
    ("references", "explicitly_added"): "named",
    ("owner_rules", "created_at"): "said_at",
    ("webhook_events", "subject_version"): "said_at",
    ("annotation_states", "webhook_at"): "told_at",
    ("task_states", "webhook_at"): "told_at",
    ("task_states", "sync_fingerprint"): "compared",
    ("task_states", "needs_check"): "doubted",
    ("click_polarities", "recorded_at"): "said_at",
    ("clicked_objects", "negative_label_clicks"): "borrowed",
    ("clicked_objects", "single_prompt"): "lone",
    ("clicked_objects", "context_key"): "asked",
    ("clicked_objects", "requested_at_s"): "asked_at_s",
    ("training_runs", "requested_by"): "asked_by",
    ("training_runs", "requested_at"): "asked_at",
    ("training_runs", "started_at"): "begun_at",
    ("image_sides", "split"): "side",
}


@pytest.fixture
def before_renames(tmp_path: Path) -> str:
    """URL of a database with a row in every table, from before the renames."""
    path = tmp_path / "before.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(BEFORE_RENAMES.read_text())
    connection.close()
    return f"sqlite:///{path}"


def test_every_renamed_attribute_reads_its_old_column(before_renames):
    attributes = {
        (mapper.local_table.name, attribute.key): attribute.columns[0].name
        for mapper in Base.registry.mappers
        for attribute in mapper.column_attrs
    }
    assert {key: name for key, name in attributes.items() if key[1] != name} == RENAMED
    engine = open_database(before_renames)
    with engine.connect() as connection, Session(engine) as session:
        for mapper in Base.registry.mappers:
            table = mapper.local_table
            if table.name not in {name for name, _ in RENAMED}:
                continue
            (row,) = session.scalars(select(mapper.class_))
            for (name, attribute), column in RENAMED.items():
                if name == table.name:
                    stored = text(f'SELECT "{column}" AS value FROM "{name}"')
                    typed = stored.columns(value=mapper.attrs[attribute].columns[0].type)
                    value = connection.scalar(typed)
                    assert value is not None
                    assert getattr(row, attribute) == value, (name, attribute)
    engine.dispose()


def test_no_column_of_an_earlier_version_is_renamed_or_dropped(before_renames):
    with sqlite3.connect(before_renames.removeprefix("sqlite:///")) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        earlier = {
            table: {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')} for table in tables
        }
    connection.close()
    now = columns_of(before_renames)
    assert all(columns <= now[table] for table, columns in earlier.items())


def test_an_earlier_versions_state_is_used_as_it_was(before_renames):
    engine = open_database(before_renames)
    (shown,) = References(engine).overview(7, 4)
    assert shown.state is State.EXPLICITLY_ADDED
    assert SyncStates(engine).fingerprints(7, [1]) == {1: "2026-11-27T09:05:00.000000Z/1/0"}
    assert SyncStates(engine).tasks_with_references(7) == {1}
    assert SyncStates(engine).unfinished_tasks(7) == {1}
    (known,) = ClickedObjects(engine, memory_s=60).recall(7, 1, now_s=1795770351.0)
    assert known.clicked.single_prompt
    assert known.clicked.negative_label_clicks == {"k2"}
    assert known.context_key == "0123456789abcdef"
    connection = Projects(engine).connection(7)
    again = Projects(engine).remember(7, connection, "<View/>", "1795342440")
    assert again == SetupResult(7, has_changed=False)
    engine.dispose()


def states(engine: Engine) -> dict[int, AnnotationCounts]:
    return NewAnnotations(engine).by_project()


STATE = """INSERT INTO annotation_states (project_id, annotation_id, updated_at, locked_at, mask_regions, trained_until)
    VALUES (7, {number}, 'now', 5.0, {regions}, {until})"""


def test_the_annotations_of_an_earlier_version_are_counted_and_stay_counted_while_it_runs_on(before_renames):
    """It knows nothing of the counts: the database itself keeps them."""
    engine = open_database(before_renames)
    assert states(engine) == {7: AnnotationCounts(1, 1, 1795770301.0)}
    with sqlite3.connect(before_renames.removeprefix("sqlite:///")) as earlier_version:
        earlier_version.execute(STATE.format(number=20, regions=2, until="NULL"))
        earlier_version.execute(STATE.format(number=21, regions=2, until="'now'"))
        earlier_version.execute(STATE.format(number=22, regions=0, until="NULL"))
    assert states(engine) == {7: AnnotationCounts(3, 2, 5.0)}
    with earlier_version:
        earlier_version.execute("UPDATE annotation_states SET trained_until = updated_at")
        earlier_version.execute("DELETE FROM annotation_states WHERE annotation_id = 20")
        earlier_version.execute("UPDATE annotation_states SET mask_regions = 0 WHERE annotation_id = 21")
    earlier_version.close()
    assert states(engine) == {7: AnnotationCounts(1, 0)}
    engine.dispose()


def test_a_current_database_is_opened_without_a_write(before_renames):
    open_database(before_renames).dispose()
    path = Path(before_renames.removeprefix("sqlite:///"))
    before = path.read_bytes()
    with sqlite3.connect(path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        open_database(before_renames, lock_timeout_ms=1).dispose()
    writer.close()
    assert path.read_bytes() == before


def test_indexes_that_another_process_adds_meanwhile_cost_no_try(before_renames, monkeypatch):
    engine = open_database(before_renames)
    outdated = [index for table in Base.metadata.sorted_tables for index in table.indexes]
    look, looks = upgrade._missing_indexes, iter([outdated])
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES", 1)
    monkeypatch.setattr(upgrade, "_missing_indexes", lambda engine: next(looks, None) or look(engine))
    upgrade.make_current(engine)
    engine.dispose()


def open_it(url: str, start: object, failures: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    try:
        open_database(url).dispose()
    except BaseException as error:
        failures.put(repr(error))  # type: ignore[attr-defined]
        raise


@pytest.mark.parametrize("is_fresh", [True, False])
def test_processes_that_start_at_once_open_the_same_database(earlier, tmp_path, is_fresh):
    url = f"sqlite:///{tmp_path / 'new.db'}" if is_fresh else earlier
    forking = forked_processes.forking()
    start, failures = forking.Event(), forking.Queue()
    processes = [forking.Process(target=open_it, args=(url, start, failures)) for _ in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    assert failures.empty()
    failures.close()
    failures.join_thread()
    assert set(columns_of(url)) == set(Base.metadata.tables)
