"""Sends clicks to a worker and waits for the answer, whatever becomes of worker or Redis meanwhile.

The newest click of an object wins, too many are refused, and every wait ends at its deadline with a reason.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from uuid import uuid4

import redis
from redis import Redis
from redis.client import Pipeline
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.utils import as_text

from refcut_backend.errors import (
    BusyError,
    ClickTimeoutError,
    QueueUnavailableError,
    RefCutError,
    SupersededError,
    WorkerLostError,
)
from refcut_backend.queue import claims
from refcut_backend.queue.heartbeats import is_alive
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.queue.queue_state import QueueState, count_outcome, read_queue_state
from refcut_backend.queue.rq_jobs import CLICK_FUNCTION, CLICK_QUEUE, open_queue, read_result, results_key


def older_clicks(newest_ids: Iterable[str], unanswered: Mapping[str, Collection[str]]) -> list[str]:
    """Keys of the unanswered clicks that a newer click of the same object supersedes.

    newest_ids: ids of the dots of the newer click. unanswered: the dots' ids of every earlier click on the same task.
    Label Studio names no user and no object. Every request repeats the dots that are still on the canvas, and a browser
    draws ids at random: two requests that share an id come from one annotator and ask for one object, two that share none
    never concern each other. A dragged dot keeps its id.
    """
    ids = frozenset(newest_ids)
    return [key for key, others in unanswered.items() if not ids.isdisjoint(others)]


RESULT_TTL_S = 30
LOOK_EVERY_S = 0.25
"""How often a waiting caller looks whether its click is still where it should be."""
ANSWERED = "answered"
_SUPERSEDED = SupersededError("a newer click on the same object came in")


class ClickQueue:
    """The rq queue of clicks, for any number of web processes on one Redis.

    timeout_s: deadline of a click, waiting and computing together. limit: clicks that may wait at once.
    """

    def __init__(self, connection: Redis, timeout_s: int, limit: int) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._limit = limit
        self._queue = open_queue(CLICK_QUEUE, connection)

    def ask(self, job: ClickJob) -> ClickAnswer:
        """The worker's answer, or why there is no mask (`superseded` among the reasons).

        Raises BusyError, ClickTimeoutError, WorkerLostError or QueueUnavailableError when no worker answers.
        """
        click_id = uuid4().hex
        deadline = time.monotonic() + self._timeout_s
        try:
            self._send(job, click_id, self._timeout_s)
            answer = self._wait(job, click_id, deadline)
            self._finish(job, click_id, answer.error_code or ANSWERED)
            return answer
        except RefCutError as error:
            self._finish(job, click_id, error.code)
            raise
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def state(self) -> QueueState:
        """How the queue stands now, over all web processes and workers. Raises QueueUnavailableError."""
        try:
            return read_queue_state(self._connection)
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def is_reachable(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(self._connection.ping())
        except redis.RedisError:
            return False

    def _send(self, job: ClickJob, click_id: str, lasts_s: float) -> None:
        """Puts the click on the queue in the place of older ones on its object, all at once or not at all."""
        unanswered_key = _unanswered_key(job)

        def replace(pipeline: Pipeline) -> None:
            stored = pipeline.hgetall(unanswered_key)
            unanswered = {as_text(key): json.loads(ids) for key, ids in stored.items()}
            older = older_clicks(job.click_ids, unanswered)
            if not older and pipeline.llen(self._queue.key) >= self._limit:
                raise self._busy()
            pipeline.multi()
            for older_id in older:
                pipeline.hdel(unanswered_key, older_id)
                self._supersede(pipeline, older_id)
            pipeline.hset(unanswered_key, click_id, json.dumps(job.click_ids))
            pipeline.expire(unanswered_key, self._timeout_s + RESULT_TTL_S)
            claims.issue(pipeline, click_id, lasts_s)
            self._enqueue(pipeline, job, click_id)

        self._connection.transaction(replace, unanswered_key)

    def _enqueue(self, pipeline: Pipeline, job: ClickJob, click_id: str) -> None:
        self._queue.enqueue_call(
            CLICK_FUNCTION,
            args=(job.to_json(),),
            timeout=self._timeout_s,
            ttl=self._timeout_s + RESULT_TTL_S,
            result_ttl=RESULT_TTL_S,
            failure_ttl=RESULT_TTL_S,
            description="click",
            job_id=click_id,
            pipeline=pipeline,
        )

    def _supersede(self, pipeline: Pipeline, click_id: str) -> None:
        """The older click is not computed if it still waits; its caller wakes up either way."""
        claims.supersede(pipeline, click_id)
        self._queue.remove(click_id, pipeline=pipeline)
        Result.create(
            Job(click_id, self._connection, serializer=JSONSerializer),
            Result.Type.SUCCESSFUL,
            RESULT_TTL_S,
            return_value=ClickAnswer.refused(_SUPERSEDED).to_json(),
            pipeline=pipeline,
        )

    def _wait(self, job: ClickJob, click_id: str, deadline: float) -> ClickAnswer:
        while (left_s := deadline - time.monotonic()) > 0:
            answer = self._read_answer(click_id, min(left_s, LOOK_EVERY_S))
            if answer is not None:
                return answer
            self._look_after(job, click_id, deadline)
        raise ClickTimeoutError(
            f"no worker answered within {self._timeout_s} s",
            hint="check that a worker runs; REFCUT_CLICK_TIMEOUT_S sets the limit",
        )

    def _read_answer(self, click_id: str, wait_s: float) -> ClickAnswer | None:
        """The first result that arrives within the time."""
        said = read_result(self._connection, click_id, wait_s)
        return None if said is None else ClickAnswer.from_json(said)

    def _look_after(self, job: ClickJob, click_id: str, deadline: float) -> None:
        """Puts the click back where no worker holds it any more; raises WorkerLostError where one was computing it."""
        state = claims.read(self._connection, click_id)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or (state is not None and state.superseded):
            return
        if state is None:
            self._send(job, click_id, left_s)  # Redis was emptied
        elif state.worker is None:
            self._put_back_if_stranded(click_id)
        elif not is_alive(self._connection, state.worker) and self._read_answer(click_id, 0) is None:
            raise WorkerLostError(
                "the worker died while it held the click",
                hint="click again; the worker's log, or the kernel's, says why",
            )

    def _put_back_if_stranded(self, click_id: str) -> None:
        """A worker that was just killed leaves its connection open until the kernel has taken its memory apart (tens of
        milliseconds for a loaded model), and Redis still hands it the next job. Whoever comes first then claims it.
        """
        if self._connection.lpos(self._queue.key, click_id) is None:
            self._queue.intermediate_queue.remove(click_id)
            self._queue.push_job_id(click_id, at_front=True)

    def _finish(self, job: ClickJob, click_id: str, outcome: str) -> None:
        """Leaves nothing of the click behind. What cannot be removed now expires by itself."""
        with suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            claims.withdraw(pipeline, click_id)
            pipeline.hdel(_unanswered_key(job), click_id)
            self._queue.remove(click_id, pipeline=pipeline)
            pipeline.delete(results_key(click_id))
            count_outcome(pipeline, outcome)
            pipeline.execute()

    def _busy(self) -> BusyError:
        state = read_queue_state(self._connection)
        expected = state.expected_wait_s
        wait = "" if expected is None else f", about {expected:.1f} s of work"
        return BusyError(
            f"{state.waiting} clicks wait already{wait}",
            hint="start more workers; REFCUT_CLICK_QUEUE_LIMIT sets the limit",
        )


def _unavailable(error: redis.RedisError) -> QueueUnavailableError:
    return QueueUnavailableError(
        f"Redis cannot be reached ({type(error).__name__})",
        hint="check that Redis runs, and REFCUT_REDIS_URL",
    )


def _unanswered_key(job: ClickJob) -> str:
    return f"refcut:unanswered:{job.project_id}:{job.task_id}"
