"""How the click queue stands, for `/readyz`, `/metrics` and `/status`."""

from __future__ import annotations

from dataclasses import dataclass

from redis import Redis
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from refcut_backend.jobs.click_job import CLICK_QUEUE


@dataclass(frozen=True)
class QueueState:
    """waiting: clicks that no worker has taken yet. ready_workers: workers that take clicks.

    expected_wait_s: how long a further click would wait for its answer; None when nobody can say.
    """

    waiting: int
    ready_workers: int
    expected_wait_s: float | None = None


def read_queue_state(connection: Redis) -> QueueState:
    """Raises redis.RedisError when Redis cannot be reached."""
    queue = Queue(CLICK_QUEUE, connection=connection, serializer=JSONSerializer)
    return QueueState(waiting=queue.count, ready_workers=Worker.count(queue=queue))
