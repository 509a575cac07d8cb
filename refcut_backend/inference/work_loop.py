"""The main function of a worker process, for clicks and for trainings: a heartbeat, the model if there is one, then jobs.

Nothing here imports torch: an idle training worker has no network in memory.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from refcut_backend.errors import START_AGAIN
from refcut_backend.inference.jobs import JobRunner, register
from refcut_backend.queue.heartbeats import Heartbeat
from refcut_backend.queue.redis import connect_redis
from refcut_backend.queue.rq_worker import JobWorker, work_until_stopped

log = logging.getLogger("refcut.worker")


def work(
    redis_url: str,
    queues: Sequence[str],
    name: str,
    make_runner: Callable[[], JobRunner] | None,
    stop_event: threading.Event | None = None,
) -> int:
    """Run jobs until told to stop. At SIGTERM or SIGINT the current job is finished first.

    Args:
        redis_url: Redis, which may be away at any time.
        queues: Queue names, most urgent first.
        name: The worker's name, unique over all machines.
        make_runner: Loads the model; None for a worker that needs none.
        stop_event: Set when the worker is told to stop, for jobs that end early.

    Returns:
        The exit status: 0, or START_AGAIN if memory ran out too often.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))  # until the model is loaded; then rq takes over
    stop_event = stop_event or threading.Event()
    with Heartbeat(connect_redis(redis_url), name, queues) as heartbeat:
        runner = make_runner() if make_runner else None
        if runner is not None:
            register(runner)

        def needs_restart() -> bool:
            return runner is not None and runner.needs_restart

        heartbeat.announce_ready(runner.device if runner else "")
        log.info("worker ready", extra={"worker": name, "queues": list(queues)})
        with connect_redis(redis_url) as connection:
            work_until_stopped(
                lambda: JobWorker(queues, connection, heartbeat, stop_event, needs_restart),
                lambda: stop_event.is_set() or needs_restart(),
            )
        return START_AGAIN if needs_restart() else 0
