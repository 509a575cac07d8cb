"""A worker's life: makes its engine once, then answers jobs until told to stop, while Redis may come and go."""

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
from refcut_backend.queue.heartbeats import Presence
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_worker import JobWorker
from refcut_backend.worker.memory import AnswersClicks
from refcut_backend.worker.run_click import serve_with

log = logging.getLogger("refcut.worker")

REDIS_PAUSE_S = 1.0


def work(
    redis_url: str,
    queues: Sequence[str],
    name: str,
    make_engine: Callable[[], AnswersClicks] | None,
    told_to_stop: threading.Event | None = None,
) -> int:
    """Answers jobs until told to stop (SIGTERM or SIGINT: the job in hand is finished first).

    told_to_stop: is set then, for jobs that end early. Returns the exit status: 0, or START_AGAIN when memory ran out
    too often. Redis may be away at any time.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))  # until the model is loaded; then rq takes over
    told_to_stop = told_to_stop or threading.Event()
    with Presence(connect_redis(redis_url), name, queues) as presence:
        engine = make_engine() if make_engine else None
        care = serve_with(engine) if engine else None

        def is_worn_out() -> bool:
            return care is not None and care.is_worn_out

        presence.announce_ready(engine.device if engine else "")
        log.info("worker ready", extra={"worker": name, "queues": list(queues)})
        with connect_redis(redis_url) as connection:
            _work_while_redis_comes_and_goes(
                lambda: JobWorker(queues, connection, presence, told_to_stop, is_worn_out),
                lambda: told_to_stop.is_set() or is_worn_out(),
            )
        return START_AGAIN if is_worn_out() else 0


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
