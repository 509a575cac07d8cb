"""The rq worker of this program: claims what somebody waits for before computing it, and ends what takes too long."""

from __future__ import annotations

import faulthandler
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

import redis
from redis import Redis
from redis.client import Pipeline
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty
from rq.worker import WorkerStatus

from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import Heartbeat
from refcut_backend.queue.rq_jobs import CLICK_QUEUE, PRELABEL_QUEUE, RegisteredJob, open_queue

log = logging.getLogger("refcut.worker")

HANG_GRACE_S = 1
HEARTBEAT_EVERY_S = 1.0
RQ_TTL_S = 20
"""rq waits for a job this long less 15 s before it looks around, and 10 s more for a connection that is silent."""


class FirmDeathPenalty(UnixSignalDeathPenalty):
    """rq's alarm raises in Python code. A hang in C never gets there: a moment later the whole process ends, by a thread
    in C that needs no interpreter lock, with every thread's traceback on stderr. Whoever watches the worker replaces it.
    """

    def setup_death_penalty(self) -> None:
        """Arms both."""
        super().setup_death_penalty()  # type: ignore[no-untyped-call]
        if self._timeout > 0:
            faulthandler.dump_traceback_later(self._timeout + HANG_GRACE_S, exit=True)

    def cancel_death_penalty(self) -> None:
        """Disarms both."""
        faulthandler.cancel_dump_traceback_later()
        super().cancel_death_penalty()  # type: ignore[no-untyped-call]


class JobWorker(SimpleWorker):
    """Works in its own process, without forking (CUDA would not survive it), until told to stop or worn out.

    stop_requested: set at SIGTERM or SIGINT. is_worn_out: asked after every job; true ends the worker.
    """

    death_penalty_class = FirmDeathPenalty
    max_connection_wait_time = 2.0

    def __init__(
        self,
        queues: Sequence[str],
        connection: Redis,
        heartbeat: Heartbeat,
        stop_event: threading.Event,
        needs_restart: Callable[[], bool],
    ) -> None:
        super().__init__(
            [open_queue(name, connection) for name in queues],
            connection=connection,
            serializer=JSONSerializer,
            job_class=RegisteredJob,
            worker_ttl=RQ_TTL_S,
            log_job_description=False,
        )
        self._worker_heartbeat = heartbeat
        self._stop_event = stop_event
        self._needs_restart = needs_restart
        self._next_heartbeat = -math.inf

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Runs the job; one that somebody waits for only if this worker gets hold of it: nothing is said of others."""
        self._state = WorkerStatus.BUSY  # from here on a signal to stop waits for the job's end
        left_s = self._claim(job, queue) if queue.name in (CLICK_QUEUE, PRELABEL_QUEUE) else math.inf
        if left_s is not None and queue.name == CLICK_QUEUE:
            self._execute_click(job, left_s)
        elif left_s is not None:
            super().execute_job(job, queue)
        if self._needs_restart():
            self._stop_requested = True

    def _execute_click(self, job: Job, left_s: float) -> None:
        """No longer than its caller waits, and without what rq writes down of a job around it (executions, registries,
        dependents: five more rounds to Redis): the ticket tells who holds a click, and its caller looks after it.
        """
        started = time.monotonic()
        outcome, answer = Result.Type.SUCCESSFUL, None
        try:
            with FirmDeathPenalty(  # type: ignore[no-untyped-call]
                max(math.ceil(left_s), 1), JobTimeoutException, job_id=job.id
            ):
                answer = job.perform()
        except Exception:
            outcome = Result.Type.FAILED
            self.handle_exception(job, *sys.exc_info())
        with self.connection.pipeline() as pipeline:
            kept_s = job.get_result_ttl(self.default_result_ttl)
            Result.create(job, outcome, kept_s, return_value=answer, pipeline=pipeline)
            pipeline.delete(job.key)
            pipeline.execute()
        self._worker_heartbeat.took(time.monotonic() - started)

    def _claim(self, job: Job, queue: Queue) -> float | None:
        """Seconds that it is waited for, None when it is not this worker's. Its holder is known to live before it is
        known.
        """
        with self.connection.pipeline() as pipeline:
            self._worker_heartbeat.beat(pipeline)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            claims.claim(pipeline, job.id, self._worker_heartbeat.name)
            return claims.seconds_left(pipeline.execute()[-1])

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """rq's, which asks Redis three times, four times a job: in one go, and once in a while."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
            return
        if timeout is None and time.monotonic() < self._next_heartbeat:
            return
        with self.connection.pipeline() as own:
            super().heartbeat(timeout, own)
            own.execute()
        self._next_heartbeat = time.monotonic() + HEARTBEAT_EVERY_S

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT: the job in hand is finished first."""
        self._stop_event.set()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def set_shutdown_requested_date(self) -> None:
        """Bookkeeping of rq, from a signal's handler: Redis being away must not fail the job in hand."""
        with suppress(redis.RedisError):
            super().set_shutdown_requested_date()  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """rq would listen for commands (stop, kill) that anyone who reaches Redis may send. Signals do that here."""

    def handle_exception(
        self,
        job: Job,
        *exc_info: type[BaseException] | BaseException | TracebackType | None,
    ) -> None:
        """One line without the job's arguments, which rq would print: an image's address may hold a signature."""
        failure: Any = exc_info
        log.error("a job failed", extra={"job": job.id, "queue": job.origin}, exc_info=failure)
