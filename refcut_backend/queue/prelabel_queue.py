"""Sends work that can wait to a worker, and waits for it: tasks to be pre-labelled, for one. Clicks go first.

A job's claim lasts only while its caller waits and renews it: tasks that a killed `refcut prelabel` left on the
queue are not computed. Computing a task twice does no harm, so a task whose worker died is sent again, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Generic, TypeVar
from uuid import uuid4

import redis
from redis import Redis

from refcut_backend.errors import ClickTimeoutError, WorkerLostError
from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import WorkerState, living_workers
from refcut_backend.queue.messages import JobMessage, PrelabelAnswer, PrelabelJob
from refcut_backend.queue.redis import report_outage
from refcut_backend.queue.reply_queue import ReplyQueue
from refcut_backend.queue.rq_jobs import PRELABEL_FUNCTION, PRELABEL_QUEUE

CLAIM_S = 10.0
RUNS_AT_MOST_S = 60
"""Ends a job that hangs. A worker normally gives a job back long before."""
MAX_LOSSES = 2
"""A task is given up after this many workers died on it: the task may well be the cause."""

Job = TypeVar("Job", bound=JobMessage)
Answer = TypeVar("Answer")


class PatientQueue(ABC, Generic[Job, Answer]):
    """A queue of work that can wait, for any number of callers on one Redis, in threads or in other processes.

    Attributes:
        NAME: The queue in Redis.
        FUNCTION: Registered function that computes a job.
        DOING: What workers were doing with a job, for the error.
    """

    NAME: ClassVar[str]
    FUNCTION: ClassVar[str]
    DOING: ClassVar[str]

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._queue = ReplyQueue(connection, self.NAME, self.FUNCTION, RUNS_AT_MOST_S)

    @abstractmethod
    def _read(self, payload: Any) -> Answer:
        """Reads an answer from JSON. Raises MessageError."""

    def workers(self) -> list[WorkerState]:
        """List the workers that would take a job now.

        Raises:
            QueueUnavailableError: If Redis cannot be reached.
        """
        return [worker for worker in living_workers(self._connection) if worker.takes(self.NAME)]

    def ask(
        self,
        job: Job,
        deadline: float,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        is_continuation: bool = False,
    ) -> Answer:
        """Send a job and wait for what a worker has of it before something more urgent comes in.

        Args:
            job: The job.
            deadline: When to stop waiting, as `time.monotonic()`.
            is_cancelled: Checked while waiting; true ends the wait like the deadline.
            is_continuation: Whether the job is the rest of one that was begun. It then goes before other jobs,
                because the worker still has its image in memory.

        Raises:
            ClickTimeoutError: If no worker answered by the deadline, or the wait was cancelled.
            WorkerLostError: If two workers died over the job.
            QueueUnavailableError: If Redis cannot be reached.
        """
        for _ in range(MAX_LOSSES):
            with suppress(WorkerLostError), report_outage():
                return self._ask_once(job, deadline, is_cancelled, is_continuation)
        raise WorkerLostError(
            f"{MAX_LOSSES} workers died while they {self.DOING}",
            hint="the workers' log, or the kernel's, says why",
        )

    def _ask_once(
        self, job: Job, deadline: float, is_cancelled: Callable[[], bool], is_continuation: bool
    ) -> Answer:
        job_id = uuid4().hex
        try:
            self._send(job, job_id, is_continuation)
            payload = self._queue.wait(
                job_id,
                deadline,
                lambda _left_s: self._send(job, job_id, at_front=False),
                is_cancelled=is_cancelled,
                renew_claim_s=CLAIM_S,
            )
        finally:
            self._forget(job_id)
        if payload is None:
            raise ClickTimeoutError("no worker was free in time", hint="clicks go first; more workers help")
        return self._read(payload)

    def _send(self, job: Job, job_id: str, at_front: bool) -> None:
        with self._connection.pipeline() as pipeline:
            pipeline.multi()
            claims.create(pipeline, job_id, CLAIM_S)
            self._queue.add(pipeline, job_id, job.to_json(), at_front=at_front)
            pipeline.execute()

    def _forget(self, job_id: str) -> None:
        """Removes every trace of the job. What cannot be removed now expires by itself."""
        with suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            self._queue.forget(pipeline, job_id)
            pipeline.execute()


class PrelabelQueue(PatientQueue[PrelabelJob, PrelabelAnswer]):
    """The queue of tasks to pre-label."""

    NAME = PRELABEL_QUEUE
    FUNCTION = PRELABEL_FUNCTION
    DOING = "searched the task"

    def _read(self, payload: Any) -> PrelabelAnswer:
        return PrelabelAnswer.from_json(payload)
