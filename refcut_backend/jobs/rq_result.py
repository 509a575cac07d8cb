"""Waits for what a worker has to say about one job, on the job's own stream of results."""

from __future__ import annotations

from typing import Any

from redis import Redis
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import as_text

from refcut_backend.errors import RefCutError


def results_key(job_id: str) -> str:
    """Where rq keeps a job's results."""
    return str(Result.get_key(job_id))  # type: ignore[no-untyped-call]


def read_result(connection: Redis, job_id: str, wait_s: float) -> dict[str, Any] | None:
    """The first result that arrives within the time; None when there is none.

    Raises RefCutError when the job failed, redis.RedisError when Redis cannot be reached.
    """
    block_ms = max(round(1000 * wait_s), 1)
    found: Any = connection.xread({results_key(job_id): "0-0"}, count=1, block=block_ms)
    if not found:
        return None
    ((_, ((result_id, payload),)),) = found
    result = Result.restore(job_id, as_text(result_id), payload, connection, JSONSerializer)
    if result.type != Result.Type.SUCCESSFUL or result.return_value is None:
        raise RefCutError("the worker failed on this job", hint="the worker's log has the traceback")
    value: dict[str, Any] = result.return_value
    return value
