"""The function that rq calls for a click. The engine is made once, when the worker starts."""

from __future__ import annotations

import logging
from typing import Any

from rq.timeouts import JobTimeoutException

from refcut_backend.errors import ClickTimeoutError, RefCutError
from refcut_backend.queue.messages import ClickAnswer, ClickJob
from refcut_backend.worker.memory import AnswersClicks, MemoryCare

log = logging.getLogger("refcut.worker")

_engine: AnswersClicks | None = None
_care: MemoryCare | None = None


def serve_with(engine: AnswersClicks) -> MemoryCare:
    """Makes `engine` the one that answers this process's jobs."""
    global _engine, _care
    _engine, _care = engine, MemoryCare(engine)
    return _care


def run_click(job: dict[str, Any]) -> dict[str, Any]:
    """JSON job to JSON answer. Every problem is an answer too: the caller shall know why, not guess."""
    if _engine is None or _care is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    try:
        return _care.answer(ClickJob.from_json(job)).to_json()
    except RefCutError as error:
        return ClickAnswer.refused(error).to_json()
    except JobTimeoutException:
        _engine.forget()  # the alarm may have left the caches half changed
        return ClickAnswer.refused(ClickTimeoutError("the click was not computed in time")).to_json()
    except Exception:
        log.exception("a click failed")
        _engine.forget()
        failed = RefCutError("the worker failed on this click", hint="the worker's log has the traceback")
        return ClickAnswer.refused(failed).to_json()
