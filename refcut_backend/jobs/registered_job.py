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
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from refcut_backend.errors import RefusedJobError
from refcut_backend.jobs.functions import FUNCTIONS

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
                f"no registered function: {str(name)[:100]}", hint="see refcut_backend/jobs/functions.py"
            )
        function: Callable[..., Any] = import_attribute(str(name))
        return function


def open_queue(name: str, connection: Redis) -> Queue:
    """The rq queue of that name, at either end. Jobs and answers are JSON: a pickle in Redis is never loaded."""
    return Queue(name, connection=connection, serializer=JSONSerializer, job_class=RegisteredJob)
