"""Sends clicks to a worker and waits for the answer."""

from __future__ import annotations

import redis
from redis import Redis
from rq import Queue
from rq.results import Result
from rq.serializers import JSONSerializer

from refcut_backend.errors import ClickTimeoutError, QueueUnavailableError, RefCutError
from refcut_backend.jobs.click_job import CLICK_FUNCTION, CLICK_QUEUE, ClickAnswer, ClickJob

RESULT_TTL_S = 30


class ClickQueue:
    """The rq queue of clicks. Jobs and answers are JSON: a pickle in Redis is never loaded."""

    def __init__(self, connection: Redis, timeout_s: int) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._queue = Queue(CLICK_QUEUE, connection=connection, serializer=JSONSerializer)

    def ask(self, job: ClickJob) -> ClickAnswer:
        """The worker's answer. Raises ClickTimeoutError or QueueUnavailableError when there is none in time."""
        try:
            queued = self._queue.enqueue_call(
                CLICK_FUNCTION,
                args=(job.to_json(),),
                timeout=self._timeout_s,
                ttl=self._timeout_s + RESULT_TTL_S,
                result_ttl=RESULT_TTL_S,
                failure_ttl=RESULT_TTL_S,
            )
            result = queued.latest_result(timeout=self._timeout_s)
            if result is None:
                queued.delete()
        except redis.RedisError as error:
            raise QueueUnavailableError(
                f"Redis cannot be reached ({type(error).__name__})",
                hint="check that Redis runs, and REFCUT_REDIS_URL",
            ) from error
        if result is None:
            raise ClickTimeoutError(
                f"no worker answered within {self._timeout_s} s",
                hint="check that a worker runs; REFCUT_CLICK_TIMEOUT_S sets the limit",
            )
        if result.type != Result.Type.SUCCESSFUL or result.return_value is None:
            raise RefCutError("the worker failed on this click", hint="the worker's log has the traceback")
        return ClickAnswer.from_json(result.return_value)

    def is_reachable(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(self._connection.ping())
        except redis.RedisError:
            return False
