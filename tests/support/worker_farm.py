"""Real worker processes around a fake model, and callers on threads, for tests of faults."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from redis import Redis

from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.prompts import PercentClick
from refcut_backend.queue.click_queue import ClickQueue
from refcut_backend.queue.heartbeats import new_worker_name, ready_worker
from refcut_backend.queue.messages import ClickJob
from refcut_backend.queue.queue_state import ANSWERED
from refcut_backend.queue.redis import connect_redis
from tests.support.forked_processes import ForkedProcess

GENEROUS_S = 60
"""Longest wait for something that happens within a second on an idle machine."""


def wait_for(condition: Callable[[], object], what: str, limit_s: float = GENEROUS_S) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


def click(order: str, *ids: str, task: int = 1, name: str = "") -> ClickJob:
    """A click whose label tells the fake model what to do. ids: its dots; name: how the worker's log calls it."""
    return ClickJob(1, task, name or "/a.jpg", order, (PercentClick(10, 20, True),), (), ids)


@dataclass
class Reply:
    """What a caller got, and when (`time.monotonic()`)."""

    reason: str
    at: float
    seconds: float


@dataclass
class Worker:
    """One running fake worker."""

    name: str
    process: ForkedProcess

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()

    def stop(self) -> int:
        """Stop it with SIGTERM. Returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GENEROUS_S)


@dataclass
class WorkerFarm:
    """Starts workers and callers on one Redis, and ends all of them."""

    redis_url: str
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection: Redis = connect_redis(self.redis_url)
        self._callers = ThreadPoolExecutor(64)

    def __enter__(self) -> WorkerFarm:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()
        self._callers.shutdown()
        self.connection.close()

    @property
    def environment(self) -> dict[str, str]:
        """For a process that runs `tests.support.fake_worker`."""
        log = str(self.folder / "computed")
        return os.environ | {"REFCUT_REDIS_URL": self.redis_url, "FAKE_WORKER_LOG": log}

    def computed(self) -> list[str]:
        """Names of the clicks whose computation was begun, in order."""
        log = self.folder / "computed"
        return log.read_text().splitlines() if log.exists() else []

    def start_worker(self, *options: str, ready: bool = True) -> Worker:
        """Start a worker, with options of `tests.support.fake_worker`, and wait until it is ready if `ready` is set."""
        name = new_worker_name()
        module = "tests.support.fake_worker"
        process = ForkedProcess(module, "--name", name, *options, environment=self.environment)
        worker = Worker(name, process)
        self.workers.append(worker)
        if ready:
            wait_for(lambda: ready_worker(self.connection, name) is not None, "the worker is ready")
        return worker

    def queue(
        self, timeout_s: int = GENEROUS_S, limit: int = 50, longest_wait_s: float = GENEROUS_S
    ) -> ClickQueue:
        """A queue with a connection of its own, as another web process would have."""
        return ClickQueue(connect_redis(self.redis_url), timeout_s, limit, longest_wait_s)

    def ask(self, job: ClickJob, queue: ClickQueue | None = None) -> Future[Reply]:
        """Asks on a thread. A refusal is a reply too."""
        return self._callers.submit(_ask, queue or self.queue(), job)

    def ask_and_wait(self, job: ClickJob, queue: ClickQueue | None = None) -> Reply:
        """Ask, and wait for the reply."""
        return self.ask(job, queue).result(2 * GENEROUS_S)

    def ask_in_work(self, job: ClickJob, queue: ClickQueue | None = None) -> Future[Reply]:
        """Asks, and returns once a worker has begun to compute it."""
        begun = self.computed().count(job.image_address)
        reply = self.ask(job, queue)
        wait_for(lambda: self.computed().count(job.image_address) > begun, f"{job.image_address} is in work")
        return reply

    def ask_waiting(self, job: ClickJob, queue: ClickQueue | None = None) -> Future[Reply]:
        """Asks, and returns once Redis has the click."""
        key, ids = f"refcut:unanswered:{job.project_id}:{job.task_id}", json.dumps(job.click_ids).encode()
        before = self.connection.hgetall(key).keys()
        reply = self.ask(job, queue)
        wait_for(lambda: reply.done() or self._has_new(key, ids, before), "Redis has the click")
        return reply

    def ask_again_and_again(self, times: int) -> None:
        """Makes round trips to Redis from a thread, as a caller does: the control for how busy the machine is."""
        self._callers.submit(lambda: [self.connection.ping() for _ in range(times)]).result()

    def _has_new(self, key: str, ids: bytes, before: Collection[bytes]) -> bool:
        return any(v == ids and k not in before for k, v in self.connection.hgetall(key).items())


def _ask(queue: ClickQueue, job: ClickJob) -> Reply:
    started = time.monotonic()
    try:
        reason = queue.ask(job).error_code or ANSWERED
    except RefCutError as error:
        reason = error.code
    ended = time.monotonic()
    return Reply(reason, ended, ended - started)
