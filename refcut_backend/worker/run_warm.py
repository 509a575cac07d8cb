"""The function that rq calls when a task was opened: clicks always go first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from rq.timeouts import JobTimeoutException

from refcut_backend.errors import RefCutError
from refcut_backend.queue.messages import WarmJob
from refcut_backend.worker.engine import ClickEngine

log = logging.getLogger("refcut.worker")

WARM_LIMIT_S = 20.0
"""Afterwards the rest is left to the first click."""

_engine: ClickEngine | None = None
_a_click_waits: Callable[[], bool] = lambda: False  # noqa: E731


def warm_with(engine: ClickEngine, a_click_waits: Callable[[], bool]) -> None:
    """Makes `engine` the one that this process prepares. a_click_waits: asked between steps, some 20 times a second."""
    global _engine, _a_click_waits
    _engine, _a_click_waits = engine, a_click_waits


def run_warm(job: dict[str, Any]) -> None:
    """JSON job to a ready engine. Nobody waits for the outcome: problems are logged, and the click says them again."""
    if _engine is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    started = time.monotonic()
    warm = WarmJob.from_json(job)
    outcome: dict[str, Any] = {"project": warm.project_id, "task": warm.task_id}

    def must_stop() -> bool:
        return time.monotonic() - started > WARM_LIMIT_S or _a_click_waits()

    try:
        complete = not must_stop() and _engine.warm(warm, must_stop)
        outcome |= {"complete": complete, "total_ms": round(1000 * (time.monotonic() - started), 1)}
        log.info("task prepared", extra=outcome)
    except RefCutError as error:
        log.warning("task not prepared", extra=outcome | {"reason": error.code, "problem": str(error)})
    except JobTimeoutException:
        _engine.forget()  # the alarm may have left the caches half changed
        log.warning("task not prepared", extra=outcome | {"reason": "timeout"})
    except Exception:
        _engine.forget()  # memory may have run out
        log.exception("task not prepared", extra=outcome)
