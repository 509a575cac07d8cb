"""Redis goes away at any moment and comes back: nothing is restarted for it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from refcut_backend.queue.heartbeats import living_workers
from refcut_backend.queue.redis import ANSWERS_WITHIN_S, EmbeddedRedis, check_redis
from tests.support.worker_farm import WorkerFarm, click, wait_for

WITHIN_S = 1.0


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        yield server


@pytest.fixture
def own_farm(server, tmp_path) -> Iterator[WorkerFarm]:
    """A farm whose Redis is killed in the test."""
    with WorkerFarm(server.url, tmp_path) as farm:
        yield farm


def kill(server: EmbeddedRedis) -> None:
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: server._process.poll() is not None, "Redis is dead")  # type: ignore[union-attr]


def bring_back(server: EmbeddedRedis) -> None:
    assert server.start_again_if_dead()
    check_redis(server.url)


def test_redis_that_goes_away_during_a_click_is_unavailable_within_a_second_and_comes_back(server, own_farm):
    worker, queue = own_farm.start_worker(), own_farm.queue()
    assert own_farm.ask_and_wait(click("mask"), queue).reason == "answered"
    in_work = own_farm.ask_in_work(click("sleep 2", "a"), queue)
    killed_at = time.monotonic()
    kill(server)
    reply = in_work.result()
    assert reply.reason == "unavailable"
    assert reply.at - killed_at < WITHIN_S
    while_away = own_farm.ask_and_wait(click("mask", "b"), queue)
    assert while_away.reason == "unavailable"
    assert while_away.seconds < WITHIN_S
    bring_back(server)
    assert own_farm.ask_and_wait(click("mask", "c"), queue).reason == "answered"
    assert worker.process.poll() is None


def test_a_redis_that_hangs_is_unavailable_long_before_the_deadline(server, own_farm):
    queue = own_farm.queue()
    assert own_farm.connection.ping()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        reply = own_farm.ask_and_wait(click("mask"), queue)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert reply.reason == "unavailable"
    assert reply.seconds < 2 * ANSWERS_WITHIN_S


def test_a_worker_that_is_started_before_redis_waits_for_it(server, own_farm):
    kill(server)
    worker = own_farm.start_worker(ready=False)
    time.sleep(1)
    bring_back(server)
    assert own_farm.ask_and_wait(click("mask")).reason == "answered"
    assert worker.process.poll() is None


def test_a_worker_stops_cleanly_while_redis_is_away(server, own_farm):
    worker = own_farm.start_worker()
    kill(server)
    assert worker.stop() == 0


def test_flushall_loses_no_click_and_no_worker(server, own_farm):
    worker = own_farm.start_worker()
    in_work = own_farm.ask_in_work(click("sleep 1", "a", name="/in-work"))
    waiting = own_farm.ask_waiting(click("mask", "b", name="/waiting"))
    own_farm.connection.flushall()
    assert [reply.result().reason for reply in (in_work, waiting)] == ["answered", "answered"]
    assert own_farm.ask_and_wait(click("mask", "c")).reason == "answered"
    wait_for(lambda: [w.name for w in living_workers(own_farm.connection)] == [worker.name], "it is seen")
