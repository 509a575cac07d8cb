from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from refcut_backend.clicks.next_tasks import PAUSE_S, SAMPLING_KNOWN_S, STAYS_OPEN_S, NextTasks
from refcut_backend.database.engine import open_database
from refcut_backend.database.projects import Projects
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.recorded import LABEL_CONFIG
from tests.support.registry import DOOR

PROJECT = 7


class Preloader:
    """Notes what is to be prepared."""

    def __init__(self) -> None:
        self.tasks: list[int] = []
        self.asked: list[tuple[int, dict[str, Any], str]] = []

    def prepare(self, project_id: int, task_id: int, task_data: dict[str, Any], label_config: str) -> None:
        self.tasks.append(task_id)
        self.asked.append((project_id, task_data, label_config))


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def label_studio() -> Iterator[LabelStudioApi]:
    with serving(LabelStudioApi(PROJECT)) as api:
        for number in (10, 20, 30, 40):
            api.add_task(number)
        yield api


@pytest.fixture
def projects(tmp_path, label_studio) -> Iterator[Projects]:
    engine = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    known = Projects(engine)
    known.remember(PROJECT, label_studio.connection, LABEL_CONFIG)
    yield known
    engine.dispose()


@pytest.fixture
def preloader() -> Preloader:
    return Preloader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def next_tasks(projects, preloader, clock) -> NextTasks:
    """Its thread does not run: `work_on` does what it would."""
    return NextTasks(projects, preloader, now=clock)


@pytest.fixture
def work_on(next_tasks) -> Callable[[int], int | None]:
    """Opens a task; returns what was prepared then."""

    def work_on(task_id: int) -> int | None:
        next_tasks.follow(PROJECT, task_id)
        return next_tasks.prepare_behind(PROJECT, task_id)

    return work_on


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Why tasks were not prepared, as it is logged."""
    return [record.__dict__["problem"] for record in caplog.records if record.name == "refcut.click"]


def test_the_task_behind_the_opened_one_is_prepared_with_its_image_and_the_label_config(work_on, preloader):
    assert work_on(10) == 20
    assert preloader.tasks == [20]
    assert preloader.asked == [(PROJECT, {"image": "/data/upload/20.png"}, LABEL_CONFIG)]


def test_annotated_and_skipped_tasks_are_passed_over_as_the_label_stream_does(work_on, label_studio):
    label_studio.annotate(1, 20, DOOR)
    label_studio.annotate(2, 30, DOOR)
    label_studio.annotations[2]["was_cancelled"] = True
    assert work_on(10) == 40


def test_the_last_task_has_none_behind_it(work_on, preloader):
    assert work_on(40) is None
    assert preloader.tasks == []


def test_what_another_annotator_has_open_is_passed_over(work_on):
    assert work_on(20) == 30
    assert work_on(10) is None  # 30 is prepared, and whoever is done first gets it
    assert work_on(30) == 40


def test_a_task_that_nobody_annotated_can_be_prepared_again_after_half_an_hour(work_on, clock):
    assert work_on(10) == 20
    assert work_on(10) is None
    clock.seconds += STAYS_OPEN_S
    assert work_on(10) == 20


@pytest.mark.parametrize("sampling", ["Uniform sampling", "Uncertainty sampling"])
def test_in_another_order_than_that_of_the_ids_nothing_is_guessed(work_on, preloader, label_studio, sampling):
    label_studio.sampling = sampling
    assert work_on(10) is None
    assert preloader.tasks == []


def test_a_changed_order_is_followed_within_minutes(work_on, label_studio, clock):
    assert work_on(10) == 20
    label_studio.sampling = "Uniform sampling"
    clock.seconds += SAMPLING_KNOWN_S
    assert work_on(20) is None


def test_one_opened_task_costs_label_studio_one_request_once_the_order_is_known(work_on, label_studio):
    work_on(10)
    label_studio.requests.clear()
    work_on(20)
    assert label_studio.requests == ["/api/tasks/"]


def test_a_label_studio_that_does_not_answer_is_left_alone_for_minutes(
    next_tasks, label_studio, preloader, clock, caplog
):
    caplog.set_level("INFO")
    label_studio.fails_with = 403
    assert next_tasks.prepare_behind(PROJECT, 10) is None
    (problem,) = problems(caplog)
    assert problem.startswith("Label Studio refuses the token for project 7 (403)")
    assert "canary" not in problem
    label_studio.fails_with = None
    next_tasks.start()
    next_tasks.follow(PROJECT, 20)
    clock.seconds += PAUSE_S
    next_tasks.follow(PROJECT, 30)
    next_tasks.stop()  # does what waits first
    assert preloader.tasks == [40]
    assert label_studio.requests.count("/api/tasks/") == 1


def test_the_thread_follows_the_first_sign_of_each_task_only(next_tasks, preloader, label_studio):
    for task_id in (10, 10, 10, 20, 10, 20):
        next_tasks.follow(PROJECT, task_id)
    next_tasks.start()
    next_tasks.stop()  # does what waits first
    assert label_studio.requests.count("/api/tasks/") == 2
    assert preloader.tasks == [30]


def test_following_never_waits_for_label_studio(next_tasks, label_studio, caplog):
    caplog.set_level("INFO")
    for task_id in range(100):  # the thread does not run, so all of them wait
        next_tasks.follow(PROJECT, task_id)
    assert label_studio.requests == []
    assert set(problems(caplog)) == {"too many wait"}
