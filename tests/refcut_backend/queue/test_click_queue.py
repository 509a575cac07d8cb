"""Clicks on their way to real worker processes and back, over a real Redis."""

from __future__ import annotations

import json
import signal
import time
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refcut_backend.errors import BusyError, QueueUnavailableError
from refcut_backend.queue.click_queue import ClickQueue, older_clicks
from refcut_backend.queue.heartbeats import Heartbeat
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.queue.queue_state import read_queue_state
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_jobs import CLICK_FUNCTION, CLICK_QUEUE, open_queue
from tests.support.worker_farm import GENEROUS_S, click, wait_for


def test_a_click_travels_to_a_worker_and_back(farm):
    farm.start_worker()
    answer = farm.queue().ask(click("mask", "a"))
    assert answer == ClickAnswer(width=3, height=2, rle=[1, 2, 3], score=0.5, reference_versions=("v",))


def test_an_unexpected_failure_is_an_error_for_the_caller_without_a_traceback(farm):
    farm.start_worker()
    answer = farm.queue().ask(click("crash"))
    assert answer.error_code == "error"
    assert "secret-inside" not in str(answer)
    assert not any(b"secret-inside" in farm.connection.dump(key) for key in farm.connection.keys("*"))


def test_a_click_beyond_the_limit_is_refused_as_busy_and_counted(farm):
    queue = farm.queue(limit=3)
    taken = [farm.ask_waiting(click("mask", f"{number}"), queue) for number in range(3)]
    refused = [farm.ask_and_wait(click("mask", f"more{number}"), queue) for number in range(5)]
    assert {reply.reason for reply in refused} == {"busy"}
    assert read_queue_state(farm.connection).outcomes["busy"] == 5
    assert read_queue_state(farm.connection).waiting == 3
    farm.start_worker()
    assert {reply.result().reason for reply in taken} == {"answered"}


@pytest.mark.slow
def test_a_busy_refusal_says_how_long_it_would_have_taken(farm):
    farm.start_worker()
    queue = farm.queue(limit=1)
    farm.ask_and_wait(click("sleep 0.2"), queue)
    in_work = farm.ask_in_work(click("sleep 2", "a"), queue)
    waiting = farm.ask_waiting(click("mask", "b"), queue)
    with pytest.raises(
        BusyError,
        match=r"1 click waits already, about \d+\.\d s of work; start more workers; REFCUT_CLICK_QUEUE",
    ):
        queue.ask(click("mask", "c"))
    assert [reply.result().reason for reply in (in_work, waiting)] == ["answered", "answered"]


def test_a_full_queue_still_takes_the_next_click_of_an_object_that_waits(farm):
    queue = farm.queue(limit=1)
    older = farm.ask_waiting(click("mask", "a"), queue)
    newer = farm.ask_waiting(click("mask", "a", "b"), queue)
    assert older.result().reason == "superseded"
    farm.start_worker()
    assert newer.result().reason == "answered"


def test_a_click_without_an_answer_times_out_and_is_not_computed_later(farm):
    reply = farm.ask_and_wait(click("mask", "a", name="/late"), farm.queue(timeout_s=1))
    assert reply.reason == "timeout"
    assert reply.seconds >= 1
    assert read_queue_state(farm.connection).waiting == 0
    farm.start_worker()
    farm.ask_and_wait(click("mask", "b", name="/next"))
    assert farm.computed() == ["/next"]


def test_a_timeout_says_whether_a_worker_runs(farm):
    queue = farm.queue(timeout_s=1)
    assert "check that a worker runs" in queue._too_late("click").hint
    Heartbeat(farm.connection, "learner", ["training"]).announce_ready()
    assert "check that a worker runs" in queue._too_late("click").hint
    Heartbeat(farm.connection, "new", [CLICK_QUEUE])._beat_now()
    starting = queue._too_late("click")
    assert (starting.code, starting.hint) == ("starting", "click again in a moment")
    assert "the worker is starting" in starting.message
    Heartbeat(farm.connection, "slow", [CLICK_QUEUE]).announce_ready()
    slow = queue._too_late("click")
    assert slow.code == "timeout"
    assert "a worker runs" in slow.message
    assert "check that" not in slow.hint


@pytest.mark.slow
def test_waiting_and_computing_share_one_deadline_and_what_cannot_end_is_not_begun(farm):
    """Nothing is measured yet, so the second click is let in; when its turn comes, too little time is left."""
    farm.start_worker()
    queue = farm.queue(timeout_s=5)
    before = farm.ask_in_work(click("sleep 3", "a", name="/before"), queue)
    late = farm.ask(click("sleep 3", "b", name="/late"), queue).result()
    assert before.result().reason == "answered"
    assert late.reason == "busy"
    assert farm.computed() == ["/before"]


@pytest.mark.slow
def test_a_click_that_finds_a_worker_idle_is_begun_even_if_clicks_took_longer_lately(farm):
    """The worker sleeps for a moment, as on an overloaded machine, so that less time is left than the last click took."""
    worker = farm.start_worker()
    queue = farm.queue(timeout_s=4)
    farm.ask_and_wait(click("sleep 3.8", "a"), queue)
    worker.process.send_signal(signal.SIGSTOP)
    reply = farm.ask_waiting(click("mask", "b"), queue)
    time.sleep(0.7)
    worker.process.send_signal(signal.SIGCONT)
    assert reply.result().reason == "answered"


