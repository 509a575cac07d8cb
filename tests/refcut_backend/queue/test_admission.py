"""Which clicks may wait: all that can still be answered in time, and no annotator's more than their share."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis import Redis

from refcut_backend.errors import BusyError
from refcut_backend.queue import claims
from refcut_backend.queue.admission import ALWAYS_WAIT
from refcut_backend.queue.click_queue import ClickQueue
from refcut_backend.queue.heartbeats import NAMES_KEY, WORKER_PREFIX
from refcut_backend.queue.messages import ClickJob
from refcut_backend.queue.queue_state import read_queue_state
from refcut_backend.queue.redis import connect_redis
from tests.support.worker_farm import GENEROUS_S, click, wait_for

QUEUE = "rq:queue:clicks"
TIMEOUT_S = 8
WAIT_S = 0.7
AT_ONCE_S = 0.05


class Door:
    """The entrance of the queue: clicks are sent, and nobody computes them."""

    def __init__(
        self,
        redis_url: str,
        connection: Redis,
        limit: int = 200,
        timeout_s: int = TIMEOUT_S,
        longest_wait_s: float = TIMEOUT_S,
    ) -> None:
        self.connection = connection
        self.queue = ClickQueue(connect_redis(redis_url), timeout_s, limit, longest_wait_s)
        self.timeout_s = timeout_s

    def add_worker(self, name: str, **state: Any) -> None:
        """A ready worker that takes clicks, as far as Redis tells."""
        known = {"name": name, "queues": ["clicks"], "ready": True} | state
        self.connection.sadd(NAMES_KEY, name)
        self.connection.set(WORKER_PREFIX + name, json.dumps(known), ex=GENEROUS_S)

    def begin(self, click_id: str, worker: str, expected_s: float) -> claims.Claim:
        """The worker takes a click off the queue and claims it."""
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(QUEUE, 1, click_id)
            claims.claim(pipeline, click_id, worker, expected_s=expected_s)
            return claims.read_claim(pipeline.execute()[-1])

    def send(self, job: ClickJob) -> str:
        """Sends a click. Returns its id; raises BusyError."""
        click_id = uuid4().hex
        self.queue._send(job, click_id, self.timeout_s)
        return click_id

    def admits(self, *ids: str, task: int) -> bool:
        try:
            self.send(click("mask", *ids, task=task))
        except BusyError:
            return False
        return True

    def waiting(self) -> list[str]:
        return [one.decode() for one in self.connection.lrange(QUEUE, 0, -1)]

    def superseded(self, click_id: str) -> bool:
        state = claims.read(self.connection, click_id)
        return state is not None and state.superseded


@pytest.fixture
def door(redis_url: str, connection: Redis) -> Door:
    return Door(redis_url, connection)


def fill(door: Door, first_task: int = 1) -> int:
    """How many clicks, each of another task, are let in until one is refused."""
    count = 0
    while door.admits(f"of-{first_task + count}", task=first_task + count):
        count += 1
    return count


@pytest.fixture
def quick_door(redis_url: str, connection: Redis) -> Door:
    """One at which clicks wait for less than a second."""
    return Door(redis_url, connection, longest_wait_s=WAIT_S)


@pytest.mark.parametrize(("click_s", "workers", "expected"), [(0.8, 1, 9), (0.8, 2, 18), (2.0, 1, 3)])
def test_as_many_clicks_wait_as_can_be_answered_in_time(door, click_s, workers, expected):
    """A click may begin when 1.5 times its duration are left."""
    for number in range(workers):
        door.add_worker(f"w{number}", click_s=click_s)
    assert TIMEOUT_S - 1.5 * click_s == pytest.approx((expected / workers - 1) * click_s, abs=click_s), (
        "the rule itself, by hand"
    )
    assert fill(door) == expected


@pytest.mark.parametrize(
    ("click_s", "workers", "expected"), [(0.06, 1, 12), (0.2, 1, 4), (0.2, 2, 8), (0.3, 1, 3)]
)
def test_no_click_waits_longer_than_the_setting_says(quick_door, click_s, workers, expected):
    for number in range(workers):
        quick_door.add_worker(f"w{number}", click_s=click_s)
    longest_wait_s = (expected / workers - 1) * click_s
    assert longest_wait_s <= WAIT_S < longest_wait_s + click_s, "the rule itself, by hand"
    assert fill(quick_door) == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_a_slow_worker_has_two_clicks_waiting_even_if_their_wait_is_longer(quick_door, workers):
    """Else it would have nothing to do now and then."""
    for number in range(workers):
        quick_door.add_worker(f"w{number}", click_s=0.8)
        in_work = quick_door.send(click("mask", f"x{number}", task=90 + number))
        quick_door.begin(in_work, f"w{number}", expected_s=0.8)
    assert fill(quick_door) == ALWAYS_WAIT * workers == 2 * workers


def test_the_refusal_of_a_click_that_would_wait_too_long_names_the_setting(quick_door):
    quick_door.add_worker("w", click_s=0.2)
    fill(quick_door)
    with pytest.raises(BusyError, match=r"4 clicks wait already, about 1\.0 s of work; .*QUEUE_WAIT_S"):
        quick_door.send(click("mask", "z", task=900))


def test_first_clicks_count_for_what_they_take(door):
    door.add_worker("w", first_click_s=2.0, later_click_s=0.5, click_s=1.0)
    for task in (1, 2, 3):
        assert door.admits("a", task=task)
    assert not door.admits("a", task=4), "three first clicks take 6 s, and 3 of the 8 must be left"
    two = ClickJob(1, 5, "/a.jpg", "mask", click("mask").clicks * 2, (), ("a", "b"))
    door.send(two)


def test_a_click_in_work_counts_for_the_rest_of_its_time_and_longer_if_it_is_late(door):
    door.add_worker("w", click_s=1.0)
    in_work = door.send(click("mask", "x", task=99))
    assert door.begin(in_work, "w", expected_s=5.0).is_granted
    assert fill(door) == 2, "5 s, then 1 s, and 1.5 of the 8 s must be left"
    door.connection.delete(QUEUE, claims.WAITING_KEY)
    now_ms = 1000 * door.connection.time()[0]
    door.connection.set(claims.IN_WORK_PREFIX + "w", now_ms - 5500)
    assert fill(door, 200) <= 2, "it is 5.5 s late"


def test_an_idle_worker_takes_a_click_even_if_the_last_ones_took_longer_than_the_deadline(door):
    """Otherwise nothing would ever be measured again."""
    door.add_worker("w", click_s=60.0)
    assert door.admits("a", task=1)
    assert not door.admits("b", task=2)


def test_a_slow_click_in_work_refuses_others_only_if_they_could_not_be_answered_in_time(quick_door):
    quick_door.add_worker("w", click_s=0.2)
    in_work = quick_door.send(click("mask", "x", task=99))
    quick_door.begin(in_work, "w", expected_s=4.0)
    assert fill(quick_door) == 3, "as many as wait while the click in work is a typical one"


def test_a_click_in_work_counts_at_most_until_its_deadline(redis_url, connection):
    door = Door(redis_url, connection, timeout_s=4)
    door.add_worker("w", click_s=0.2)
    in_work = door.send(click("mask", "x", task=99))
    door.begin(in_work, "w", expected_s=60.0)
    with pytest.raises(BusyError, match=r"busy with slow clicks: .* about [34]\.\d s, and 4 s are the limit"):
        door.send(click("mask", "a", task=1))
    wait_for(lambda: door.admits("a", task=1), "it will be ended soon", limit_s=TIMEOUT_S)


def test_the_refusal_behind_a_slow_click_names_its_time_and_not_the_queue(door):
    door.add_worker("w", click_s=60.0)
    in_work = door.send(click("mask", "x", task=99))
    door.begin(in_work, "w", expected_s=60.0)
    with pytest.raises(BusyError) as refused:
        door.send(click("mask", "a", task=1))
    assert "wait already" not in str(refused.value)
    assert "QUEUE_LIMIT" not in str(refused.value)
    assert re.search(r"about 1[56]\.\d s, and 8 s are the limit", str(refused.value)), (
        "twice the deadline at most"
    )


def test_without_a_worker_the_limit_alone_decides(redis_url, connection):
    assert fill(Door(redis_url, connection, limit=7)) == 7


def test_the_limit_is_an_upper_bound(redis_url, connection):
    door = Door(redis_url, connection, limit=4)
    door.add_worker("w", click_s=0.01)
    assert fill(door) == 4


def test_a_newer_click_takes_the_place_of_the_older_one_even_in_a_full_queue(door):
    door.add_worker("w", click_s=2.0)
    older, between, last = (door.send(click("mask", name, task=task)) for task, name in enumerate("abc", 1))
    assert not door.admits("d", task=4)
    newer = door.send(click("mask", "a", "a2", task=1))
    assert door.waiting() == [newer, between, last]
    assert door.superseded(older)


def test_a_newer_click_whose_older_one_was_taken_this_moment_is_next(door):
    door.add_worker("w", click_s=2.0)
    taken = door.send(click("mask", "a", task=1))
    between = door.send(click("mask", "b", task=2))
    door.connection.lrem(QUEUE, 1, taken)
    newer = door.send(click("mask", "a", "a2", task=1))
    assert door.waiting() == [newer, between]
    assert not door.begin(taken, "w", 1.0).is_granted


def test_a_click_in_work_is_superseded_only_if_the_newer_one_is_next(door):
    door.add_worker("w", click_s=0.5)
    in_work = door.send(click("mask", "a", task=1))
    door.begin(in_work, "w", 0.5)
    other = door.send(click("mask", "b", task=2))
    newer = door.send(click("mask", "a", "a2", task=1))
    assert door.waiting() == [other, newer]
    assert not door.superseded(in_work), "its answer comes long before the newer one's"
    door.begin(other, "w", 0.5)
    newest = door.send(click("mask", "b", "b2", task=2))
    assert door.waiting() == [newer, newest]
    door.begin(newer, "w", 0.5)
    door.begin(newest, "w", 0.5)
    door.send(click("mask", "b", "b2", "b3", task=2))
    assert door.superseded(newest)


def test_a_refused_click_leaves_nothing_in_redis_and_supersedes_nothing(door):
    door.add_worker("w", click_s=2.0)
    in_work = door.send(click("mask", "x", task=1))
    door.begin(in_work, "w", 2.0)
    fill(door, 10)
    before = {key: door.connection.dump(key) for key in door.connection.keys("*")}
    assert not door.admits("x", "y", task=1)
    after = {key: door.connection.dump(key) for key in door.connection.keys("*")}
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {b"refcut:asking", b"refcut:click-outcomes"}
    assert not door.superseded(in_work)


def test_what_dead_callers_left_is_not_counted(redis_url, connection):
    door = Door(redis_url, connection, timeout_s=2, limit=200)
    door.add_worker("w", click_s=0.5)
    assert door.admits("a", task=1)
    assert door.admits("b", task=2)
    wait_for(lambda: not connection.keys("refcut:ticket:*"), "the deadline has passed")
    connection.delete(QUEUE)
    assert door.admits("c", task=3)
    assert connection.hlen(claims.WAITING_KEY) == 1


@pytest.mark.parametrize(("click_s", "longest_wait_s"), [(0.05, WAIT_S), (0.3, TIMEOUT_S), (0.8, TIMEOUT_S)])
def test_an_annotator_who_floods_leaves_room_for_all_the_others(
    redis_url, connection, click_s, longest_wait_s
):
    door = Door(redis_url, connection, longest_wait_s=longest_wait_s)
    door.add_worker("w", click_s=click_s)

    def flood() -> int:
        return sum(door.admits(uuid4().hex, task=1) for _ in range(100))

    alone = flood()
    assert alone >= 6, "alone, they may have most of the queue"
    others = range(2, 9)
    first_round = [door.admits("a", task=task) for task in others]
    assert sum(first_round) >= 2
    flooder = set(door.waiting()[:alone])
    for _ in range(
        2 * alone
    ):  # the worker goes on, the flood too, and each of the others has one click at a time
        door.begin(door.waiting()[0], "w", 0)
        door.admits(uuid4().hex, task=1)
        for task in others:
            door.admits("a", task=task)
    waiting = connection_tasks(door)
    assert {task for task in waiting if task != "1:1"} == {f"1:{task}" for task in others}
    assert waiting.count("1:1") <= len(waiting) / 2, flooder


@pytest.mark.parametrize("click_s", [0.3, 0.8])
def test_in_a_short_queue_too_a_flood_leaves_every_other_annotator_a_turn(quick_door, click_s):
    quick_door.add_worker("w", click_s=click_s)
    others = [f"1:{task}" for task in range(2, 9)]
    computed: list[str] = []
    for _ in range(4 * len(others)):
        for _ in range(10):
            quick_door.admits(uuid4().hex, task=1)
        for task in range(2, 9):
            if f"1:{task}" not in computed:
                quick_door.admits(uuid4().hex, task=task)
        first = quick_door.waiting()[0]
        (task_of_first,) = (
            entry.decode().split()[0]
            for name, entry in quick_door.connection.hgetall(claims.WAITING_KEY).items()
            if name.decode() == first
        )
        computed.append(task_of_first)
        quick_door.begin(first, "w", 0)
    assert set(others) <= set(computed)


def connection_tasks(door: Door) -> list[str]:
    entries = door.connection.hvals(claims.WAITING_KEY)
    return [entry.decode().split()[0] for entry in entries]


@pytest.mark.parametrize(
    "state",
    [
        "",
        "null",
        "7",
        "[]",
        "{",
        '{"ready": true}',
        '{"ready": true, "queues": 5}',
        '{"ready": true, "queues": [1]}',
    ],
)
def test_a_worker_that_cannot_be_read_is_no_worker(door, state):
    door.connection.sadd(NAMES_KEY, "odd")
    door.connection.set(WORKER_PREFIX + "odd", state, ex=GENEROUS_S)
    assert door.admits("a", task=1)
    assert [w.name for w in read_queue_state(door.connection).workers] == []


@pytest.mark.parametrize("click_s", ["soon", -5, 1e300, None, [], True])
def test_a_time_that_is_none_counts_like_one_that_was_not_measured(door, click_s):
    door.add_worker("odd", click_s=click_s)
    assert fill(door) == 7, "clicks of one second each"


def test_what_others_write_into_the_book_of_waiting_clicks_is_thrown_out(door):
    door.add_worker("w", click_s=0.8)
    odd: dict[str | bytes, bytes] = {"x": b"no entry", b"\\xff": b"\\xff \\xff \\xff", "y": b"1:1 first soon"}
    door.connection.hset(claims.WAITING_KEY, mapping=odd)
    door.connection.hset("refcut:unanswered:1:1", mapping={"z": b"{", b"\\xff": b"7", "v": b"[7, null]"})
    assert door.admits("a", task=1)
    assert door.connection.hlen(claims.WAITING_KEY) == 1


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[tuple[Any, ...]]]]:
    """The round trips to Redis since the last call: each with the commands that it carries."""
    trips: list[tuple[Any, ...]] = []
    send = redis.connection.AbstractConnection.send_packed_command

    def counted(self: Any, command: Any, check_health: bool = True) -> None:
        trips.append(tuple(command))
        send(self, command, check_health)

    def take() -> list[tuple[Any, ...]]:
        taken = list(trips)
        trips.clear()
        return taken

    monkeypatch.setattr(redis.connection.AbstractConnection, "send_packed_command", counted)
    return take


def test_a_refused_click_hears_it_within_50_ms_in_a_few_round_trips_without_waiting(door, commands):
    """The time is compared with as many round trips of this process at the same moment: a busy machine delays both."""
    door.add_worker("w", click_s=2.0)
    fill(door)
    with pytest.raises(BusyError):
        door.queue.ask(click("mask", "z", task=900))
    commands()
    refused, control = [], []
    for number in range(9):
        refused.append(duration(lambda number=number: ask_refused(door, number)))
        trips = commands()
        assert len(trips) <= 6, trips
        assert not any(b"XREAD" in bytes(part) for trip in trips for part in trip if isinstance(part, bytes))
        control.append(duration(lambda: [door.connection.ping() for _ in range(6)]))
        commands()
    assert median(refused) < AT_ONCE_S + 10 * median(control), (refused, control)


def ask_refused(door: Door, number: int) -> None:
    with pytest.raises(BusyError):
        door.queue.ask(click("mask", f"{number}", task=1000 + number))


def duration(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started
