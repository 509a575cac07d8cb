"""Sends tasks to be prelabelled to a worker and waits, at low priority: a worker takes them when no click waits.

A task's ticket lasts only while somebody waits and says so: what a killed `refcut prelabel` has left on the queue is not
computed. Looking at a task twice does no harm, so one whose worker died is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import redis
from redis import Redis

from refcut_backend.errors import ClickTimeoutError, QueueUnavailableError, WorkerLostError
from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import WorkerState, is_alive, living_workers
from refcut_backend.queue.messages import PrelabelAnswer, PrelabelJob
from refcut_backend.queue.rq_jobs import (
    PRELABEL_FUNCTION,
    PRELABEL_QUEUE,
    open_queue,
    read_result,
    results_key,
)

CLAIM_S = 10.0
LOOK_EVERY_S = 0.25
RUNS_AT_MOST_S = 60
"""A worker gives a job back long before; this ends one that hangs."""
KEPT_S = 30
LOSSES = 2
"""A task over which so many workers died is given up: it may well be the reason."""


class PrelabelQueue:
    """For any number of callers on one Redis, on threads or in processes of their own."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._queue = open_queue(PRELABEL_QUEUE, connection)

    def workers(self) -> list[WorkerState]:
        """Those that would take a task now. Raises QueueUnavailableError."""
        try:
            return [w for w in living_workers(self._connection) if w.ready and PRELABEL_QUEUE in w.queues]
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def ask(
        self,
        job: PrelabelJob,
        deadline: float,
        is_cancelled: Callable[[], bool] = lambda: False,
        *,
        is_continuation: bool = False,
    ) -> PrelabelAnswer:
        """What a worker found, by a deadline (`time.monotonic()`).

        goes_on: the rest of a task, which comes before other tasks: the worker still has its image at hand.
        is_unwanted: asked while waiting; true ends the wait as a deadline does. Raises ClickTimeoutError,
        WorkerLostError or QueueUnavailableError when no worker answers.
        """
        losses = 0
        try:
            while True:
                answer = self._ask_once(job, deadline, is_cancelled, is_continuation)
                if answer is not None:
                    return answer
                losses += 1
                if losses == LOSSES:
                    raise WorkerLostError(
                        f"{LOSSES} workers died while they looked at it",
                        hint="the workers' log, or the kernel's, says why",
                    )
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def _ask_once(
        self, job: PrelabelJob, deadline: float, is_cancelled: Callable[[], bool], is_continuation: bool
    ) -> PrelabelAnswer | None:
        """None when the worker died."""
        name = uuid4().hex
        try:
            self._send(job, name, is_continuation)
            while (left_s := deadline - time.monotonic()) > 0 and not is_cancelled():
                said = read_result(self._connection, name, min(left_s, LOOK_EVERY_S))
                if said is not None:
                    return PrelabelAnswer.from_json(said)
                if self._is_lost(job, name):
                    return None
        finally:
            self._forget(name)
        raise ClickTimeoutError("it was not its turn in time", hint="clicks go first; more workers help")

    def _send(self, job: PrelabelJob, name: str, at_front: bool) -> None:
        with self._connection.pipeline() as pipeline:
            pipeline.multi()
            claims.issue(pipeline, name, CLAIM_S)
            self._queue.enqueue_call(
                PRELABEL_FUNCTION,
                args=(job.to_json(),),
                timeout=RUNS_AT_MOST_S,
                result_ttl=KEPT_S,
                failure_ttl=KEPT_S,
                description="prelabel",
                job_id=name,
                at_front=at_front,
                pipeline=pipeline,
            )
            pipeline.execute()

    def _is_lost(self, job: PrelabelJob, name: str) -> bool:
        """Renews the ticket; whether the worker that held it is dead. What an emptied Redis lost is sent again."""
        with self._connection.pipeline() as pipeline:
            claims.renew(pipeline, name, CLAIM_S)
            was_there = bool(pipeline.execute()[0])
        if not was_there:
            self._send(job, name, at_front=False)
            return False
        state = claims.read(self._connection, name)
        if state is None or state.worker is None:
            self._put_back_if_stranded(name)
            return False
        died = not is_alive(self._connection, state.worker)
        return died and read_result(self._connection, name, 0) is None

    def _put_back_if_stranded(self, name: str) -> None:
        """A worker that is killed while Redis hands it a job takes the job along unclaimed."""
        if self._connection.lpos(self._queue.key, name) is None:
            self._queue.intermediate_queue.remove(name)
            self._queue.push_job_id(name, at_front=True)

    def _forget(self, name: str) -> None:
        """Leaves nothing behind; what cannot be removed now expires by itself."""
        with suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            claims.withdraw(pipeline, name)
            self._queue.remove(name, pipeline=pipeline)
            pipeline.delete(results_key(name))
            pipeline.execute()


def _unavailable(error: redis.RedisError) -> QueueUnavailableError:
    return QueueUnavailableError(
        f"Redis cannot be reached ({type(error).__name__})",
        hint="check that Redis runs, and REFCUT_REDIS_URL",
    )
