"""What workers say of themselves."""

from __future__ import annotations

import json

import pytest

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


def expected_after(connection, *clicks_s: float, is_first: bool = False) -> float | None:
    heartbeat = Heartbeat(connection, "w", ["clicks"])
    for seconds in clicks_s:
        heartbeat.record_click(seconds, is_first=is_first)
    return heartbeat.expected_s(is_first)


@pytest.mark.parametrize(
    "clicks_s", [(60.0, 0.5), (0.5, 60.0), (0.5, 0.5, 60.0, 0.5), (60.0, 0.5, 60.0, 0.5, 0.5)]
)
def test_one_slow_click_among_others_does_not_change_what_is_expected(connection, clicks_s):
    assert expected_after(connection, *clicks_s) == 0.5


def test_clicks_that_stay_slow_are_expected_to_be_slow_after_three(connection):
    assert expected_after(connection, *[0.5] * 20, 2.0, 2.0) == 0.5
    assert expected_after(connection, *[0.5] * 20, 2.0, 2.0, 2.0) == 2.0


def test_the_time_per_click_weighs_first_and_later_clicks_as_they_came(connection):
    heartbeat = Heartbeat(connection, "w", ["clicks"])
    for seconds, is_first in [(2.0, True), (0.5, False), (0.5, False), (60.0, False), (0.5, False)]:
        heartbeat.record_click(seconds, is_first=is_first)
    with connection.pipeline() as pipeline:
        heartbeat.announce_ready()
        heartbeat.beat(pipeline)
        pipeline.execute()
    worker = ready_worker(connection, "w")
    assert worker is not None
    assert (worker.first_click_s, worker.later_click_s) == (2.0, 0.5)
    assert worker.click_s == pytest.approx((2.0 + 4 * 0.5) / 5)
