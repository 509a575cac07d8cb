"""The function that rq calls for a click. The engine is made once, when the worker starts."""

from __future__ import annotations

import logging
from typing import Any

from refcut_backend.errors import RefCutError
from refcut_backend.jobs.click_job import ClickAnswer, ClickJob
from refcut_backend.worker.engine import ClickEngine

log = logging.getLogger("refcut.worker")

_engine: ClickEngine | None = None


def serve_with(engine: ClickEngine) -> None:
    """Makes `engine` the one that answers this process's jobs."""
    global _engine
    _engine = engine


def run_click(job: dict[str, Any]) -> dict[str, Any]:
    """JSON job to JSON answer. Expected problems are answers too: the caller shall know why, not guess."""
    if _engine is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    try:
        return _engine.answer(ClickJob.from_json(job)).to_json()
    except RefCutError as error:
        return ClickAnswer(error_code=error.code, error_message=str(error)).to_json()
