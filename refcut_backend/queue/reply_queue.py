"""Sends a job to a worker and waits for its answer, even if the worker dies or Redis loses the job meanwhile.

This is the common part of `ClickQueue` and `PrelabelQueue`. While a caller waits, it looks every quarter of a second:

    claim in Redis     what happened                                         what the caller does
    -----------------  ----------------------------------------------------  --------------------------------
    none               Redis was emptied                                     sends the job again
    waiting            queued, or handed to a worker killed a moment ago     puts it back if it left the queue
    held, worker lives a worker computes it                                  waits
    held, worker dead  the worker was killed, or is silent for 3 s           raises WorkerLostError
    superseded         a newer click replaced it                             raises SupersededError
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from redis import Redis
from redis.client import Pipeline

from refcut_backend.errors import SupersededError, WorkerLostError
from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import is_alive
from refcut_backend.queue.rq_jobs import open_queue, read_result, results_key

CHECK_EVERY_S = 0.25
RESULT_TTL_S = 30
"""How long rq keeps an answer that nobody fetches."""


class ReplyQueue:
    """An rq queue whose senders wait for the answer. Its methods raise redis.RedisError if Redis cannot be reached.

    Args:
        connection: Connection of the sender. A waiting sender blocks it.
        name: Queue in Redis.
        function: Registered function that computes a job (see `rq_jobs.FUNCTIONS`).
        timeout_s: Longest time in seconds that a worker may compute one job.
        job_ttl_s: Seconds after which Redis drops a job that no worker took; None keeps it.
    """

    def __init__(
        self, connection: Redis, name: str, function: str, timeout_s: int, job_ttl_s: int | None = None
    ) -> None:
        self._connection = connection
        self._queue = open_queue(name, connection)
        self._function = function
        self._timeout_s = timeout_s
        self._job_ttl_s = job_ttl_s

    @property
    def key(self) -> str:
        """Redis list that holds the ids of the waiting jobs."""
        return str(self._queue.key)

    def add(
        self,
        pipeline: Pipeline,
        job_id: str,
        payload: dict[str, Any],
        *,
        at_front: bool = False,
    ) -> None:
        """Queue a job. No worker can have it before its claim is made (`claims.create`, or `admission` for a click).

        Args:
            pipeline: A transaction (after `multi()`).
            job_id: A new id, or that of a job which Redis lost.
            payload: The job as JSON.
            at_front: Whether the job overtakes the waiting ones.
        """
        self._queue.enqueue_call(
            self._function,
            args=(payload,),
            timeout=self._timeout_s,
            ttl=self._job_ttl_s,
            result_ttl=RESULT_TTL_S,
            failure_ttl=RESULT_TTL_S,
            description=self._queue.name,
            job_id=job_id,
            at_front=at_front,
            pipeline=pipeline,
        )

    def remove(self, pipeline: Pipeline, job_id: str) -> None:
        """Take a waiting job off the queue."""
        self._queue.remove(job_id, pipeline=pipeline)

    def wait(
        self,
        job_id: str,
        deadline: float,
        send_again: Callable[[float], None],
        *,
        is_cancelled: Callable[[], bool] = lambda: False,
        renew_claim_s: float | None = None,
    ) -> Any:
        """Wait for the answer to a job.

        Args:
            job_id: The job.
            deadline: When to stop waiting, as `time.monotonic()`.
            send_again: Called with the seconds left when Redis has lost the job.
            is_cancelled: Checked four times per second; true ends the wait like the deadline.
            renew_claim_s: Extends the claim by this many seconds at every check; None leaves it to expire.

        Returns:
            The answer as JSON, of any form; None if there was none in time.

        Raises:
            WorkerLostError: If the worker died while it held the job.
            SupersededError: If a newer click replaced the job.
            MessageError: If the answer cannot be read.
            RefCutError: If the job's function failed.
        """
        while (left_s := deadline - time.monotonic()) > 0 and not is_cancelled():
            payload = read_result(self._connection, job_id, min(left_s, CHECK_EVERY_S))
            if payload is not None:
                return payload
            left_s = deadline - time.monotonic()
            if left_s > 0:
                if renew_claim_s is not None:
                    claims.renew(self._connection, job_id, renew_claim_s)
                self._recover(job_id, left_s, send_again)
        return None

    def forget(self, pipeline: Pipeline, job_id: str) -> None:
        """Remove everything about a job: claim, queue entry and answer."""
        claims.delete(pipeline, job_id)
        self.remove(pipeline, job_id)
        pipeline.delete(results_key(job_id))

    def _recover(self, job_id: str, left_s: float, send_again: Callable[[float], None]) -> None:
        state = claims.read(self._connection, job_id)
        if state is None:
            send_again(left_s)
        elif state.superseded:
            raise SupersededError("a newer click on the same object came in")
        elif state.worker is None:
            self._put_back_if_stranded(job_id)
        elif (
            not is_alive(self._connection, state.worker) and read_result(self._connection, job_id, 0) is None
        ):
            raise WorkerLostError(
                "the worker died while it held the job",
                hint="try again; the worker's log, or the kernel's, says why",
            )

    def _put_back_if_stranded(self, job_id: str) -> None:
        """Queue a job again that Redis handed to a dead worker.

        A killed worker leaves its connection open until the kernel has freed its memory (tens of milliseconds for a
        loaded model), and Redis still hands it the next job. If the worker lives after all, only one of the two gets
        the claim.
        """
        if self._connection.lpos(self._queue.key, job_id) is None:
            self._queue.intermediate_queue.remove(job_id)
            self._queue.push_job_id(job_id, at_front=True)
