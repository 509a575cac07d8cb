"""The loop of a worker process, for clicks and for trainings: a heartbeat, the model if there is one, then jobs from rq.

Nothing here imports torch: an idle training worker has no network in memory.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import redis
from rq.exceptions import StopRequested

from refcut_backend.errors import START_AGAIN
from refcut_backend.inference.jobs import AnswersClicks, serve_with
from refcut_backend.queue.heartbeats import Heartbeat
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_worker import JobWorker

log = logging.getLogger("refcut.worker")

REDIS_PAUSE_S = 1.0


def work(
    redis_url: str,
    queues: Sequence[str],
    name: str,
    make_engine: Callable[[], AnswersClicks] | None,
    stop_event: threading.Event | None = None,
) -> int:
    """Answers jobs until told to stop (SIGTERM or SIGINT: the job in hand is finished first).

    stop_event: is set then, for jobs that end early. Returns the exit status: 0, or START_AGAIN when memory ran out
    too often. Redis may be away at any time.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))  # until the model is loaded; then rq takes over
    stop_event = stop_event or threading.Event()
    with Heartbeat(connect_redis(redis_url), name, queues) as heartbeat:
        engine = make_engine() if make_engine else None
        care = serve_with(engine) if engine else None

        def needs_restart() -> bool:
            return care is not None and care.needs_restart

        heartbeat.announce_ready(engine.device if engine else "")
        log.info("worker ready", extra={"worker": name, "queues": list(queues)})
        with connect_redis(redis_url) as connection:
            _work_while_redis_comes_and_goes(
                lambda: JobWorker(queues, connection, heartbeat, stop_event, needs_restart),
                lambda: stop_event.is_set() or needs_restart(),
            )
        return START_AGAIN if needs_restart() else 0


def _work_while_redis_comes_and_goes(
    make_worker: Callable[[], JobWorker], is_done: Callable[[], bool]
) -> None:
    """rq's worker ends when Redis goes away in the middle of a job. The model stays loaded, and a new one goes on."""
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
