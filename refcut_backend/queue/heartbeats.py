"""Which workers live: each says so every second, and counts as lost when it has been silent for three."""

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

BEAT_S = 1.0
SILENT_S = 3.0
_NAMES = "refcut:workers"


@dataclass(frozen=True)
class WorkerState:
    """What a worker says of itself. ready: the model is loaded and warm, on `device`. click_s: seconds that a click took
    lately.
    """

    name: str
    queues: tuple[str, ...]
    ready: bool = False
    device: str = ""
    click_s: float | None = None


class Heartbeat:
    """Keeps one worker's state in Redis alive from a thread, as a context manager. Redis may be away meanwhile.

    connection: for this alone; it is closed at the end.
    """

    def __init__(self, connection: Redis, name: str, queues: Collection[str]) -> None:
        self._connection = connection
        self._state = WorkerState(name, tuple(queues))
        self._stopped = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="presence", daemon=True)

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
        with suppress(redis.RedisError):
            forget_worker(self._connection, self.name)
        self._connection.close()

    def announce_ready(self, device: str = "") -> None:
        """From now on the worker takes jobs. device: what computes its model."""
        self._state = replace(self._state, ready=True, device=device)
        self._beat_now()

    def took(self, seconds: float) -> None:
        """A click was computed: moves the mean that the expected wait is reckoned from."""
        before = self._state.click_s
        self._state = replace(
            self._state, click_s=seconds if before is None else 0.8 * before + 0.2 * seconds
        )

    def beat(self, pipeline: Pipeline) -> None:
        """Says that the worker lives."""
        pipeline.sadd(_NAMES, self.name)
        pipeline.set(_key(self.name), json.dumps(asdict(self._state)), px=round(1000 * SILENT_S))

    def _beat_now(self) -> None:
        """What was read first is written first: otherwise the thread could take back that the worker is ready."""
        with self._one_at_a_time, suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            self.beat(pipeline)
            pipeline.execute()

    def _beat_until_stopped(self) -> None:
        while True:
            self._beat_now()
            if self._stopped.wait(BEAT_S):
                return


def new_worker_name() -> str:
    """A name that no other worker has, on any machine."""
    return f"{socket.gethostname()}-{uuid4().hex[:12]}"


def is_alive(connection: Redis, name: str) -> bool:
    """Whether the worker was heard of in the last three seconds, and nobody has seen it die since."""
    return bool(connection.exists(_key(name)))


def ready_worker(connection: Redis, name: str) -> WorkerState | None:
    """A worker that lives and has its model loaded."""
    return next((worker for worker in _read(connection, [name]) if worker.ready), None)


def forget_worker(connection: Redis, name: str) -> None:
    """For whoever sees a worker end: its callers learn of it at once instead of after three seconds."""
    with connection.pipeline() as pipeline:
        pipeline.delete(_key(name))
        pipeline.srem(_NAMES, name)
        pipeline.execute()


def living_workers(connection: Redis) -> list[WorkerState]:
    """Every worker on this Redis, by name, whatever machine it runs on."""
    names = sorted(as_text(name) for name in connection.smembers(_NAMES))
    workers = _read(connection, names)
    silent = set(names) - {worker.name for worker in workers}
    if silent:
        connection.srem(_NAMES, *silent)
    return workers


def _read(connection: Redis, names: list[str]) -> list[WorkerState]:
    values = connection.mget([_key(name) for name in names]) if names else []
    return [_state(json.loads(value)) for value in values if value is not None]


def _state(said: dict[str, Any]) -> WorkerState:
    """A worker of a later version may say more."""
    known = {field.name: said[field.name] for field in fields(WorkerState) if field.name in said}
    return WorkerState(**{**known, "queues": tuple(said["queues"])})


def _key(name: str) -> str:
    return f"refcut:worker:{name}"
