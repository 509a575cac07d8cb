"""A measurement from its request to the figures, on a fake Label Studio and a queue that answers at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from refcut_backend.database import tables
from refcut_backend.errors import ConfigError, NoReferenceError, NotConnectedError
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.training.holdout import Split, SplitStore
from refcut_backend.worth.figures import ReferenceFigures
from refcut_backend.worth.measure import ReferenceWorths, WorthRules
from refcut_backend.worth.store import SILENT_S, Outcome
from tests.support.fake_wiring import MODEL_VERSION, FakeMeasureQueue
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.registry import DOOR, MOVED, WHEEL, Registry, marked, open_registry
from tests.support.worker_farm import wait_for


class World:
    """A project with references of Door on the tasks 1 and 2, and doors on the tasks 3 to 8."""

    def __init__(self, registry: Registry, api: LabelStudioApi, folder) -> None:
        self.registry, self.api, self.folder = registry, api, folder
        self.queue = FakeMeasureQueue()
        for task_id in (1, 2):
            registry.follow(api.annotate(100 + task_id, task_id, DOOR, marked(DOOR)))
        for task_id in range(3, 9):
            registry.follow(api.annotate(100 + task_id, task_id, DOOR))
        self.worths = self.make()

    def make(self, **rules) -> ReferenceWorths:
        return ReferenceWorths(
            self.registry.engine,
            self.registry.projects,
            self.registry.references,
            Addresses(self.registry.engine),
            self.queue,
            WorthRules(4, self.folder / "training", "shared", **rules),
        )

    def measure(self, label: str | None = None):
        run, is_new = self.worths.request(7, label)
        assert is_new
        self.worths.measure(run)
        return self.worths.store.latest(7)

    def figures(self, task_id: int, label: str = "Door") -> ReferenceFigures:
        candidates = self.registry.references.of_label(7, label)
        version = next(c.version for c in candidates if c.task_id == task_id)
        (found,) = self.worths.store.of_project(7)[label, version]
        return found


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with serving(LabelStudioApi()) as api, open_registry(tmp_path) as registry:
        registry.connect(api)
        yield World(registry, api, tmp_path)


def test_each_reference_is_measured_on_the_other_tasks_and_never_on_its_own(world):
    ended = world.measure()
    assert (ended.outcome, ended.message) == (Outcome.DONE, "2 references measured on 8 annotated masks")
    assert (ended.step, ended.steps) == (8, 8)
    for own, other in ((1, 2), (2, 1)):
        found = world.figures(own)
        assert {task.task_id for task in found.tasks} == {other, *range(3, 9)}
        assert {(task.alone, task.without) for task in found.tasks} == {(0.6, 0.5)}
        assert found.model_version == MODEL_VERSION
    ids = {c.task_id: c.id for c in world.registry.references.of_label(7, "Door")}
    for job in world.queue.jobs:
        assert not any(ids.get(job.task_id) in one for one in job.sets)


def test_the_others_are_the_references_that_clicks_would_use_without_it(world):
    world.measure()
    found = {task.task_id: task.others for task in world.figures(1).tasks}
    assert found.pop(2) is None, "task 2 gave the only other one"
    assert set(found.values()) == {0.6}


def test_one_label_is_measured_alone(world):
    world.registry.follow(
        world.api.annotate(120, 20, WHEEL, marked(WHEEL)), world.api.annotate(121, 21, WHEEL)
    )
    assert world.measure("Wheel").message == "1 reference measured on 1 annotated mask"
    assert {task.task_id for task in world.figures(20, "Wheel").tasks} == {21}
    assert {label for label, _ in world.worths.store.of_project(7)} == {"Wheel"}


def test_a_job_that_a_worker_gives_back_is_asked_for_again_until_it_is_complete(world):
    world.queue.most_at_once = 1
    world.measure()
    assert len(world.figures(1).tasks) == 7
    assert [job.sets for job in world.queue.jobs if job.task_id == 3] == [
        ((), *rest) for rest in [world.queue.jobs[0].sets[1:]]
    ] + [world.queue.jobs[0].sets[1:], world.queue.jobs[0].sets[2:]]


def test_failures_are_named_and_the_rest_is_measured(world):
    world.queue.problems[3] = "the image is cut short"
    lost = next(c.id for c in world.registry.references.of_label(7, "Door") if c.task_id == 2)
    world.queue.lost.add(lost)
    ended = world.measure()
    assert ended.problems == ("task 3: the image is cut short",)
    assert len(world.figures(1).tasks) == 6
    assert str(world.figures(2)).startswith("Not measured: ")
    assert "its image cannot be used: lost" in world.figures(2).problems


def test_another_model_during_the_run_has_everything_measured_anew(world):
    world.queue.versions = ["old", "old", "new"] + ["new"] * 8
    assert world.measure().outcome is Outcome.DONE
    assert world.figures(1).model_version == "new"
    assert len(world.figures(1).tasks) == 7
    world.queue.versions = ["a", "b"] * 10
    ended = world.measure()
    assert ended.outcome is Outcome.FAILED
    assert "the model changed again and again" in ended.message
    assert world.figures(1).model_version == "new", "earlier figures stay"


def test_photographs_that_a_projects_own_version_was_trained_on_are_counted(world):
    splits = {"trained": Split.TRAIN, "held out": Split.HOLDOUT}
    SplitStore(world.registry.engine).settle(7, lambda _known: splits)
    world.queue.images = {3: "trained", 4: "trained", 5: "held out"}
    world.measure()
    assert {task.task_id for task in world.figures(1).tasks if task.trained} == {3, 4}
    world.queue.versions = ["shared"] * 8
    world.measure()
    found = world.worths.store.of_project(7)
    of_shared = [one for ones in found.values() for one in ones if one.model_version == "shared"]
    assert len(of_shared) == 2
    assert not any(task.trained for one in of_shared for task in one.tasks)


def test_a_reference_that_changes_meanwhile_gets_no_figures(world):
    world.queue.gate = threading.Event()
    world.worths.start(7)
    wait_for(lambda: world.queue.jobs, "the measurement has begun")
    world.registry.follow(world.api.annotate(101, 1, MOVED, marked(MOVED)))
    world.queue.gate.set()
    wait_for(lambda: world.worths.store.latest(7).has_ended, "it has ended")
    changed = next(c for c in world.registry.references.of_label(7, "Door") if c.task_id == 1)
    assert ("Door", changed.version) not in world.worths.store.of_project(7)
    assert len(world.worths.store.of_project(7)) == 1


def test_a_stopped_run_ends_and_stores_nothing(world):
    world.queue.gate = threading.Event()
    world.worths.start(7)
    wait_for(lambda: world.queue.jobs, "the measurement has begun")
    assert world.worths.store.stop(7)
    wait_for(lambda: not world.worths._turn.locked(), "it has ended")
    assert world.worths.store.latest(7).outcome is Outcome.STOPPED
    assert world.worths.store.of_project(7) == {}


def test_runs_of_two_projects_go_one_after_another(world):
    world.registry.projects.remember(8, world.api.connection, world.registry.projects.label_config(7))
    run, _ = world.worths.request(7)
    with world.worths._turn:
        waiting = threading.Thread(target=world.worths.measure, args=(run,))
        waiting.start()
        time.sleep(0.1)
        assert world.queue.jobs == []
        assert not world.worths.store.latest(7).has_ended
    waiting.join()
    assert world.worths.store.latest(7).outcome is Outcome.DONE


def test_a_run_whose_process_died_is_led_to_its_end_by_another(world):
    run, _ = world.worths.request(7, "Door")
    with Session(world.registry.engine) as session, session.begin():
        session.execute(update(tables.WorthRun).values(seen_at=time.time() - SILENT_S - 1))
    other = world.make()
    world.queue.workers_ready = 0
    other.resume()
    assert other.store.latest(7).id == run.id, "it waits for a worker"
    world.queue.workers_ready = 1
    other.resume()
    wait_for(lambda: other.store.latest(7).has_ended, "the other process measures")
    assert other.store.latest(7).outcome is Outcome.DONE
    assert len(world.figures(1).tasks) == 7


def test_a_run_ends_in_time_with_what_it_has(world):
    world.worths = world.make(limit_s=-1.0)
    ended = world.measure()
    assert ended.outcome is Outcome.DONE
    assert ended.problems == ("8 masks were left out: the time was over",)


def test_label_studio_that_is_away_is_a_failure_with_its_reason(world):
    world.api.fails_with = 500
    ended = world.measure()
    assert ended.outcome is Outcome.FAILED
    assert "Label Studio answers 500" in ended.message
    assert world.worths.store.of_project(7) == {}


def test_what_cannot_be_measured_is_refused_at_once(world):
    with pytest.raises(NoReferenceError, match="of 'Hood'"):
        world.worths.request(7, "Hood")
    with pytest.raises(NotConnectedError):
        world.worths.request(99)
    world.queue.workers_ready = 0
    with pytest.raises(ConfigError, match="no worker is ready"):
        world.worths.request(7)
    assert world.worths.store.latest(7) is None


def test_a_signed_address_does_not_travel_through_redis(world):
    world.api.add_task(30, "https://bucket.example/a.jpg?X-Amz-Signature=canary")
    world.registry.follow(world.api.annotate(130, 30, DOOR))
    world.measure()
    addresses = [job.image_address for job in world.queue.jobs if job.task_id == 30]
    assert addresses
    assert not any("canary" in address for address in addresses)
