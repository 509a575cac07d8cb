"""When trainings begin by themselves, and what becomes of those whose worker or whose Redis is gone."""

from __future__ import annotations

import pytest
from redis import Redis

from refcut_backend.database.leases import LeaseHolder
from refcut_backend.queue.background_queues import TrainingQueue
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from refcut_backend.queue.rq_jobs import TRAINING_QUEUE, open_queue
from refcut_backend.references.event_log import EventLog
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import Outcome, RequestedBy, Stage
from refcut_backend.training.scheduler import TrainingThread
from refcut_backend.training.trigger import TrainingRules
from tests.support.registry import open_registry
from tests.support.training_world import World, open_world


def thread_on(
    world: World, connection: Redis, rules: TrainingRules, silent_s: float = 30.0
) -> TrainingThread:
    """As a web process has it, not started."""
    engine = world.registry.engine
    queue = TrainingQueue(connection, 600)
    requests = TrainingRequests(world.runs, world.registry.projects, EventLog(engine), queue)
    lease = LeaseHolder(engine, "training", 30.0)
    return TrainingThread(requests, world.runs, world.new_annotations, lease, rules, silent_s=silent_s)


def jobs(connection: Redis) -> list[str]:
    return [str(job_id) for job_id in open_queue(TRAINING_QUEUE, connection).get_job_ids()]


@pytest.fixture
def thread(world, connection) -> TrainingThread:
    return thread_on(world, connection, TrainingRules(5, 600))


def test_a_training_begins_after_enough_annotations_and_only_one(world, connection, thread):
    world.annotate_many(4)
    thread.look()
    assert world.runs.all_under_way() == []
    world.annotate_many(1, first=5)
    thread.look()
    thread.look()
    (run,) = world.runs.all_under_way()
    assert (run.project_id, run.requested_by) == (7, RequestedBy.ANNOTATIONS)
    assert jobs(connection) == [f"{run.id}-0"]


def test_what_is_new_in_one_project_begins_no_training_of_another(world, thread):
    world.registry.projects.remember(8, world.api.connection, "<View/>")
    world.annotate_many(5)
    thread.look()
    assert [run.project_id for run in world.runs.all_under_way()] == [7]


def test_annotations_that_a_training_has_seen_begin_no_other(world, thread):
    world.annotate_many(5)
    world.train()
    thread.look()
    assert world.runs.all_under_way() == []


def test_not_more_often_than_the_interval_even_if_enough_is_new(world, connection):
    world.annotate_many(6)
    world.train()
    world.annotate_many(6)
    thread_on(world, connection, TrainingRules(5, 600)).look()
    assert world.runs.all_under_way() == []


def test_one_of_several_web_processes_looks(world, thread, connection):
    thread.look()
    world.annotate_many(5)
    thread_on(world, connection, TrainingRules(5, 600)).look()
    assert world.runs.all_under_way() == []
    thread.stop()
    thread_on(world, connection, TrainingRules(5, 600)).look()
    assert len(world.runs.all_under_way()) == 1


def test_a_run_that_redis_forgot_is_put_on_the_queue_again(world, connection, thread):
    run, _ = world.runs.request(7, RequestedBy.COMMAND)
    thread.look()
    connection.flushall()
    thread.look()
    assert jobs(connection) == [f"{run.id}-0"]


def test_a_training_requested_without_redis_waits_in_the_database(world):
    with EmbeddedRedis() as server:
        check_redis(server.url)
        url = server.url
    with connect_redis(url) as gone:
        thread = thread_on(world, gone, TrainingRules(5, 600))
        world.annotate_many(5)
        thread.look()
        (run,) = world.runs.all_under_way()
        assert run.stage is Stage.QUEUED


def test_a_run_whose_worker_is_silent_is_rerun_once(world, connection):
    thread = thread_on(world, connection, TrainingRules(0, 600), silent_s=-1.0)
    run, _ = world.runs.request(7, RequestedBy.COMMAND)
    world.runs.claim(run.id, "killed")
    thread.look()
    assert jobs(connection) == [f"{run.id}-1"]
    world.runs.claim(run.id, "killed too")
    thread.look()
    ended = world.runs.of(run.id)
    assert ended is not None
    assert ended.outcome is Outcome.FAILED


def test_two_web_processes_that_ask_at_once_get_one_run_and_one_event(world, connection, tmp_path):
    with open_registry(tmp_path) as other:
        first = TrainingRequests(world.runs, world.registry.projects, EventLog(world.registry.engine), None)
        second = TrainingRequests(world.runs, other.projects, EventLog(other.engine), None)
        assert first.button_pressed(7).id == second.button_pressed(7).id


def test_a_project_that_is_not_connected_is_logged_once_and_not_trained(world, thread, caplog):
    for task in range(1, 6):
        webhook = world.annotate(task)
        world.registry.follow(webhook | {"project": webhook["project"] | {"id": 8}})
    thread.look()
    thread.look()
    assert world.runs.all_under_way() == []
    assert [record.project for record in caplog.records if record.message == "training not started"] == [8]


def test_projects_are_trained_side_by_side(world, connection, tmp_path):
    first, _ = world.runs.request(7, RequestedBy.COMMAND)
    second, _ = world.runs.request(8, RequestedBy.COMMAND)
    assert {run.id for run in world.runs.all_under_way()} == {first.id, second.id}


def test_the_thread_starts_and_stops(tmp_path, connection):
    with open_world(tmp_path) as world:
        thread = thread_on(world, connection, TrainingRules(0, 600))
        thread.start()
        thread.stop()
