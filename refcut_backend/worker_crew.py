"""The workers of `refcut run`: as many as wanted, replaced when they die, given up when they cannot even start."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import redis
from redis import Redis

from refcut_backend.errors import CANNOT_START, WorkersGivenUpError
from refcut_backend.queue.heartbeats import WorkerState, forget_worker, new_worker_name, ready_worker
from refcut_backend.queue.redis import stop_within

log = logging.getLogger("refcut.run")

WORKER_COMMAND = (sys.executable, "-m", "refcut_backend", "worker")
FAILED_STARTS = 4


class RestartPolicy:
    """When to start a worker again. One that had been ready is replaced at once, however often it dies; one that never
    gets ready is tried after 1, 2, 4, ... seconds, a few times in a row.
    """

    def __init__(self) -> None:
        self._failed_starts = 0

    @property
    def is_given_up(self) -> bool:
        """Whether another try would be in vain."""
        return self._failed_starts >= FAILED_STARTS

    def pause_after_death(self, had_been_ready: bool) -> float:
        """Seconds until the next start."""
        self._failed_starts = 0 if had_been_ready else self._failed_starts + 1
        return 0.0 if had_been_ready else float(2 ** (self._failed_starts - 1))


class WorkerPlace:
    """One place in the crew and whoever fills it."""

    def __init__(self, start: Callable[[str], subprocess.Popen[bytes]], connection: Redis) -> None:
        self._start_process = start
        self._connection = connection
        self._policy = RestartPolicy()
        self._start_at = 0.0
        self._start()

    def _start(self) -> None:
        self._name = new_worker_name()
        self._process: subprocess.Popen[bytes] | None = self._start_process(self._name)
        self._ready: WorkerState | None = None

    @property
    def ready(self) -> WorkerState | None:
        """What the worker said when it had its model loaded; None until then."""
        return self._ready

    def check(self) -> None:
        """Replaces a dead worker. Raises WorkersGivenUpError when that is in vain."""
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self._start()
            return
        status = self._process.poll()
        with suppress(redis.RedisError):
            self._ready = self._ready or ready_worker(self._connection, self._name)
            if status is not None:
                forget_worker(self._connection, self._name)
        if status is not None:
            self._replace(status)

    def _replace(self, status: int) -> None:
        self._process = None
        pause_s = self._policy.pause_after_death(self._ready is not None)
        if status == CANNOT_START:
            raise WorkersGivenUpError("a worker cannot start", hint="it has said why")
        if self._policy.is_given_up:
            raise WorkersGivenUpError(
                f"a worker died {FAILED_STARTS} times before it was ready, the last time with status {status}",
                hint="its log says why",
            )
        log.error("a worker died and is replaced", extra={"status": status, "pause_s": pause_s})
        self._start_at = time.monotonic() + pause_s

    def tell_to_stop(self) -> None:
        """SIGTERM: the job in hand is finished first."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, limit_s: float) -> None:
        """Until the worker has ended; it is killed at the limit."""
        if self._process is not None:
            stop_within(self._process, limit_s)


class WorkerCrew:
    """All workers of this machine."""

    def __init__(
        self,
        size: int,
        connection: Redis,
        environment: Mapping[str, str],
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        def start(name: str) -> subprocess.Popen[bytes]:
            # A session of its own: Ctrl-C reaches only the supervisor, which then stops the children in order.
            return subprocess.Popen([*command, "--name", name], env=environment, start_new_session=True)

        self._places = [WorkerPlace(start, connection) for _ in range(size)]

    def check(self) -> None:
        """Replaces whoever died. Raises WorkersGivenUpError when a worker does not even get ready."""
        for place in self._places:
            place.check()

    def ready(self) -> WorkerState | None:
        """A worker that takes clicks, if there is one."""
        return next((place.ready for place in self._places if place.ready is not None), None)

    def stop(self, limit_s: float) -> None:
        """Lets every worker finish its job, and kills those that take longer."""
        for place in self._places:
            place.tell_to_stop()
        deadline = time.monotonic() + limit_s
        for place in self._places:
            place.wait(max(deadline - time.monotonic(), 0.1))
