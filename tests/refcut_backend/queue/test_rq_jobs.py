"""What somebody who can write to Redis cannot do."""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from rq.job import Job
from rq.serializers import JSONSerializer

from refcut_backend.errors import ConfigError
from refcut_backend.queue import claims
from refcut_backend.queue.rq_jobs import CLICK_FUNCTION, open_queue, read_queue_names
from tests.support.worker_farm import WorkerFarm, click, wait_for


class TouchesCanary:
    """Unpickling it creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.canary,)  # type: ignore[return-value]


def push(farm: WorkerFarm, queue: str, job_id: str, data: bytes, **fields: str | bytes) -> None:
    """A job as an attacker writes it, on a queue and, for clicks, with a claim that a worker would be granted."""
    times = {"created_at": "2026-01-01T00:00:00.000000Z", "status": "queued", "origin": queue}
    farm.connection.hset(f"rq:job:{job_id}", mapping={**times, "data": data, **fields})
    with farm.connection.pipeline() as pipeline:
        claims.create(pipeline, job_id, 60)
        pipeline.rpush(f"rq:queue:{queue}", job_id)
        pipeline.execute()


def function_call(name: str, *arguments: str) -> bytes:
    return json.dumps([name, None, arguments, {}]).encode()


def push_every_attack(farm: WorkerFarm, queue: str, canary: Path) -> None:
    bomb = pickle.dumps(TouchesCanary(canary))
    known = function_call(CLICK_FUNCTION)
    push(farm, queue, "pickle", bomb)
    push(farm, queue, "compressed-pickle", zlib.compress(bomb))
    push(farm, queue, "pickled-meta", known, meta=bomb)
    push(farm, queue, "pickled-result", known, result=bomb)
    push(farm, queue, "not-a-date", known, created_at=b"\xff")
    push(farm, queue, "not-a-status", known, status="dancing")
    push(farm, queue, "not-a-number", known, timeout="soon")
    push(farm, queue, "any-function", function_call("os.mkdir", str(canary)))
    push(farm, queue, "a-method", json.dumps(["format", "{}", [], {}]).encode())
    push(farm, queue, "a-list", json.dumps([["os.mkdir"], None, [], {}]).encode())
    push(farm, queue, "half", b"[")
    for moment in ("success", "failure", "stopped"):
        push(farm, queue, f"{moment}-callback", known, **{f"{moment}_callback_name": "os.mkdir"})


@pytest.mark.parametrize("options", [[], ["--queues", "clicks"]], ids=["two queues", "one queue"])
def test_pickles_and_foreign_functions_in_redis_are_refused_and_the_worker_lives(farm, options):
    worker = farm.start_worker(*options)
    canary = farm.folder / "canary"
    queues = ("clicks",) if options else ("clicks", "prelabel")
    for queue in queues:
        push_every_attack(farm, queue, canary)
    wait_for(lambda: not any(farm.connection.llen(f"rq:queue:{queue}") for queue in queues), "all are read")
    assert farm.ask_and_wait(click("mask", "a")).reason == "answered"
    assert not canary.exists()
    assert worker.process.poll() is None


def test_a_worker_that_starts_on_a_queue_of_pickles_is_not_harmed_by_tidying_up(farm):
    canary = farm.folder / "canary"
    push_every_attack(farm, "clicks", canary)
    ids = farm.connection.lrange("rq:queue:clicks", 0, -1)
    farm.connection.rename("rq:queue:clicks", "rq:queue:clicks:intermediate")
    farm.connection.zadd("rq:wip:clicks", {f"{job_id.decode()}:1": 1 for job_id in ids})
    farm.start_worker("--queues", "clicks")
    assert farm.ask_and_wait(click("mask", "a")).reason == "answered"
    assert not canary.exists()


def test_a_job_that_cannot_be_read_is_passed_over_like_one_that_is_gone(farm):
    push(farm, "clicks", "not-a-status", function_call(CLICK_FUNCTION), status="dancing")
    assert open_queue("clicks", farm.connection).fetch_job("not-a-status") is None


def test_a_job_drops_callbacks_and_webhooks(connection):
    queue = open_queue("clicks", connection)
    job = Job.create(CLICK_FUNCTION, ({},), connection=connection, serializer=JSONSerializer, origin="clicks")
    job.save()
    hooks = json.dumps([{"url": "http://169.254.169.254/", "job_status": "finished"}])
    connection.hset(job.key, mapping={"webhooks": hooks, "success_callback_name": "os.getcwd"})
    restored = queue.fetch_job(job.id)
    assert restored is not None
    assert (restored.webhooks, restored.success_callback, restored.failure_callback) == ([], None, None)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("clicks", ("clicks",)),
        ("prelabel, clicks", ("clicks", "prelabel")),
        ("training", ("training",)),
    ],
)
def test_clicks_come_first_however_the_queues_are_named(text, names):
    assert read_queue_names(text) == names


@pytest.mark.parametrize("text", ["", "klicks", "clicks,default", "clicks,training"])
def test_queues_that_do_not_exist_or_do_not_mix_are_a_clear_error(text):
    with pytest.raises(ConfigError):
        read_queue_names(text)
