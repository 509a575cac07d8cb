"""What several web servers and workers on one PostgreSQL rely on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, func, insert, select, text, update

from refcut_backend.clicks.context import read_context
from refcut_backend.clicks.history import LOCK_TIMEOUT_MS, ClickHistory, ClickKey
from refcut_backend.clicks.recent_objects import ClickedObjects
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.annotation_counts import CAN_TEACH, IS_NEW
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from refcut_backend.database.tables import AnnotationState, Project, TaskState
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.label_studio.regions import GivenMask
from refcut_backend.training.new_annotations import NewAnnotations
from tests.refcut_backend.references.test_annotation_states import check_processes_at_once
from tests.refcut_backend.references.test_places import move_at_once
from tests.support.fake_wiring import MASK
from tests.support.postgresql import running_postgresql
from tests.support.recorded import click_result

DOOR = ClickedObject("Door", "image", "rc-a", (PercentClick(10, 10, True, "a"),), single_prompt=True)
LABEL_STUDIO = Connection("http://127.0.0.1:8080", "a token")
GIVEN = GivenMask(8, 8, brush_rle.encode(MASK), 0.5, ())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_postgresql() as url:
        yield url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_database(url, LOCK_TIMEOUT_MS)
    yield opened
    opened.dispose()


def ask() -> ClickKey:
    context = read_context([click_result("a", 10, 10, "Door")])
    assert context is not None
    return ClickKey(1, 2, context, 50)


@pytest.fixture
def patient_engine(url: str) -> Iterator[Engine]:
    """Waits longer for a row than clicks do: on a busy machine some would give up."""
    opened = open_database(url)
    yield opened
    opened.dispose()


def test_processes_that_follow_the_same_events_at_once_leave_the_same_state_as_one_on_sqlite(
    url, patient_engine, tmp_path
):
    check_processes_at_once(url, tmp_path / "one")
    annotations = func.count(AnnotationState.annotation_id)
    with patient_engine.connect() as connection:
        counted = connection.execute(
            select(
                AnnotationState.project_id, annotations.filter(CAN_TEACH), annotations.filter(IS_NEW)
            ).group_by(AnnotationState.project_id)
        ).all()
    assert [total for _, total, _ in counted] == [2]
    assert {
        project: (counts.annotations, counts.new)
        for project, counts in NewAnnotations(patient_engine).by_project().items()
    } == {project: (total, new) for project, total, new in counted}


def test_counting_annotations_makes_no_two_transactions_wait_for_each_other(patient_engine):
    """One changes an annotation and then needs another, which the second one holds and changes."""
    row = {"project_id": 70, "locked_at": 1.0, "updated_at": ""}
    with patient_engine.begin() as connection:
        connection.execute(insert(AnnotationState), row | {"annotation_id": 2, "mask_regions": 0})
    needed = update(AnnotationState).where(
        AnnotationState.project_id == 70, AnnotationState.annotation_id == 2
    )
    with patient_engine.connect() as first, patient_engine.connect() as second, ThreadPoolExecutor(1) as pool:
        first.execute(insert(AnnotationState), row | {"annotation_id": 1, "mask_regions": 1})
        second.execute(needed.values(locked_at=2.0))
        waiting = pool.submit(first.execute, needed.values(locked_at=3.0))
        second.execute(needed.values(mask_regions=1))
        second.commit()
        waiting.result(30)
        first.commit()
    assert NewAnnotations(patient_engine).of(70).annotations == 2


@pytest.fixture
def one_task(patient_engine: Engine) -> int:
    """A project with a task whose annotations were compared."""
    project_id = Projects(patient_engine).remember(71, LABEL_STUDIO, "<View/>").project_id
    with patient_engine.begin() as connection:
        row = {"project_id": project_id, "task_id": 1, "locked_at": 1.0, "sync_fingerprint": "as listed"}
        connection.execute(insert(TaskState), row)
    return project_id


def test_a_project_is_forgotten_after_what_changes_it_and_its_tasks(patient_engine, one_task):
    projects = Projects(patient_engine)
    tasks = update(TaskState).where(TaskState.project_id == one_task)
    with patient_engine.connect() as change, ThreadPoolExecutor(1) as pool:
        change.execute(select(Project.id).where(Project.id == one_task).with_for_update())
        forgetting = pool.submit(projects.forget, one_task)
        with pytest.raises(TimeoutError):
            forgetting.result(1)
        change.execute(tasks.values(sync_fingerprint=None))
        change.commit()
        forgetting.result(30)
    assert one_task not in projects.known()


def test_a_new_label_config_and_what_holds_the_project_do_not_wait_for_each_other(patient_engine, one_task):
    projects = Projects(patient_engine)
    tasks = update(TaskState).where(TaskState.project_id == one_task)
    with patient_engine.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute(select(Project.id).where(Project.id == one_task).with_for_update())
        setup = pool.submit(projects.remember, 71, LABEL_STUDIO, "<View><Text/></View>")
        with pytest.raises(TimeoutError):
            setup.result(1)
        other.execute(tasks.values(sync_fingerprint="as listed later"))
        other.commit()
        assert setup.result(30).has_changed


def test_of_clicks_on_one_new_object_at_once_the_newest_is_remembered(patient_engine):
    objects = ClickedObjects(patient_engine, 600)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda at_s: objects.remember(1, 2, DOOR, GIVEN, context_key=str(at_s), requested_at_s=at_s),
                range(50, 66),
            )
        )
    (remembered,) = objects.recall(1, 2, 65)
    assert (remembered.clicked_at_s, remembered.clicked) == (65, DOOR)


def test_of_moves_of_references_at_the_same_moment_one_wins_and_none_fails(patient_engine):
    move_at_once(patient_engine)


def test_a_locked_table_costs_the_memory_and_not_the_click(engine):
    memory = ClickHistory(engine, 600)
    with engine.connect() as other:
        other.execute(text("LOCK TABLE clicked_objects, click_polarities IN ACCESS EXCLUSIVE MODE"))
        started = time.monotonic()
        session = memory.session(ask(), [])
        taken_s = time.monotonic() - started
        other.rollback()
    assert session.objects == ()
    assert taken_s < 5


def test_connections_that_a_restarted_server_has_closed_are_opened_anew(engine, url):
    objects = ClickedObjects(engine, 600)
    objects.recall(1, 2, 50)
    other = open_database(url)
    with other.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()")
        )
    other.dispose()
    assert isinstance(objects.recall(1, 2, 50), list)
