"""What workers say of themselves."""

from __future__ import annotations

import json

from refcut_backend.queue.heartbeats import Heartbeat, living_workers, ready_worker
from refcut_backend.queue.redis import connect_redis


def test_a_ready_worker_says_what_its_model_computes_on(redis_url, connection):
    with Heartbeat(connect_redis(redis_url), "w", ["clicks"]) as heartbeat:
        assert ready_worker(connection, "w") is None
        heartbeat.announce_ready("cuda:0")
        ready = ready_worker(connection, "w")
    assert ready is not None
    assert ready.device == "cuda:0"
    assert ready_worker(connection, "w") is None


def test_a_worker_of_a_later_version_may_say_more_and_one_of_an_earlier_less(connection):
    silent = Heartbeat(connection, "w", ["clicks"])
    for more in ({"mood": "good", "device": "cpu"}, {}):
        with connection.pipeline() as pipeline:
            silent.beat(pipeline)
            state = {"name": "w", "queues": ["clicks"], "ready": True} | more
            pipeline.set("refcut:worker:w", json.dumps(state))
            pipeline.execute()
        (worker,) = living_workers(connection)
        assert (worker.name, worker.ready, worker.device) == ("w", True, more.get("device", ""))
