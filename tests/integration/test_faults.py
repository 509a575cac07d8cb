"""Workers that hang, die or run out of memory, as real processes around a fake model."""

from __future__ import annotations

import os
import signal
import time

import pytest

from refcut_backend.errors import START_AGAIN
from refcut_backend.queue.heartbeats import SILENT_S, is_alive, living_workers, ready_worker
from refcut_backend.queue.queue_state import read_queue_state
from tests.support.worker_farm import GENEROUS_S, WorkerFarm, click, wait_for

KILLS = 12
MARGIN_S = 5
"""A busy machine must not fail a test: without the promise it would be minutes."""


def test_a_model_that_hangs_is_cut_off_at_the_deadline_and_the_worker_goes_on(farm):
    worker = farm.start_worker()
    reply = farm.ask_and_wait(click("hang", "a"), farm.queue(timeout_s=2))
    assert reply.reason == "timeout"
    assert 2 <= reply.seconds < 2 + MARGIN_S
    assert farm.ask_and_wait(click("mask", "b")).reason == "answered"
    assert worker.process.poll() is None


@pytest.mark.parametrize("order", ["hang in C", "hang with the lock"])
def test_a_worker_that_hangs_in_c_ends_itself_soon_after_the_deadline(farm, order):
    worker = farm.start_worker()
    reply = farm.ask_and_wait(click(order, "a"), farm.queue(timeout_s=2))
    assert reply.reason == "timeout"
    assert worker.process.wait(GENEROUS_S) != 0
    farm.start_worker()
    assert farm.ask_and_wait(click("mask", "b")).reason == "answered"


def test_the_caller_of_a_killed_worker_hears_of_it_before_the_deadline_and_the_click_is_not_rerun(farm):
    for _ in range(2):
        farm.start_worker()
    in_work = farm.ask_in_work(click("sleep 20", "a", name="/lost"))
    holder = next(w for w in farm.workers if w.name == held_by(farm))
    killed_at = time.monotonic()
    holder.kill()
    reply = in_work.result()
    assert reply.reason == "worker_lost"
    assert reply.at - killed_at < SILENT_S + MARGIN_S
    assert farm.ask_and_wait(click("mask", "b", name="/next")).reason == "answered"
    assert farm.computed() == ["/lost", "/next"]


def held_by(farm: WorkerFarm) -> str:
    (key,) = farm.connection.keys("refcut:ticket:*")
    return farm.connection.get(key).decode().removeprefix("held by ")


def test_a_worker_that_is_frozen_counts_as_lost(farm):
    worker = farm.start_worker()
    in_work = farm.ask_in_work(click("sleep 1", "a"))
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        assert in_work.result().reason == "worker_lost"
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)


def test_a_click_sent_just_after_an_idle_worker_was_killed_is_answered_by_its_successor(farm):
    """Redis hands a job to the connection of a process that was just killed while the kernel takes it apart."""
    worker = farm.start_worker("--ballast-mb", "300")
    for number in range(KILLS):
        queue = farm.queue()
        worker.kill()
        reply = farm.ask_waiting(click("mask", f"{number}"), queue)
        worker = farm.start_worker("--ballast-mb", "300", ready=False)
        assert reply.result().reason == "answered"


def test_a_click_that_redis_handed_to_a_worker_which_never_took_it_goes_to_another(farm):
    frozen = farm.start_worker()
    os.kill(frozen.process.pid, signal.SIGSTOP)
    reply = farm.ask(click("mask", "a", name="/stranded"))
    wait_for(lambda: farm.connection.keys("rq:job:*"), "Redis has the click")
    farm.start_worker()
    assert reply.result().reason == "answered"
    os.kill(frozen.process.pid, signal.SIGCONT)
    assert farm.ask_and_wait(click("mask", "b", name="/next")).reason == "answered"
    assert farm.computed() == ["/stranded", "/next"]


def test_sigterm_lets_the_click_in_hand_be_finished(farm):
    worker = farm.start_worker()
    in_work = farm.ask_in_work(click("sleep 1", "a"))
    assert worker.stop() == 0
    assert in_work.result().reason == "answered"
    assert not is_alive(farm.connection, worker.name)


def test_sigterm_stops_an_idle_worker_and_one_that_still_loads(farm):
    idle = farm.start_worker()
    loading = farm.start_worker("--load-s", "60", ready=False)
    wait_for(lambda: is_alive(farm.connection, loading.name), "it loads")
    assert ready_worker(farm.connection, loading.name) is None
    assert [idle.stop(), loading.stop()] == [0, 0]


def test_a_worker_is_visible_while_it_loads_and_ready_afterwards(farm):
    worker = farm.start_worker("--load-s", "2", ready=False)
    wait_for(lambda: living_workers(farm.connection), "it is seen")
    (loading,) = living_workers(farm.connection)
    assert (loading.name, loading.ready, loading.queues) == (worker.name, False, ("clicks", "prelabel"))
    assert read_queue_state(farm.connection).ready_workers == 0
    wait_for(lambda: read_queue_state(farm.connection).ready_workers == 1, "it is ready")


def test_several_workers_share_the_clicks(farm):
    farm.start_worker()
    farm.start_worker()
    replies = [farm.ask(click("sleep 2", f"{n}", name=f"/{n}")) for n in range(2)]
    wait_for(lambda: len(farm.computed()) == 2, "both are in work")
    assert not any(reply.done() for reply in replies)
    assert {reply.result().reason for reply in replies} == {"answered"}


def test_memory_that_runs_out_is_an_answer_and_the_third_time_in_a_row_a_new_process(farm):
    worker = farm.start_worker()
    assert farm.ask_and_wait(click("oom", "a")).reason == "oom"
    assert farm.ask_and_wait(click("oom", "b")).reason == "oom"
    assert farm.ask_and_wait(click("mask", "c")).reason == "answered"
    assert [farm.ask_and_wait(click("oom", f"{n}")).reason for n in range(3)] == ["oom"] * 3
    assert worker.process.wait(GENEROUS_S) == START_AGAIN
