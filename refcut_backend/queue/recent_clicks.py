"""The last clicks with their outcomes, over all web processes on one Redis: for the pages that people keep open.

    request is answered  -> add      memory of this process            never waits, whatever Redis does
    a thread             -> write    two lists in Redis, cut to `KEPT` all clicks, and those that failed
    page                 -> latest   both lists, and what this process could not write

Failed clicks have a list of their own: a busy team would otherwise push the one that an annotator looks for off the list
within seconds. While Redis is away, a process shows the clicks that it has seen itself.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field
from redis import Redis

from refcut_backend.errors import MessageError, QueueUnavailableError, SupersededError
from refcut_backend.queue.messages import read_message
from refcut_backend.queue.queue_state import ANSWERED
from refcut_backend.queue.redis import report_outage

KEPT = 50
KEPT_S = 24 * 3600
"""Redis drops the lists after a day without a click."""
STOP_LIMIT_S = 2.0
"""How long the process waits at its end for Redis to take the last clicks."""
_ALL, _FAILED = "refcut:recent-clicks", "refcut:failed-clicks"
Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True)
class RecentClick:
    """One click request and how it ended.

    Attributes:
        id: Id of the request in the log.
        at_s: When it was answered, in seconds since 1970.
        project_id: The project; Label Studio's number if it is unclear which project of that number is meant.
        task_id: Label Studio's task.
        label: The clicked label; empty if the click was refused before it was known.
        outcome: `answered` or the reason code.
        problem: What went wrong this time, without secrets; empty if nothing.
        clicks: Number of clicks of the object.
        region_id: Region of the mask; empty without one.
        references: Versions of the references that were used.
        model_version: What computed the mask.
        milliseconds: From request to answer.
    """

    id: str
    at_s: Finite
    project_id: int
    task_id: int | None
    label: str
    outcome: str
    problem: str
    clicks: int
    region_id: str
    references: tuple[str, ...]
    model_version: str
    milliseconds: Finite

    @property
    def has_failed(self) -> bool:
        """Whether there is no mask. A click that a newer one replaced has not failed."""
        return self.outcome not in (ANSWERED, SupersededError.code)


@dataclass(frozen=True)
class ClickLists:
    """The last clicks, newest first.

    Attributes:
        latest: The last `KEPT` clicks.
        failed: The last `KEPT` clicks that failed.
    """

    latest: tuple[RecentClick, ...] = ()
    failed: tuple[RecentClick, ...] = ()


class RecentClicks:
    """The last clicks. `add` may be called on the event loop.

    Args:
        connection: Redis; need not answer.
    """

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._own = _two_lists()
        self._waiting = _two_lists()
        self._arrived = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def add(self, click: RecentClick) -> None:
        """Note a click. Returns at once; a thread writes it to Redis."""
        for lists in (self._own, self._waiting):
            lists[_ALL].append(click)
            if click.has_failed:
                lists[_FAILED].append(click)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="recent-clicks", daemon=True)
            self._thread.start()
        self._arrived.set()

    def stop(self) -> None:
        """Write what waits, and end the thread: the process may close its connection afterwards."""
        self._is_stopped = True
        self._arrived.set()
        if self._thread is not None:
            self._thread.join(STOP_LIMIT_S)

    def latest(self) -> ClickLists:
        """Return the last clicks; those of this process alone while Redis is away."""
        stored: dict[str, list[RecentClick]] = {_ALL: [], _FAILED: []}
        with suppress(QueueUnavailableError):
            stored = {key: self._read(key) for key in stored}
        return ClickLists(*(_newest(stored[key], self._own[key]) for key in (_ALL, _FAILED)))

    @report_outage()
    def _read(self, key: str) -> list[RecentClick]:
        clicks = []
        for value in self._connection.lrange(key, 0, KEPT - 1):
            # Another version may have written it.
            with suppress(MessageError, ValueError):
                clicks.append(read_message(RecentClick, json.loads(value), "a recent click"))
        return clicks

    def _write(self) -> None:
        is_last = False
        while not is_last:
            self._arrived.wait()
            self._arrived.clear()
            is_last = self._is_stopped  # a click that was added before is written in this round
            with suppress(QueueUnavailableError):
                for key, clicks in self._waiting.items():
                    self._push(key, [clicks.popleft() for _ in range(len(clicks))])

    @report_outage()
    def _push(self, key: str, clicks: list[RecentClick]) -> None:
        if clicks:
            with self._connection.pipeline(transaction=False) as pipeline:
                pipeline.lpush(key, *(json.dumps(asdict(click)) for click in clicks))
                pipeline.ltrim(key, 0, KEPT - 1)
                pipeline.expire(key, KEPT_S)
                pipeline.execute()


def _two_lists() -> dict[str, deque[RecentClick]]:
    """Of all clicks and of those that failed: a burst of the former never pushes the latter out."""
    return {_ALL: deque(maxlen=KEPT), _FAILED: deque(maxlen=KEPT)}


def _newest(*lists: Iterable[RecentClick]) -> tuple[RecentClick, ...]:
    """Merges lists that may share clicks."""
    by_id = {click.id: click for clicks in lists for click in tuple(clicks)}
    return tuple(sorted(by_id.values(), key=lambda click: (-click.at_s, click.id))[:KEPT])
