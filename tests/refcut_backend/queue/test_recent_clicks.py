from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace

import pytest
from redis import Redis

from refcut_backend.queue.recent_clicks import KEPT, RecentClick, RecentClicks
from tests.support.web_process import wait_until

CLICK = RecentClick("a", 100.0, 7, 3, "Door", "answered", "", 1, "region", (), "s14-test", 200.0)
FAILED = replace(CLICK, outcome="image", problem="404")


def numbered(click: RecentClick, number: int) -> RecentClick:
    return replace(click, id=f"{click.outcome}-{number}", at_s=click.at_s + number)


def test_what_one_web_process_has_seen_another_one_shows(connection: Redis) -> None:
    here, elsewhere = RecentClicks(connection), RecentClicks(connection)
    here.add(CLICK)
    here.add(numbered(FAILED, 1))
    wait_until(lambda: len(elsewhere.latest().latest) == 2)
    assert [click.id for click in elsewhere.latest().latest] == ["image-1", "a"]
    assert elsewhere.latest().failed == (numbered(FAILED, 1),)
    assert elsewhere.latest() == here.latest()
    here.stop()


def test_a_failed_click_stays_in_sight_however_many_clicks_follow(connection: Redis) -> None:
    clicks = RecentClicks(connection)
    clicks.add(FAILED)
    for number in range(3 * KEPT):
        clicks.add(numbered(CLICK, number + 1))
    clicks.stop()
    found = RecentClicks(connection)
    assert found.latest().failed == (FAILED,)
    assert FAILED not in found.latest().latest
    assert connection.llen("refcut:recent-clicks") == KEPT


def test_what_waits_at_the_end_is_written_and_no_thread_uses_the_connection_afterwards(
    connection: Redis,
) -> None:
    clicks = RecentClicks(connection)
    for number in range(20):
        clicks.add(numbered(CLICK, number))
    clicks.stop()
    assert len(RecentClicks(connection).latest().latest) == 20
    assert "recent-clicks" not in [thread.name for thread in threading.enumerate()]


def test_a_click_that_a_newer_one_replaced_has_not_failed() -> None:
    assert not replace(CLICK, outcome="superseded").has_failed
    assert replace(CLICK, outcome="empty_mask").has_failed


@pytest.mark.slow
def test_while_redis_is_away_a_click_waits_for_nothing_and_is_shown_by_its_own_process() -> None:
    clicks = RecentClicks(Redis(host="127.0.0.1", port=1, socket_connect_timeout=1))
    started = time.monotonic()
    for number in range(1000):
        clicks.add(numbered(FAILED, number))
    assert time.monotonic() - started < 1
    assert clicks.latest().failed[0].id == "image-999"
    assert len(clicks.latest().failed) == KEPT
    clicks.stop()


def test_what_another_version_wrote_is_read_as_far_as_it_is_understood(connection: Redis) -> None:
    later = json.dumps(asdict(CLICK) | {"id": "later", "new": 1})
    connection.lpush("refcut:recent-clicks", "no json", json.dumps({"id": "half"}), later)
    assert [click.id for click in RecentClicks(connection).latest().latest] == ["later"]
