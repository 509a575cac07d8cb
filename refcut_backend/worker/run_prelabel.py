"""The function that rq calls for a task that is to be prelabelled: whatever is urgent goes first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from rq.timeouts import JobTimeoutException

from refcut_backend.errors import ClickTimeoutError, OutOfMemoryError, RefCutError
from refcut_backend.queue.messages import PrelabelAnswer, PrelabelJob
from refcut_backend.worker.memory import is_out_of_memory

log = logging.getLogger("refcut.worker")


class LooksAtTasks(Protocol):
    """`worker.prelabeller.Prelabeller`."""

    def look(self, job: PrelabelJob, is_turn_over: Callable[[], bool]) -> PrelabelAnswer: ...

    def forget(self) -> None: ...


class TakesTurns(Protocol):
    """`jobs.prelabel_turn.Turn`."""

    def is_over(self) -> bool: ...


_prelabeller: LooksAtTasks | None = None
_turn: TakesTurns | None = None


def prelabel_with(prelabeller: LooksAtTasks, turn: TakesTurns) -> None:
    """Makes `prelabeller` the one that this process looks at tasks with."""
    global _prelabeller, _turn
    _prelabeller, _turn = prelabeller, turn


def run_prelabel(job: dict[str, Any]) -> dict[str, Any]:
    """JSON job to JSON answer. Every problem is an answer too."""
    if _prelabeller is None or _turn is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    asked = PrelabelJob.from_json(job)
    outcome = {"project": asked.project_id, "task": asked.task_id}
    try:
        answer = _prelabeller.look(asked, _turn.is_over)
        done = {"labels": len(answer.found), "of": len(asked.labels), "milliseconds": answer.milliseconds}
        log.info("task looked at", extra=outcome | done)
        return answer.to_json()
    except RefCutError as error:
        problem: RefCutError = error
    except JobTimeoutException:
        problem = ClickTimeoutError("looking at the task took too long")
    except Exception as error:
        log.exception("a task cannot be looked at", extra=outcome)
        problem = RefCutError("the worker failed on this task", hint="the worker's log has the traceback")
        if is_out_of_memory(error):
            problem = OutOfMemoryError(
                "the worker ran out of memory", hint="lower REFCUT_FEATURE_CACHE_MAX_BYTES"
            )
    if problem.code in ("timeout", "error", "oom"):
        _prelabeller.forget()  # the caches may be half changed
    log.warning("task not looked at", extra=outcome | {"reason": problem.code, "problem": str(problem)})
    return PrelabelAnswer.refused(problem).to_json()
