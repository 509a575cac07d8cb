"""Asks a worker to get a task ready, when there is nothing better to do."""

from __future__ import annotations

import logging

import redis
from redis import Redis

from refcut_backend.queue.messages import PreloadJob
from refcut_backend.queue.rq_jobs import (
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


class PreloadQueue:
    """A queue that a worker looks into only when no click waits. Nothing on it is worth waiting for."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._clicks = open_queue(CLICK_QUEUE, connection)
        self._queue = open_queue(PRELOAD_QUEUE, connection)

    def ask(self, job: PreloadJob) -> bool:
        """Leaves the job for a worker; false when clicks wait or Redis is away. The oldest job makes room: whoever
        opened that task has had time to click."""
        try:
            if self.a_click_waits():
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
                description="warm",
            )
            return True
        except redis.RedisError as error:
            log.info("task not prepared", extra={"task": job.task_id, "problem": type(error).__name__})
            return False

    def a_click_waits(self) -> bool:
        """Whether a click is on the queue that no worker has taken yet; true as well when Redis cannot say."""
        try:
            return self._clicks.count > 0
        except redis.RedisError:
            return True

    def _drop(self, job_id: str) -> None:
        job = self._queue.fetch_job(job_id)
        if job is None:
            self._queue.remove(job_id)
        else:
            job.delete()


KEPT_AFTERWARDS_S = 60


class TrainingQueue:
    """The rq queue of trainings. timeout_s: longest time that one may take."""

    def __init__(self, connection: Redis, timeout_s: int) -> None:
        self._queue = open_queue(TRAINING_QUEUE, connection)
        self._timeout_s = timeout_s

    def ensure(self, run_id: str, attempt: int) -> bool:
        """Puts a run on the queue unless it waits there; returns whether it did. Raises redis.RedisError.

        A job too many does no harm: a worker computes a run only after it has claimed it in the database.
        attempt: how often the run has been begun.
        """
        job_id = f"{run_id}-{attempt}"
        if job_id in self._queue.get_job_ids():
            return False
        self._queue.enqueue_call(
            TRAINING_FUNCTION,
            args=(run_id,),
            timeout=self._timeout_s,
            result_ttl=KEPT_AFTERWARDS_S,
            failure_ttl=KEPT_AFTERWARDS_S,
            description="training",
            job_id=job_id,
        )
        return True


class PreemptionCheck:
    """Of a worker on this Redis."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._urgent = [open_queue(name, connection).key for name in (CLICK_QUEUE, PRELOAD_QUEUE)]

    def is_over(self) -> bool:
        """Whether a click waits, or a task that was just opened; true as well when Redis cannot say."""
        try:
            with self._connection.pipeline() as pipeline:
                for key in self._urgent:
                    pipeline.llen(key)
                return any(pipeline.execute())
        except redis.RedisError:
            return True
