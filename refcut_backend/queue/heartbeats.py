"""Which workers are alive. Each writes its state to Redis every second and counts as dead after three silent seconds."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any
from uuid import uuid4

import redis
from redis import Redis
from redis.client import Pipeline
from rq.utils import as_text

from refcut_backend.queue.redis import report_outage

BEAT_S = 1.0
SILENT_S = 3.0
_NAMES = "refcut:workers"
_SMOOTHING = 0.2
"""Weight of the latest click in a worker's mean time per click."""


@dataclass(frozen=True)
class WorkerState:
    """What a worker reports about itself.

    Attributes:
        name: Unique over all machines.
        queues: Queues that it serves.
        ready: Whether the model is loaded and warmed up.
        device: Where the model computes, as torch names it; empty until ready, and for workers without a model.
        click_s: Recent seconds per click, as a moving average; None before the first click.
    """

    name: str
    queues: tuple[str, ...]
    ready: bool = False
    device: str = ""
    click_s: float | None = None


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

    def record_click(self, seconds: float) -> None:
        """Update the mean time per click, from which the expected wait of a click is computed."""
        before = self._state.click_s
        mean_s = seconds if before is None else (1 - _SMOOTHING) * before + _SMOOTHING * seconds
        self._state = replace(self._state, click_s=mean_s)

    def beat(self, pipeline: Pipeline) -> None:
        """Add the worker's state to a pipeline; it counts as alive for `SILENT_S` after that."""
        pipeline.sadd(_NAMES, self.name)
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
    names = sorted(as_text(name) for name in connection.smembers(_NAMES))
    workers = _read(connection, names)
    silent = set(names) - {worker.name for worker in workers}
    if silent:
        connection.srem(_NAMES, *silent)
    return workers


def _read(connection: Redis, names: list[str]) -> list[WorkerState]:
    values = connection.mget([_key(name) for name in names]) if names else []
    return [_state(json.loads(value)) for value in values if value is not None]


def _state(payload: dict[str, Any]) -> WorkerState:
    """Ignores unknown fields: a worker of a later version may send more."""
    known = {field.name: payload[field.name] for field in fields(WorkerState) if field.name in payload}
    return WorkerState(**{**known, "queues": tuple(payload["queues"])})


def _forget(pipeline: Pipeline, name: str) -> None:
    pipeline.delete(_key(name))
    pipeline.srem(_NAMES, name)
    pipeline.execute()


def _key(name: str) -> str:
    return f"refcut:worker:{name}"
