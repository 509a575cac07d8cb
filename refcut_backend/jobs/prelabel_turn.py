"""Whose turn it is, for a worker that looks at a task nobody has clicked on."""

from __future__ import annotations

import redis
from redis import Redis

from refcut_backend.jobs.functions import CLICK_QUEUE, WARM_QUEUE
from refcut_backend.jobs.registered_job import open_queue


class Turn:
    """Of a worker on this Redis."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._urgent = [open_queue(name, connection).key for name in (CLICK_QUEUE, WARM_QUEUE)]

    def is_over(self) -> bool:
        """Whether a click waits, or a task that was just opened; true as well when Redis cannot say."""
        try:
            with self._connection.pipeline() as pipeline:
                for key in self._urgent:
                    pipeline.llen(key)
                return any(pipeline.execute())
        except redis.RedisError:
            return True
