"""Several clicks on one object: only the newest counts, whichever web process took it."""

from __future__ import annotations

import time
from statistics import median

import pytest

from refcut_backend.queue import reply_queue
from refcut_backend.queue.queue_state import read_queue_state
from tests.support.worker_farm import WorkerFarm, click, wait_for

WITHIN_S = 0.05
LOOKS_EVERY_S = 2.5
"""Shorter than the time after which a silent Redis counts as away."""
ROUND_TRIPS = 10
"""About as many as the older and the newer caller make between them."""


def waiting(farm: WorkerFarm) -> int:
    return farm.connection.llen("rq:queue:clicks")


def test_superseded_click_is_not_computed(farm):
    for count in range(1, 6):
        farm.ask_waiting(click("mask", *"abcde"[:count], name=f"/{count}"))
    farm.start_worker()
    wait_for(lambda: farm.computed() and waiting(farm) == 0, "the newest is computed")
    assert farm.computed() == ["/5"]


def test_of_five_fast_clicks_on_one_object_at_most_two_are_computed(farm):
    farm.start_worker()
    first = farm.ask_in_work(click("sleep 1", "a", name="/1"))
    later = [
        farm.ask_waiting(click("sleep 0.1", *"abcde"[:count], name=f"/{count}")) for count in range(2, 6)
    ]
    reasons = [reply.result().reason for reply in [first, *later]]
    assert reasons == ["superseded"] * 4 + ["answered"]
    assert farm.computed() == ["/1", "/5"]


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting caller looks for itself only after `LOOKS_EVERY_S`: what it hears sooner, it was told."""
    monkeypatch.setattr(reply_queue, "CHECK_EVERY_S", LOOKS_EVERY_S)


@pytest.mark.usefixtures("slow_looks")
@pytest.mark.parametrize("older_is", ["in work", "waiting"])
def test_the_caller_of_a_superseded_click_is_answered_within_50_ms(farm, older_is):
    """It is compared with as many round trips of this process at the same moment: a busy machine delays both."""
    if older_is == "in work":
        farm.start_worker()
    queue = farm.queue()
    delays, control = [], []
    for number in range(5):
        job = click("sleep 0.5", f"a{number}", name=f"/{number}")
        older = farm.ask_in_work(job) if older_is == "in work" else farm.ask_waiting(job)
        superseded_at = time.monotonic()
        newer = farm.ask(click("mask", f"a{number}", "b", name="/newer"), queue)
        reply = older.result()
        assert reply.reason == "superseded"
        delays.append(reply.at - superseded_at)
        started = time.monotonic()
        farm.ask_again_and_again(ROUND_TRIPS)
        control.append(time.monotonic() - started)
        if older_is == "in work":
            assert newer.result().reason == "answered"
    if older_is == "waiting":
        farm.start_worker()
        assert newer.result().reason == "answered"  # else the end of the test waits for its deadline
    assert median(delays) < WITHIN_S + 10 * median(control), (delays, control)
    assert median(delays) < LOOKS_EVERY_S / 2


def test_a_dragged_dot_supersedes_its_former_position(farm):
    old = farm.ask_waiting(click("mask", "a", name="/before"))
    new = farm.ask(click("mask", "a", name="/after"))
    assert old.result().reason == "superseded"
    farm.start_worker()
    assert new.result().reason == "answered"
    assert farm.computed() == ["/after"]


def test_two_annotators_on_one_task_are_both_answered(farm):
    farm.start_worker()
    mine = [farm.ask(click("sleep 0.1", f"m{n}", name=f"/m{n}")) for n in range(3)]
    theirs = [farm.ask(click("sleep 0.1", f"t{n}", name=f"/t{n}")) for n in range(3)]
    assert {reply.result().reason for reply in mine + theirs} == {"answered"}
    assert sorted(farm.computed()) == ["/m0", "/m1", "/m2", "/t0", "/t1", "/t2"]


def test_the_same_ids_on_another_task_are_another_object(farm):
    farm.start_worker()
    replies = [farm.ask(click("sleep 0.1", "a", task=task)) for task in (1, 2)]
    assert [reply.result().reason for reply in replies] == ["answered", "answered"]


def test_the_newest_click_wins_across_web_processes(farm):
    ours, theirs = farm.queue(), farm.queue()
    older = farm.ask_waiting(click("mask", "a", name="/older"), ours)
    newer = farm.ask(click("mask", "a", "b", name="/newer"), theirs)
    assert older.result().reason == "superseded"
    farm.start_worker()
    assert newer.result().reason == "answered"
    assert farm.computed() == ["/newer"]


def test_nothing_of_answered_and_superseded_clicks_stays_in_redis(farm):
    worker = farm.start_worker()
    slow = farm.ask_in_work(click("sleep 0.3", "a"))
    newer = farm.ask(click("mask", "a", "b"))
    assert (slow.result().reason, newer.result().reason) == ("superseded", "answered")
    worker.stop()
    forever = [key for key in farm.connection.keys("*") if farm.connection.ttl(key) == -1]
    assert sorted(forever) == [b"refcut:click-outcomes", b"rq:queues"]
    assert farm.connection.keys("refcut:ticket:*") == farm.connection.keys("refcut:unanswered:*") == []


def test_every_outcome_is_counted(farm):
    farm.start_worker()
    slow = farm.ask_in_work(click("sleep 0.3", "a"))
    assert farm.ask_and_wait(click("mask", "a", "b")).reason == "answered"
    assert slow.result().reason == "superseded"
    assert read_queue_state(farm.connection).outcomes == {"answered": 1, "superseded": 1}
