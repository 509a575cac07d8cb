"""What version 0.1.0 left in Redis: its jobs, claims and unanswered clicks are taken over by today's processes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from refcut_backend.errors import RefusedJobError
from refcut_backend.queue.rq_jobs import RENAMED_FUNCTIONS, RegisteredJob, read_result
from tests.support.worker_farm import GENEROUS_S, WorkerFarm, click, wait_for

CLICK = {
    "project_id": 1,
    "task_id": 1,
    "image_address": "/old-click",
    "label": "mask",
    "clicks": [{"x_percent": 10.0, "y_percent": 20.0, "positive": True, "id": "a"}],
    "reference_ids": [4],
    "click_ids": ["a"],
    "box": {"left": 1.0, "top": 2.0, "right": 3.0, "bottom": 4.0, "id": "b"},
    "format": 2,
}
OPENED_TASK = {
    "project_id": 1,
    "task_id": 3,
    "image_addresses": ["/a.jpg"],
    "reference_ids": [4, 5],
    "format": 1,
}
TASK = {
    "project_id": 1,
    "task_id": 2,
    "labels": [{"label": "Wheel", "to_name": "image", "image_address": "/a.jpg", "reference_ids": [4]}],
    "format": 2,
}


def leave_job(connection: Redis, queue: str, function: str, job: dict[str, Any], job_id: str) -> None:
    """As a web process of version 0.1.0 does: the job, and the claim of somebody who waits for it."""
    connection.set(f"refcut:ticket:{job_id}", "waiting", px=1000 * GENEROUS_S)
    Queue(queue, connection=connection, serializer=JSONSerializer).enqueue_call(
        function, args=(job,), timeout=GENEROUS_S, result_ttl=GENEROUS_S, job_id=job_id
    )


def leave_click(connection: Redis, job_id: str) -> None:
    connection.hset("refcut:unanswered:1:1", job_id, json.dumps(CLICK["click_ids"]))
    leave_job(connection, "clicks", "refcut_backend.worker.run_click.run_click", CLICK, job_id)


def test_jobs_that_the_older_version_left_in_redis_are_run_under_their_old_names(farm: WorkerFarm):
    leave_click(farm.connection, "old-click")
    leave_job(farm.connection, "warm", "refcut_backend.worker.run_warm.run_warm", OPENED_TASK, "old-warm")
    leave_job(
        farm.connection, "prelabel", "refcut_backend.worker.run_prelabel.run_prelabel", TASK, "old-task"
    )
    farm.start_worker("--queues", "clicks,warm,prelabel")
    answer = read_result(farm.connection, "old-click", GENEROUS_S)
    assert answer is not None
    assert (answer["width"], answer["height"], answer["error_code"]) == (3, 2, None)
    found = read_result(farm.connection, "old-task", GENEROUS_S)
    assert found is not None
    assert [label["label"] for label in found["found"]] == ["Wheel"]
    assert farm.computed() == ["/old-click", "preload 3", "task 2 Wheel"]


def test_a_click_of_the_older_version_is_superseded_by_a_newer_one_on_its_object(farm: WorkerFarm):
    leave_click(farm.connection, "old-click")
    newer = farm.ask_waiting(click("mask", "a", "b", name="/newer"))
    answer = read_result(farm.connection, "old-click", GENEROUS_S)
    assert answer is not None
    assert answer["error_code"] == "superseded"
    farm.start_worker()
    assert newer.result().reason == "answered"
    assert farm.computed() == ["/newer"]


def test_a_worker_of_the_older_version_that_holds_a_click_counts_as_its_holder(farm: WorkerFarm):
    reply = farm.ask_waiting(click("mask", "a", name="/held"))
    (key,) = farm.connection.keys("refcut:ticket:*")
    state = {"name": "older", "queues": ["clicks"], "ready": True, "device": "cpu", "click_s": 0.5}
    farm.connection.set("refcut:worker:older", json.dumps(state), px=1000)
    farm.connection.set(key, "held by older", keepttl=True)
    wait_for(reply.done, "the worker has been silent for too long")
    assert reply.result().reason == "worker_lost"


@pytest.mark.parametrize("old_name", RENAMED_FUNCTIONS)
def test_every_old_name_is_one_of_todays_functions(connection: Redis, old_name: str):
    job = RegisteredJob.create(old_name, ({},), connection=connection, serializer=JSONSerializer)
    function = job.func
    assert f"{function.__module__}.{function.__name__}" == RENAMED_FUNCTIONS[old_name]


@pytest.mark.parametrize(
    "name",
    [
        "refcut_backend.worker.run_click.log",
        "refcut_backend.worker.run_click",
        "refcut_backend.inference.jobs.register",
        "refcut_backend.inference.jobs.run_warm",
        "os.mkdir",
    ],
)
def test_no_other_name_of_the_older_version_is_imported(connection: Redis, name: str):
    job: Job = RegisteredJob.create(name, ({},), connection=connection, serializer=JSONSerializer)
    with pytest.raises(RefusedJobError):
        _ = job.func
