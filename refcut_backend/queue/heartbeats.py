"""Which workers are alive. Each writes its state to Redis every second and counts as dead after three silent seconds."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median_low
from typing import Annotated
from uuid import uuid4

import redis
from pydantic import Field
from redis import Redis
from redis.client import Pipeline

from refcut_backend.errors import MessageError
from refcut_backend.queue.messages import read_message
from refcut_backend.queue.redis import report_outage
from refcut_backend.queue.rq_jobs import read_text

BEAT_S = 1.0
SILENT_S = 3.0
NAMES_KEY = "refcut:workers"
WORKER_PREFIX = "refcut:worker:"
UNMEASURED_S = 1.0
"""Taken for the time of a click while a worker has measured none."""
_RECENT = 5
"""Clicks of which the median is taken: one slow click changes nothing, and after three slow ones all count as slow."""
_RECENT_KINDS = 20
"""Clicks from which the shares of first and later clicks are taken."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class WorkerState:
    """What a worker reports about itself.

    Attributes:
        name: Unique over all machines.
        queues: Queues that it serves.
        ready: Whether the model is loaded and warmed up.
        device: Where the model computes, as torch names it; empty until ready, and for workers without a model.
        click_s: Seconds per click: the two below, weighted with how often each kind came lately; None before the first
            click.
        first_click_s: Median of the last first clicks of objects, which take several times as long as later ones.
        later_click_s: The same for later clicks.
    """

    name: str
    queues: tuple[str, ...]
    ready: bool = False
    device: str = ""
    click_s: Seconds | None = None
    first_click_s: Seconds | None = None
    later_click_s: Seconds | None = None

    def takes(self, queue: str) -> bool:
        """Whether the worker takes jobs of a queue now."""
        return self.ready and queue in self.queues

    def expected_s(self, is_first: bool) -> float | None:
        """Seconds that a click will probably take; None before the first click."""
        own = self.first_click_s if is_first else self.later_click_s
        return self.click_s if own is None else own


class Heartbeat:
    """Keeps one worker's state in Redis up to date from a thread, as a context manager. Redis may be away meanwhile.

    Args:
        connection: For the heartbeat alone; it is closed at the end.
        name: The worker.
        queues: Queues that the worker serves.
    """

    def __init__(self, connection: Redis, name: str, queues: Collection[str]) -> None:
        self._connection = connection
        self._state = WorkerState(name, tuple(queues))
        self._recent_s: dict[bool, deque[float]] = {}
        self._recent_kinds: deque[bool] = deque(maxlen=_RECENT_KINDS)
        self._stopped = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="heartbeat", daemon=True)

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._state.name

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._thread.join()
        with suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            _forget(pipeline, self.name)
        self._connection.close()

    def announce_ready(self, device: str = "") -> None:
        """Report that the worker takes jobs from now on. `device` is where its model computes."""
        self._state = replace(self._state, ready=True, device=device)
        self._beat_now()

    def record_click(self, seconds: float, *, is_first: bool) -> None:
        """Update the times per click, from which the expected wait of a click is computed."""
        self._recent_s.setdefault(is_first, deque(maxlen=_RECENT)).append(seconds)
        self._recent_kinds.append(is_first)
        # `median_low`, so that of two clicks the slower one is the exception.
        typical_s = {kind: median_low(recent) for kind, recent in self._recent_s.items()}
        self._state = replace(
            self._state,
            click_s=fmean(typical_s[kind] for kind in self._recent_kinds),
            first_click_s=typical_s.get(True),
            later_click_s=typical_s.get(False),
        )

    def expected_s(self, is_first: bool) -> float | None:
        """Seconds that a click will probably take; None before the first click."""
        return self._state.expected_s(is_first)

    def beat(self, pipeline: Pipeline) -> None:
        """Add the worker's state to a pipeline; it counts as alive for `SILENT_S` after that."""
        pipeline.sadd(NAMES_KEY, self.name)
        pipeline.set(_key(self.name), json.dumps(asdict(self._state)), px=round(1000 * SILENT_S))

    def _beat_now(self) -> None:
        """Reads and writes the state under a lock: the thread could otherwise overwrite "ready" with an older state."""
        with self._one_at_a_time, suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            self.beat(pipeline)
            pipeline.execute()

    def _beat_until_stopped(self) -> None:
        while True:
            self._beat_now()
            if self._stopped.wait(BEAT_S):
                return


def new_worker_name() -> str:
    """Make a name that no other worker has, on any machine."""
    return f"{socket.gethostname()}-{uuid4().hex[:12]}"


@report_outage()
def is_alive(connection: Redis, name: str) -> bool:
    """Return whether the worker sent a heartbeat within three seconds and nobody has seen it end since.

    Raises:
        QueueUnavailableError: If Redis cannot be reached.
    """
    return bool(connection.exists(_key(name)))


@report_outage()
def ready_worker(connection: Redis, name: str) -> WorkerState | None:
    """Return the state of a worker; None unless it is alive and has its model loaded.

    Raises:
        QueueUnavailableError: If Redis cannot be reached.
    """
    return next((worker for worker in _read(connection, [name]) if worker.ready), None)


@report_outage()
def forget_worker(connection: Redis, name: str) -> None:
    """Remove a worker that was seen to end: its callers then learn of it at once instead of after three seconds.

    Raises:
        QueueUnavailableError: If Redis cannot be reached.
    """
    with connection.pipeline() as pipeline:
        _forget(pipeline, name)


@report_outage()
def living_workers(connection: Redis) -> list[WorkerState]:
    """List every living worker on this Redis, by name, whatever machine it runs on.

    Raises:
        QueueUnavailableError: If Redis cannot be reached.
    """
    names = sorted(read_text(name) for name in connection.smembers(NAMES_KEY))
    workers = _read(connection, names)
    silent = set(names) - {worker.name for worker in workers}
    if silent:
        connection.srem(NAMES_KEY, *silent)
    return workers


def _read(connection: Redis, names: list[str]) -> list[WorkerState]:
    """Reads the states of the workers that are alive. One that cannot be read counts as silent."""
    values = connection.mget([_key(name) for name in names]) if names else []
    workers = []
    for value in values:
        with suppress(MessageError, ValueError):
            if value is not None:
                workers.append(read_message(WorkerState, json.loads(value), "the state of a worker"))
    return workers


def _forget(pipeline: Pipeline, name: str) -> None:
    pipeline.delete(_key(name))
    pipeline.srem(NAMES_KEY, name)
    pipeline.execute()


def _key(name: str) -> str:
    return WORKER_PREFIX + name
