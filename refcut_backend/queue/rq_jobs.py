"""Jobs as this program reads them from Redis: JSON only, and only functions that are registered.

Whoever can write to Redis could otherwise name any importable function, as a job or as one of rq's callbacks, or have
rq's webhooks call any address.
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
from rq.utils import as_text, import_attribute

from refcut_backend.errors import ConfigError, RefCutError, RefusedJobError

CLICK_QUEUE = "clicks"
PRELOAD_QUEUE = "warm"
PRELABEL_QUEUE = "prelabel"
TRAINING_QUEUE = "training"

CLICK_FUNCTION = "refcut_backend.inference.jobs.run_click"
PRELOAD_FUNCTION = "refcut_backend.inference.jobs.run_preload"
PRELABEL_FUNCTION = "refcut_backend.inference.jobs.run_prelabel"
TRAINING_FUNCTION = "refcut_backend.training.worker.run_training_job"

FUNCTIONS: dict[str, frozenset[str]] = {
    CLICK_QUEUE: frozenset({CLICK_FUNCTION}),
    PRELOAD_QUEUE: frozenset({PRELOAD_FUNCTION}),
    PRELABEL_QUEUE: frozenset({PRELABEL_FUNCTION}),
    TRAINING_QUEUE: frozenset({TRAINING_FUNCTION}),
}
"""Queue to the functions of its jobs. The order is the order in which a worker looks for work."""

MODEL_QUEUES = (CLICK_QUEUE, PRELOAD_QUEUE, PRELABEL_QUEUE)
"""What a worker serves unless told otherwise; these need the model that serves. Training has a process of its own."""


def read_queue_names(text: str) -> tuple[str, ...]:
    """Queue names from a comma separated list, the most urgent one first. Raises ConfigError that names what is wrong."""
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


log = logging.getLogger("refcut.jobs")


class RegisteredJob(Job):
    """A job whose function is one of `FUNCTIONS`, without callbacks and webhooks."""

    def restore(self, raw_data: Any) -> None:
        """Raises NoSuchJobError for what cannot be read: rq passes over it, where other errors end the worker."""
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
        """The registered function. Raises RefusedJobError for any other, DeserializationError for what is not JSON."""
        name = self.func_name
        if self.instance is not None or not any(name in names for names in FUNCTIONS.values()):
            raise RefusedJobError(
                f"no registered function: {str(name)[:100]}", hint="see refcut_backend/queue/rq_jobs.py"
            )
        function: Callable[..., Any] = import_attribute(str(name))
        return function


def open_queue(name: str, connection: Redis) -> Queue:
    """The rq queue of that name, at either end. Jobs and answers are JSON: a pickle in Redis is never loaded."""
    return Queue(name, connection=connection, serializer=JSONSerializer, job_class=RegisteredJob)


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
