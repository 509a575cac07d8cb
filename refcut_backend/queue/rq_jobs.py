"""The queues in Redis, the functions that jobs may name, and jobs read safely: JSON only, registered functions only.

Open this file to add a queue or a job function. Anyone who can write to Redis could otherwise make a worker import any
function (as a job or as one of rq's callbacks), load a pickle, or have rq's webhooks call any address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import import_attribute

from refcut_backend.errors import ConfigError, MessageError, RefCutError, RefusedJobError

log = logging.getLogger("refcut.jobs")

CLICK_QUEUE = "clicks"
PRELOAD_QUEUE = "warm"
AHEAD_QUEUE = "ahead"
PRELABEL_QUEUE = "prelabel"
MEASURE_QUEUE = "measure"
TRAINING_QUEUE = "training"

CLICK_FUNCTION = "refcut_backend.inference.jobs.run_click"
PRELOAD_FUNCTION = "refcut_backend.inference.jobs.run_preload"
PRELABEL_FUNCTION = "refcut_backend.inference.jobs.run_prelabel"
MEASURE_FUNCTION = "refcut_backend.inference.jobs.run_measure"
TRAINING_FUNCTION = "refcut_backend.training.worker.run_training_job"

FUNCTIONS: dict[str, frozenset[str]] = {
    CLICK_QUEUE: frozenset({CLICK_FUNCTION}),
    PRELOAD_QUEUE: frozenset({PRELOAD_FUNCTION}),
    AHEAD_QUEUE: frozenset({PRELOAD_FUNCTION}),
    PRELABEL_QUEUE: frozenset({PRELABEL_FUNCTION}),
    MEASURE_QUEUE: frozenset({MEASURE_FUNCTION}),
    TRAINING_QUEUE: frozenset({TRAINING_FUNCTION}),
}
"""Queue to the functions of its jobs. A worker looks for work in this order of queues."""

RENAMED_FUNCTIONS = {
    "refcut_backend.worker.run_click.run_click": CLICK_FUNCTION,
    "refcut_backend.worker.run_warm.run_warm": PRELOAD_FUNCTION,
    "refcut_backend.worker.run_prelabel.run_prelabel": PRELABEL_FUNCTION,
    "refcut_backend.training.training_job.run_training_job": TRAINING_FUNCTION,
}
"""Names that version 0.1.0 wrote into Redis, and what runs such a job today. Dropped with the release after the next."""

MODEL_QUEUES = (CLICK_QUEUE, PRELOAD_QUEUE, AHEAD_QUEUE, PRELABEL_QUEUE, MEASURE_QUEUE)
"""What a worker serves by default. These queues need the serving model; training has a process of its own."""
CLAIMED_QUEUES = frozenset({PRELABEL_QUEUE, MEASURE_QUEUE})
"""Queues whose jobs a worker claims, as it claims clicks: their callers wait for the answer."""


class JobTimeoutError(JobTimeoutException):
    """A job ran longer than it may.

    The worker raises it inside the job, from an alarm, so caches may be left half changed.
    """


def read_queue_names(text: str) -> tuple[str, ...]:
    """Read the queues that a worker is to serve, for `--queues`.

    Args:
        text: Names separated by commas, in any order.

    Returns:
        The names, most urgent queue first.

    Raises:
        ConfigError: If a name is unknown, none is given, or training is combined with another queue.
    """
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = wanted - FUNCTIONS.keys()
    if unknown or not wanted:
        raise ConfigError(
            f"no such queue: {', '.join(sorted(unknown)) or 'none was named'}",
            hint=f"choose from {', '.join(FUNCTIONS)}",
        )
    if TRAINING_QUEUE in wanted and len(wanted) > 1:
        raise ConfigError(
            "training takes hours and would hold up clicks", hint="give training a worker of its own"
        )
    return tuple(name for name in FUNCTIONS if name in wanted)


class RegisteredJob(Job):
    """A job that can only call a function in `FUNCTIONS`, without callbacks and webhooks."""

    @classmethod
    def fetch(cls, id: str, *args: Any, **more: Any) -> RegisteredJob:  # noqa: A002 - rq's own name
        """Read a job from Redis.

        Raises:
            NoSuchJobError: If the job is missing, unreadable, or its id is not one that rq gives.
        """
        try:
            return super().fetch(id, *args, **more)  # type: ignore[no-any-return, return-value, unused-ignore]
        except ValueError as error:
            raise NoSuchJobError("a job has an id that rq does not give") from error

    def restore(self, raw_data: Any) -> None:
        """Read the job's fields from Redis.

        Raises:
            NoSuchJobError: If the job is missing or unreadable. rq skips such a job; other errors end the worker.
        """
        try:
            super().restore(raw_data)
        except NoSuchJobError:
            raise
        except Exception as error:
            log.warning("unreadable job", extra={"job": self.id, "problem": type(error).__name__})
            raise NoSuchJobError(f"job {self.id} cannot be read") from None
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []

    @property
    def func(self) -> Callable[..., Any]:
        """The registered function that the job names, by today's name or by the one of version 0.1.0.

        Raises:
            RefusedJobError: If the job names any other function, or a method.
            DeserializationError: If the job's data is not JSON.
        """
        name = self.func_name
        if isinstance(name, str):
            name = RENAMED_FUNCTIONS.get(name, name)
        if self.instance is not None or not any(name in names for names in FUNCTIONS.values()):
            raise RefusedJobError(
                f"no registered function: {str(name)[:100]}", hint="see refcut_backend/queue/rq_jobs.py"
            )
        function: Callable[..., Any] = import_attribute(str(name))
        return function


class JobQueue(Queue):
    """A queue whose list may hold anything, because anyone who reaches Redis can write there."""

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """Return ids of waiting jobs; `length` of -1 means all. Bytes that are no text become replacement marks."""
        if length == 0:
            return []
        end = offset + length - 1 if length > 0 else length
        return [read_text(job_id) for job_id in self.connection.lrange(self.key, offset, end)]


def read_text(value: bytes | str) -> str:
    """Decode text of Redis, whatever it is."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def open_queue(name: str, connection: Redis) -> JobQueue:
    """Open a queue, for senders and for workers. Jobs and answers are JSON: a pickle in Redis is never loaded."""
    return JobQueue(name, connection=connection, serializer=JSONSerializer, job_class=RegisteredJob)


