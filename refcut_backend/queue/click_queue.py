"""Sends clicks to a worker and waits for the answer. The newest click of an object replaces older ones that still wait.

Too many waiting clicks are refused, and every wait ends by its deadline with a reason. `reply_queue` has the part that
recovers from dead workers and an emptied Redis.
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
)
from refcut_backend.queue import claims
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.queue.queue_state import count_outcome, read_queue_state
from refcut_backend.queue.redis import report_outage
from refcut_backend.queue.reply_queue import RESULT_TTL_S, ReplyQueue
from refcut_backend.queue.rq_jobs import CLICK_FUNCTION, CLICK_QUEUE

ANSWERED = "answered"
"""Outcome of a click that got a mask, for the counts in `queue_state`."""
_SUPERSEDED = SupersededError("a newer click on the same object came in")


def older_clicks(newest_ids: Iterable[str], unanswered: Mapping[str, Collection[str]]) -> list[str]:
    """Find the unanswered clicks that a newer click of the same object supersedes.

    Label Studio names neither user nor object. Every request repeats the dots that are still on the canvas, and a browser
    draws ids at random: two requests that share an id come from one annotator and ask for one object; two requests that
    share none never concern each other. A dragged dot keeps its id.

    Args:
        newest_ids: Ids of the dots of the newer click.
        unanswered: For every earlier click on the same task, the ids of its dots.

    Returns:
        Keys of `unanswered`, in its order.
    """
    ids = frozenset(newest_ids)
    return [key for key, others in unanswered.items() if not ids.isdisjoint(others)]


class ClickQueue:
    """The queue of clicks, for any number of web processes on one Redis.

    Args:
        connection: Connection of the web process, with enough connections for all of its waiting callers.
        timeout_s: Deadline of a click in seconds, waiting and computing together.
        limit: Number of clicks that may wait at once.
    """

    def __init__(self, connection: Redis, timeout_s: int, limit: int) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._limit = limit
        self._queue = ReplyQueue(connection, CLICK_QUEUE, CLICK_FUNCTION, timeout_s, timeout_s + RESULT_TTL_S)

    def ask(self, job: ClickJob) -> ClickAnswer:
        """Send a click and wait for the worker's answer.

        Returns:
            The mask, or the reason why the worker has none (`superseded` is one of the reasons).

        Raises:
            BusyError: If too many clicks wait already.
            ClickTimeoutError: If no worker answers by the deadline.
            WorkerLostError: If the worker dies while it holds the click. The click is not computed again.
            QueueUnavailableError: If Redis cannot be reached.
        """
        click_id = uuid4().hex
        deadline = time.monotonic() + self._timeout_s
        try:
            with report_outage():
                self._send(job, click_id, self._timeout_s)
                answer = self._wait(job, click_id, deadline)
        except QueueUnavailableError:
            raise  # Redis is away: clearing up would only wait for it once more
        except RefCutError as error:
            self._finish(job, click_id, error.code)
            raise
        self._finish(job, click_id, answer.error_code or ANSWERED)
        return answer

    def _send(self, job: ClickJob, click_id: str, claim_s: float) -> None:
        """Queues the click and removes older ones on its object, all at once or not at all."""
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
            self._queue.add(pipeline, click_id, job.to_json(), claim_s)

        self._connection.transaction(replace, unanswered_key)

    def _supersede(self, pipeline: Pipeline, click_id: str) -> None:
        """Keeps a waiting click from being computed, and wakes its caller in any case."""
        claims.supersede(pipeline, click_id)
        self._queue.remove(pipeline, click_id)
        Result.create(
            Job(click_id, self._connection, serializer=JSONSerializer),
            Result.Type.SUCCESSFUL,
            RESULT_TTL_S,
            return_value=ClickAnswer.refused(_SUPERSEDED).to_json(),
            pipeline=pipeline,
        )

    def _wait(self, job: ClickJob, click_id: str, deadline: float) -> ClickAnswer:
        payload = self._queue.wait(click_id, deadline, lambda left_s: self._send(job, click_id, left_s))
        if payload is None:
            raise ClickTimeoutError(
                f"no worker answered within {self._timeout_s} s",
                hint="check that a worker runs; REFCUT_CLICK_TIMEOUT_S sets the limit",
            )
        return ClickAnswer.from_json(payload)

    def _finish(self, job: ClickJob, click_id: str, outcome: str) -> None:
        """Removes every trace of the click and counts it. What cannot be removed now expires by itself."""
        with suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            self._queue.forget(pipeline, click_id)
            pipeline.hdel(_unanswered_key(job), click_id)
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


def _unanswered_key(job: ClickJob) -> str:
    return f"refcut:unanswered:{job.project_id}:{job.task_id}"
