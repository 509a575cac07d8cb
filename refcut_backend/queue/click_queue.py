"""Sends clicks to a worker and waits for the answer. The newest click of an object replaces older ones that still wait.

A click whose turn would come too late is refused (`admission`), and every wait ends by its deadline with a reason.
`reply_queue` has the part that recovers from dead workers and an emptied Redis.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import redis
from redis import Redis
from redis.client import Pipeline
from rq.job import Job
from rq.results import Result
from rq.serializers import JSONSerializer

from refcut_backend.errors import (
    TOO_SLOW,
    BusyError,
    ClickTimeoutError,
    QueueUnavailableError,
    RefCutError,
    SupersededError,
    WorkerStartingError,
)
from refcut_backend.queue.admission import Admission, AdmissionRequest, Decision
from refcut_backend.queue.heartbeats import living_workers
from refcut_backend.queue.messages import ClickAnswer, ClickJob, is_first_click
from refcut_backend.queue.queue_state import ANSWERED, count_outcome
from refcut_backend.queue.redis import report_outage
from refcut_backend.queue.reply_queue import RESULT_TTL_S, ReplyQueue
from refcut_backend.queue.rq_jobs import CLICK_FUNCTION, CLICK_QUEUE, job_key, read_text

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
        limit: Highest number of clicks that may wait at once; fewer if their turn would come too late.
        longest_wait_s: Longest time in seconds that a click waits for its turn (`admission`).
    """

    def __init__(self, connection: Redis, timeout_s: int, limit: int, longest_wait_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._limit = limit
        self._queue = ReplyQueue(connection, CLICK_QUEUE, CLICK_FUNCTION, timeout_s, timeout_s + RESULT_TTL_S)
        self._admission = Admission(self._queue.key, timeout_s, limit, longest_wait_s)

    def ask(self, job: ClickJob) -> ClickAnswer:
        """Send a click and wait for the worker's answer.

        Returns:
            The mask, or the reason why the worker has none.

        Raises:
            BusyError: If the workers could not answer it in time, because too many clicks wait.
            SupersededError: If a newer click on the same object replaces it.
            ClickTimeoutError: If no worker answers by the deadline.
            WorkerStartingError: If none does, and one is loading its model.
            WorkerLostError: If the worker dies while it holds the click. The click is not computed again.
            MessageError: If the answer cannot be read.
            QueueUnavailableError: If Redis cannot be reached.
        """
        click_id = uuid4().hex
        deadline = time.monotonic() + self._timeout_s
        with report_outage():
            self._send(job, click_id, self._timeout_s)
        try:
            with report_outage():
                answer = self._wait(job, click_id, deadline)
        except QueueUnavailableError:
            raise  # Redis is away: clearing up would only wait for it once more
        except RefCutError as error:
            self._finish(job, click_id, error.code)
            raise
        self._finish(job, click_id, answer.error_code or ANSWERED)
        return answer

    def _send(self, job: ClickJob, click_id: str, claim_s: float, *, is_forced: bool = False) -> None:
        """Queues the click, or refuses it, all at once or not at all; then answers older clicks."""
        unanswered_key, payload = _unanswered_key(job), job.to_json()

        def enter(pipeline: Pipeline) -> None:
            stored = pipeline.hgetall(unanswered_key)
            unanswered = {read_text(key): _dots(ids) for key, ids in stored.items()}
            unanswered.pop(click_id, None)
            request = AdmissionRequest(
                click_id,
                f"{job.project_id}:{job.task_id}",
                unanswered_key,
                json.dumps(job.click_ids),
                is_first_click(payload),
                claim_s,
                is_forced,
                older_clicks(job.click_ids, unanswered),
            )
            pipeline.multi()
            self._queue.add(pipeline, click_id, payload)
            self._admission.enter(pipeline, request, job_key(click_id))

        results: Any = self._connection.transaction(enter, unanswered_key)
        decision = Admission.read(results[-1])
        if not decision.is_admitted:
            with self._connection.pipeline() as pipeline:
                count_outcome(pipeline, BusyError.code)
                pipeline.execute()
            raise self._busy(decision)
        if decision.superseded:
            self._answer_superseded(decision.superseded)

    def _busy(self, decision: Decision) -> BusyError:
        if not decision.waiting:
            return BusyError(
                f"all workers are busy with slow clicks: an answer would take about {decision.wait_s:.1f} s, "
                f"and {self._timeout_s} s are the limit",
                hint="click again; if this happens often, start more workers or raise REFCUT_CLICK_TIMEOUT_S",
            )
        wait = "" if decision.wait_s is None else f", about {decision.wait_s:.1f} s of work"
        is_full = decision.waiting >= self._limit
        return BusyError(
            f"{decision.waiting} {'clicks wait' if decision.waiting > 1 else 'click waits'} already{wait}",
            hint="start more workers; "
            + ("REFCUT_CLICK_QUEUE_LIMIT" if is_full else "REFCUT_CLICK_QUEUE_WAIT_S")
            + " is the upper limit",
        )

    def _answer_superseded(self, click_ids: Collection[str]) -> None:
        """Wakes the callers of older clicks; without it they would look for themselves a little later."""
        with self._connection.pipeline() as pipeline:
            for click_id in click_ids:
                Result.create(
                    Job(click_id, self._connection, serializer=JSONSerializer),
                    Result.Type.SUCCESSFUL,
                    RESULT_TTL_S,
                    return_value=ClickAnswer.refused(_SUPERSEDED).to_json(),
                    pipeline=pipeline,
                )
            pipeline.execute()

    def _wait(self, job: ClickJob, click_id: str, deadline: float) -> ClickAnswer:
        def send_again(left_s: float) -> None:
            self._send(job, click_id, left_s, is_forced=True)

        payload = self._queue.wait(click_id, deadline, send_again)
        if payload is None:
            raise self._too_late(click_id)
        return ClickAnswer.from_json(payload)

    def _too_late(self, click_id: str) -> RefCutError:
        """Why the deadline passed: clicks before it took longer than measured, its worker is too slow, or none works."""
        workers = [one for one in living_workers(self._connection) if CLICK_QUEUE in one.queues]
        if workers and not any(worker.ready for worker in workers):
            return WorkerStartingError(
                f"the worker is starting, and has loaded no model within {self._timeout_s} s",
                hint="click again in a moment",
            )
        if not workers:
            return ClickTimeoutError(
                f"no worker answered within {self._timeout_s} s",
                hint="check that a worker runs; REFCUT_CLICK_TIMEOUT_S sets the limit",
            )
        if self._connection.lpos(self._queue.key, click_id) is not None:
            return BusyError(
                f"its turn did not come within {self._timeout_s} s", hint="click again, or start more workers"
            )
        return ClickTimeoutError(f"a worker runs and was not done within {self._timeout_s} s", hint=TOO_SLOW)

    def _finish(self, job: ClickJob, click_id: str, outcome: str) -> None:
        """Removes every trace of the click and counts it. What cannot be removed now expires by itself."""
        with suppress(redis.RedisError), self._connection.pipeline() as pipeline:
            self._queue.forget(pipeline, click_id)
            pipeline.hdel(_unanswered_key(job), click_id)
            count_outcome(pipeline, outcome)
            pipeline.execute()


def _dots(stored: bytes | str) -> list[str]:
    """Ids of the dots of an unanswered click; none if somebody else has written there."""
    with suppress(ValueError):
        ids = json.loads(stored)
        if isinstance(ids, list):
            return [one for one in ids if isinstance(one, str)]
    return []


def _unanswered_key(job: ClickJob) -> str:
    return f"refcut:unanswered:{job.project_id}:{job.task_id}"
