"""Queues whose sender does not wait (preloading, training), and the check that makes background work yield to clicks."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import redis
from redis import Redis

from refcut_backend.queue.messages import PreloadJob
from refcut_backend.queue.redis import report_outage
from refcut_backend.queue.rq_jobs import (
    AHEAD_QUEUE,
    CLICK_QUEUE,
    PRELOAD_FUNCTION,
    PRELOAD_QUEUE,
    TRAINING_FUNCTION,
    TRAINING_QUEUE,
    open_queue,
)

log = logging.getLogger("refcut.click")

MAX_WAITING = 4
WAITS_AT_MOST_S = 30
RUNS_AT_MOST_S = 60
TRAINING_RESULT_TTL_S = 60


class PreemptionCheck:
    """Tells a worker's background job to stop when something more urgent waits.

    Args:
        connection: Connection for this check alone.
        urgent_queues: Queues that go before the background job.
    """

    def __init__(self, connection: Redis, urgent_queues: Sequence[str]) -> None:
        self._connection = connection
        self._keys = [open_queue(name, connection).key for name in urgent_queues]

    def should_yield(self) -> bool:
        """Return whether an urgent job waits; also true if Redis cannot be reached. Called about 20 times per second."""
        try:
            with self._connection.pipeline() as pipeline:
                for key in self._keys:
                    pipeline.llen(key)
                return any(pipeline.execute())
        except redis.RedisError:
            return True


class PreloadQueue:
    """Jobs that prepare a task for its first click. A worker takes them only when no click waits."""

    def __init__(self, connection: Redis, *, ahead: bool = False) -> None:
        """Opens the queue.

        Args:
            connection: Connection to Redis.
            ahead: False for tasks that were just opened, true for tasks that may be opened next: those wait for these.
        """
        self._queue = open_queue(AHEAD_QUEUE if ahead else PRELOAD_QUEUE, connection)
        # A task that is open is clicked on soon, so it is of no use to prepare it after the clicks that wait.
        self._too_late = PreemptionCheck(connection, () if ahead else (CLICK_QUEUE,))

    def ask(self, job: PreloadJob) -> bool:
        """Queue a job without waiting for it.

        At most `MAX_WAITING` jobs wait. The oldest is dropped for a new one: its annotator has had time to click.

        Returns:
            Whether the job was queued; false if Redis cannot be reached, and for an opened task if a click waits.
        """
        try:
            if self._too_late.should_yield():
                return False
            waiting = self._queue.get_job_ids()
            for outdated in waiting[: max(len(waiting) - MAX_WAITING + 1, 0)]:
                self._drop(outdated)
            self._queue.enqueue_call(
                PRELOAD_FUNCTION,
                args=(job.to_json(),),
                timeout=RUNS_AT_MOST_S,
                ttl=WAITS_AT_MOST_S,
                result_ttl=0,
                failure_ttl=WAITS_AT_MOST_S,
                description=self._queue.name,
            )
            return True
        except redis.RedisError as error:
            log.info("task not prepared", extra={"task": job.task_id, "problem": type(error).__name__})
            return False

    def _drop(self, job_id: str) -> None:
        job = self._queue.fetch_job(job_id)
        if job is None:
            self._queue.remove(job_id)
        else:
            job.delete()


class TrainingQueue:
    """The queue of training runs. The database knows the runs; this queue only hands them to a worker.

    Args:
        connection: Connection to Redis.
        timeout_s: Longest time in seconds that a training may take.
    """

    def __init__(self, connection: Redis, timeout_s: int) -> None:
        self._queue = open_queue(TRAINING_QUEUE, connection)
        self._timeout_s = timeout_s

    def ensure(self, run_id: str, attempt: int) -> bool:
        """Queue a run unless it waits already.

        A superfluous job does no harm: a worker computes a run only after it has claimed the run in the database.

        Args:
            run_id: The run.
            attempt: How many workers have begun the run so far.

        Returns:
            Whether the run was queued by this call.

        Raises:
            QueueUnavailableError: If Redis cannot be reached.
        """
        job_id = f"{run_id}-{attempt}"
        with report_outage():
            if job_id in self._queue.get_job_ids():
                return False
            self._queue.enqueue_call(
                TRAINING_FUNCTION,
                args=(run_id,),
                timeout=self._timeout_s,
                result_ttl=TRAINING_RESULT_TTL_S,
                failure_ttl=TRAINING_RESULT_TTL_S,
                description=TRAINING_QUEUE,
                job_id=job_id,
            )
        return True
