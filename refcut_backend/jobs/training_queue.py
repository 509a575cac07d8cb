"""Hands trainings to a training worker. What there is to do stands in the database: a job is only its number."""

from __future__ import annotations

from redis import Redis

from refcut_backend.jobs.functions import TRAINING_FUNCTION, TRAINING_QUEUE
from refcut_backend.jobs.registered_job import open_queue

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
