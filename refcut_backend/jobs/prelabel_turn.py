"""Whose turn it is, for a worker that looks at a task nobody has clicked on."""

from __future__ import annotations

import redis
from redis import Redis

from refcut_backend.jobs import ticket
from refcut_backend.jobs.functions import CLICK_QUEUE, WARM_QUEUE
from refcut_backend.jobs.registered_job import open_queue


class Turn:
    """worker: the name by which the one who asked can see whether this worker lives."""

    def __init__(self, connection: Redis, worker: str) -> None:
        self._connection = connection
        self._worker = worker
        self._urgent = [open_queue(name, connection).key for name in (CLICK_QUEUE, WARM_QUEUE)]

    def claim(self, name: str) -> bool:
        """Whether somebody still waits for the job with this ticket, and no other worker has it.

        Raises redis.RedisError.
        """
        with self._connection.pipeline() as pipeline:
            ticket.claim(pipeline, name, self._worker)
            return ticket.seconds_left(pipeline.execute()[-1]) is not None

    def is_over(self) -> bool:
        """Whether a click waits, or a task that was just opened; true as well when Redis cannot say."""
        try:
            with self._connection.pipeline() as pipeline:
                for key in self._urgent:
                    pipeline.llen(key)
                return any(pipeline.execute())
        except redis.RedisError:
            return True
