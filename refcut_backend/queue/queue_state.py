"""How many clicks wait, for how long, and which workers are alive: for `/readyz`, `/metrics` and refused clicks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from redis import Redis
from redis.client import Pipeline
from rq.utils import now

from refcut_backend.queue.heartbeats import WorkerState, living_workers
from refcut_backend.queue.messages import known_code
from refcut_backend.queue.redis import report_outage
from refcut_backend.queue.rq_jobs import CLICK_QUEUE, TRAINING_QUEUE, open_queue, read_text

ANSWERED = "answered"
"""Outcome of a click that got a mask."""
_COUNTS = "refcut:click-outcomes"
_PROBE = "refcut:writable"


@dataclass(frozen=True)
class QueueState:
    """State of the click queue and of the workers, over all web processes on one Redis.

    Attributes:
        waiting: Clicks that no worker has taken yet.
        oldest_waiting_s: Seconds that the first of them has waited; 0 if none waits.
        workers: Every living worker on this Redis.
        outcomes: Number of clicks by outcome: `answered` or the reason code (`busy`, `superseded`, `timeout`, ...),
            counted since Redis was last emptied.
    """

    waiting: int
    oldest_waiting_s: float
    workers: tuple[WorkerState, ...]
    outcomes: dict[str, int]

    @property
    def ready_workers(self) -> int:
        """Number of workers that take clicks now."""
        return len(self._click_workers())

    @property
    def expected_wait_s(self) -> float | None:
        """Seconds until a further click would be answered.

        None if no worker is ready or none has measured a click yet.
        """
        ready = self._click_workers()
        measured = [worker.click_s for worker in ready if worker.click_s is not None]
        if not measured:
            return None
        return (self.waiting + 1) * sum(measured) / len(measured) / len(ready)

    @property
    def training_workers(self) -> int:
        """Number of workers that train, or would if there were something to train."""
        return sum(worker.takes(TRAINING_QUEUE) for worker in self.workers)

    def _click_workers(self) -> list[WorkerState]:
        return [worker for worker in self.workers if worker.takes(CLICK_QUEUE)]


@report_outage()
def read_queue_state(connection: Redis) -> QueueState:
    """Read the state now. It also writes a key for a second: a Redis that cannot be written takes no click.

    Raises:
        QueueNotWritableError: If Redis answers but refuses to write.
        QueueUnavailableError: If Redis cannot be reached.
    """
    connection.set(_PROBE, "1", ex=1)
    queue = open_queue(CLICK_QUEUE, connection)
    first = queue.get_job_ids(0, 1)
    job = queue.fetch_job(first[0]) if first else None
    age = (now() - job.enqueued_at).total_seconds() if job and job.enqueued_at else 0.0
    counted = connection.hgetall(_COUNTS)
    return QueueState(
        waiting=queue.count,
        oldest_waiting_s=max(age, 0.0),
        workers=tuple(living_workers(connection)),
        outcomes=dict(_counts(counted)),
    )


def _counts(stored: Mapping[bytes | str, bytes | str]) -> Iterator[tuple[str, int]]:
    """Counts of known outcomes; anything else in Redis was written by somebody else, or by a later version."""
    for name, number in stored.items():
        outcome = read_text(name)
        with suppress(ValueError):
            if outcome == ANSWERED or known_code(outcome) == outcome:
                yield outcome, int(number)


def count_outcome(pipeline: Pipeline, outcome: str) -> None:
    """Count one more click that ended this way: `answered` or a reason code."""
    pipeline.hincrby(_COUNTS, outcome, 1)