def job_key(job_id: str) -> str:
    """Return the Redis key under which rq stores a job."""
    return str(read_text(Job.key_for(job_id)))


def results_key(job_id: str) -> str:
    """Return the Redis key under which rq stores the results of a job."""
    return str(Result.get_key(job_id))  # type: ignore[no-untyped-call]


def read_result(connection: Redis, job_id: str, wait_s: float) -> Any:
    """Wait for the first result of a job.

    Args:
        connection: Redis connection; it blocks for up to `wait_s`.
        job_id: The rq job.
        wait_s: Longest wait in seconds. At 0 it still waits for one millisecond.

    Returns:
        The result as the job's function returned it, JSON of any form; None if there is none yet.

    Raises:
        MessageError: If the result cannot be read.
        RefCutError: If the job failed.
        redis.RedisError: If Redis cannot be reached.
    """
    block_ms = max(round(1000 * wait_s), 1)
    found: Any = connection.xread({results_key(job_id): "0-0"}, count=1, block=block_ms)
    if not found:
        return None
    try:
        ((_, ((result_id, payload),)),) = found
        result = Result.restore(job_id, read_text(result_id), payload, connection, JSONSerializer)
    except Exception as error:  # whatever rq meets in a result that it has not written
        log.warning("unreadable result", extra={"job": job_id, "problem": type(error).__name__})
        raise MessageError(
            "the result of a job in Redis cannot be read", hint="find out who else writes to this Redis"
        ) from None
    if result.type != Result.Type.SUCCESSFUL or result.return_value is None:
        raise RefCutError("the worker failed on this job", hint="the worker's log has the traceback")
    return result.return_value
