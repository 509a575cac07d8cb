"""The rq worker of this program. It claims a click before it computes it, and ends jobs that take too long.

    rq takes a job id from the queue
      |
      v
    clicks, prelabel, measure: claim it - not granted ---> skip: superseded, expired, or another worker has it
      |  (heartbeat and claim in one pipeline, so a claimed job always has a living owner)
      |
      |-- clicks that waited for others: too little time is left ---> refuse them at once (`busy`), compute nothing
      v
    clicks: run until the caller's deadline     other queues: run as rq does, until the job's own timeout
      |                                           |
      |  time is up: an alarm raises JobTimeoutError inside the job
      |  one second later, if the job hangs in C code: the whole process ends, and a supervisor starts another
      v                                           v
    store the result  ------------------------->  ask needs_restart(): true ends the worker

rq's own bookkeeping around a click (executions, registries, dependents) is left out: it takes five more round trips
to Redis, and the claim already records who holds the click.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import signal
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
from rq.exceptions import StopRequested
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.timeouts import UnixSignalDeathPenalty
from rq.worker import WorkerStatus

from refcut_backend.errors import BusyError
from refcut_backend.queue import claims
from refcut_backend.queue.claims import Claim
from refcut_backend.queue.heartbeats import UNMEASURED_S, Heartbeat
from refcut_backend.queue.messages import ClickAnswer, is_first_click
from refcut_backend.queue.rq_jobs import (
    CLAIMED_QUEUES,
    CLICK_QUEUE,
    JobTimeoutError,
    RegisteredJob,
    open_queue,
)

log = logging.getLogger("refcut.worker")

HANG_GRACE_S = 1
HEARTBEAT_EVERY_S = 1.0
RQ_TTL_S = 20
"""rq blocks for a job for 15 s less than this, and waits 10 s more for a silent connection."""
REDIS_PAUSE_S = 1.0
NEVER_REFUSED = 0.9
"""A click with this part of its deadline left is begun even if clicks took longer lately: that may have changed."""


class FirmDeathPenalty(UnixSignalDeathPenalty):
    """Time limit for the code in its block: raises JobTimeoutError, and ends the process if that does not help.

    rq's alarm raises in Python code only. If the job hangs in C code, a C thread that needs no interpreter lock ends the
    process a moment later, with every thread's traceback on stderr. The supervisor then starts another worker.

    Args:
        timeout: Limit in seconds; 0 or less means none.
        _exception: What rq asks for; JobTimeoutError is raised instead.
    """

    def __init__(self, timeout: float, _exception: type[Exception] = JobTimeoutError, **more: Any) -> None:
        super().__init__(timeout, JobTimeoutError, **more)  # type: ignore[no-untyped-call]

    def setup_death_penalty(self) -> None:
        """Arm both limits."""
        signal.signal(signal.SIGALRM, self.handle_death_penalty)
        if self._timeout > 0:
            signal.setitimer(signal.ITIMER_REAL, self._timeout)
            faulthandler.dump_traceback_later(self._timeout + HANG_GRACE_S, exit=True)

    def cancel_death_penalty(self) -> None:
        """Disarm both limits."""
        faulthandler.cancel_dump_traceback_later()
        super().cancel_death_penalty()  # type: ignore[no-untyped-call]


class JobWorker(SimpleWorker):
    """Runs jobs in its own process, without forking (CUDA does not survive a fork), until told to stop.

    Args:
        queues: Queue names, most urgent first.
        connection: Connection on which the worker blocks.
        heartbeat: The worker's heartbeat, already running.
        stop_event: Set at SIGTERM or SIGINT, for jobs that end early.
        needs_restart: Asked after every job; true ends the worker.
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
        self._busy_since: float | None = None
        """When the last click was answered, if another one waited: the way to the next one is part of its time."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job. A job that somebody waits for is skipped silently if this worker does not get its claim."""
        self._state = WorkerStatus.BUSY  # from here on a signal to stop waits for the job's end
        if queue.name == CLICK_QUEUE:
            self._execute_click(job, queue)
        elif queue.name not in CLAIMED_QUEUES or self._claim(job, queue).is_granted:
            super().execute_job(job, queue)
        if self._needs_restart():
            self._stop_requested = True

    def _execute_click(self, job: Job, queue: Queue) -> None:
        """Runs a click for no longer than its caller waits, without rq's bookkeeping (see the module)."""
        taken_at = time.monotonic()
        is_first = _is_first(job)
        measured_s = self._worker_heartbeat.expected_s(is_first)
        expected_s = UNMEASURED_S if measured_s is None else measured_s
        # A click that found this worker idle is begun in any case: refusing it would help nobody.
        is_next = self._busy_since is not None
        needed_s = min(measured_s or 0.0, NEVER_REFUSED * float(job.timeout or math.inf)) if is_next else 0.0
        claim = self._claim(job, queue, expected_s=expected_s, needed_s=needed_s)
        if not claim.is_granted:
            return
        if not claim.is_in_time:
            refused = BusyError(
                f"{claim.left_s:.1f} s were left, and clicks take {expected_s:.1f} s",
                hint="start more workers",
            )
            self._answer(job, Result.Type.SUCCESSFUL, ClickAnswer.refused(refused).to_json())
            return
        outcome, answer = Result.Type.SUCCESSFUL, None
        try:
            with FirmDeathPenalty(claim.left_s):
                answer = job.perform()
        except Exception:
            outcome = Result.Type.FAILED
            self.handle_exception(job, *sys.exc_info())
        began_at = taken_at if self._busy_since is None else self._busy_since
        self._worker_heartbeat.record_click(time.monotonic() - began_at, is_first=is_first)
        self._answer(job, outcome, answer)

    def _answer(self, job: Job, outcome: Result.Type, answer: Any) -> None:
        """Stores the result, and with it that this worker is free and how long its clicks take."""
        with self.connection.pipeline() as pipeline:
            ttl_s = job.get_result_ttl(self.default_result_ttl)
            Result.create(job, outcome, ttl_s, return_value=answer, pipeline=pipeline)
            pipeline.delete(job.key)
            claims.release(pipeline, self._worker_heartbeat.name)
            self._worker_heartbeat.beat(pipeline)
            pipeline.llen(open_queue(CLICK_QUEUE, self.connection).key)
            more_wait = pipeline.execute()[-1] > 0
        self._busy_since = time.monotonic() if more_wait else None

    def _claim(self, job: Job, queue: Queue, *, expected_s: float = 0.0, needed_s: float = 0.0) -> Claim:
        """Claims a job. The heartbeat is in the same pipeline, so a claimed job always has a living owner."""
        with self.connection.pipeline() as pipeline:
            self._worker_heartbeat.beat(pipeline)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            claims.claim(
                pipeline,
                job.id,
                self._worker_heartbeat.name,
                expected_s=expected_s,
                needed_s=needed_s,
            )
            return claims.read_claim(pipeline.execute()[-1])

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send rq's own heartbeat at most once per second and in one round trip; rq sends it four times per job."""
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
        """Handle SIGTERM or SIGINT: the current job is finished first."""
        self._stop_event.set()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def set_shutdown_requested_date(self) -> None:
        """Do rq's bookkeeping in the signal handler. If Redis is away, the current job must not fail for it."""
        with suppress(redis.RedisError):
            super().set_shutdown_requested_date()  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """Do not listen for rq's commands (stop, kill): anyone who reaches Redis could send them.

        Signals do that here.
        """

    def handle_exception(
        self,
        job: Job,
        *exc_info: type[BaseException] | BaseException | TracebackType | None,
    ) -> None:
        """Log a failed job without its arguments, which rq would print: an image's URL may contain a signature."""
        failure: Any = exc_info
        log.error("a job failed", extra={"job": job.id, "queue": job.origin}, exc_info=failure)


def _is_first(job: Job) -> bool:
    """Whether the job is the first click of its object; true if its arguments cannot be read."""
    try:
        return is_first_click(job.args[0])
    except Exception:
        return True


def work_until_stopped(make_worker: Callable[[], JobWorker], is_done: Callable[[], bool]) -> None:
    """Run workers one after another until one is stopped.

    rq's worker ends when Redis goes away in the middle of a job. The model stays loaded, and a new worker continues.

    Args:
        make_worker: Makes the next worker.
        is_done: Whether no further worker is to be started.
    """
    pause_s = 0.0
    while not is_done():
        try:
            time.sleep(pause_s)
            make_worker().work(logging_level="WARNING")
        except StopRequested:
            return
        except redis.RedisError as error:
            log.warning("Redis is away, trying again", extra={"problem": type(error).__name__})
        pause_s = REDIS_PAUSE_S