def test_a_click_whose_caller_has_gone_is_not_computed(farm):
    """A web process that was killed withdraws nothing: its click's claim expires instead."""
    queue = farm.queue(timeout_s=1)
    job = click("mask", "a", name="/abandoned")
    queue._send(job, "abandoned", 1)
    wait_for(lambda: not farm.connection.keys("refcut:ticket:*"), "the deadline has passed")
    assert read_queue_state(farm.connection).waiting == 1
    farm.start_worker()
    farm.ask_and_wait(click("mask", "b", name="/next"))
    assert farm.computed() == ["/next"]


def test_a_job_is_stored_as_json_and_never_as_a_pickle(farm):
    job = click("mask", "a", "b")
    farm.ask_waiting(job, farm.queue(timeout_s=1))
    (key,) = farm.connection.keys("rq:job:*")
    function, _, (stored,), _ = json.loads(zlib.decompress(farm.connection.hget(key, "data")))
    assert function == CLICK_FUNCTION
    assert ClickJob.from_json(stored) == job


def test_a_click_that_two_workers_are_handed_is_computed_once(farm):
    """As when a worker is so slow to begin that its caller has put the click back meanwhile."""
    for _ in range(2):
        farm.start_worker()
    queue = farm.queue()
    reply = farm.ask_in_work(click("sleep 1", "a", name="/once"), queue)
    (key,) = farm.connection.keys("rq:job:*")
    open_queue(CLICK_QUEUE, farm.connection).push_job_id(key.decode().removeprefix("rq:job:"))
    wait_for(lambda: not farm.connection.llen("rq:queue:clicks"), "the other worker has it")
    assert reply.result().reason == "answered"
    assert farm.computed() == ["/once"]


def test_the_job_of_a_caller_that_gave_up_expires_by_itself(farm):
    farm.ask_and_wait(click("mask", "a"), farm.queue(timeout_s=1))
    (key,) = farm.connection.keys("rq:job:*")
    assert 0 < farm.connection.ttl(key) <= 60


def test_redis_that_is_gone_is_unavailable_and_not_a_hang():
    queue = ClickQueue(connect_redis("unix:///nowhere/redis.sock"), timeout_s=5, limit=5, longest_wait_s=5)
    with pytest.raises(QueueUnavailableError):
        queue.ask(click("mask", "a"))


def result(value: object, kind: object = 1) -> dict[str | bytes, bytes]:
    """A job's result as rq stores it."""
    return {"type": str(kind).encode(), "return_value": b64encode(json.dumps(value).encode())}


FORGED: list[dict[str | bytes, bytes]] = [
    result([]),
    result({"rle": 5}),
    result({"width": "wide"}),
    result({"width": 3, "height": 2, "rle": "no base64"}),
    {"type": b"1", "return_value": b"no base64 and no JSON"},
    {"type": b"success", "return_value": b""},
    {"type": b"99"},
    {b"\xff": b"\xff"},
    {"type": b"1", "return_value": b64encode(b"\x80\x04."), "exc_string": b"x"},
]


@pytest.mark.parametrize("fields", FORGED, ids=repr)
def test_an_answer_that_somebody_else_wrote_is_a_reason_and_no_exception(farm, fields):
    reply = farm.ask_waiting(click("mask", "a"), farm.queue(timeout_s=GENEROUS_S))
    (key,) = farm.connection.keys("rq:job:*")
    farm.connection.xadd(key.replace(b"rq:job:", b"rq:results:"), fields)
    assert reply.result().reason == "bad_message"


def test_an_answer_of_a_later_version_is_read_and_its_new_fields_are_ignored(farm):
    reply = farm.ask_waiting(click("mask", "a"), farm.queue(timeout_s=GENEROUS_S))
    (key,) = farm.connection.keys("rq:job:*")
    answer = ClickAnswer(width=3, height=2, rle=[1]).to_json() | {
        "of_tomorrow": 1,
        "error_code": "of_tomorrow",
    }
    farm.connection.xadd(key.replace(b"rq:job:", b"rq:results:"), result(answer))
    assert reply.result().reason == "error"


def test_queue_and_counts_that_somebody_else_wrote_do_not_hide_the_state(farm):
    farm.connection.rpush("rq:queue:clicks", b"\xff\xfe")
    farm.connection.hset(
        "refcut:click-outcomes", mapping={"answered": 3, "busy": b"many", b"\xff": 5, "odd": 7}
    )
    state = read_queue_state(farm.connection)
    assert (state.waiting, state.outcomes) == (1, {"answered": 3})


@pytest.mark.parametrize(
    ("newest", "unanswered", "expected"),
    [
        (["a", "b"], {"1": ["a"]}, ["1"]),
        (["a"], {"1": ["a"]}, ["1"]),
        (["a", "c"], {"1": ["a", "b"]}, ["1"]),
        (["a", "b", "c"], {"1": ["a"], "2": ["a", "b"]}, ["1", "2"]),
        (["a"], {"1": ["b"]}, []),
        (["a"], {}, []),
        ([], {"1": []}, []),
        ([], {"1": ["a"]}, []),
    ],
    ids=["one more dot", "dragged", "undone and again", "two older", "another", "first", "no ids", "no id"],
)
def test_requests_that_share_a_dot_ask_for_one_object(newest, unanswered, expected):
    assert older_clicks(newest, unanswered) == expected


names = st.sets(st.text(max_size=2), max_size=5)


@given(names, names)
def test_two_annotators_never_supersede_each_other(mine, theirs):
    assert older_clicks({f"m{i}" for i in mine}, {"other": {f"t{i}" for i in theirs}}) == []


@given(names, names)
def test_it_does_not_matter_which_of_two_requests_is_looked_at_first(left, right):
    assert bool(older_clicks(left, {"x": right})) == bool(older_clicks(right, {"x": left}))
