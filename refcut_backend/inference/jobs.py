"""The function that rq calls for a task that is to be prelabelled: whatever is urgent goes first."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from rq.timeouts import JobTimeoutException

from refcut_backend.errors import ClickTimeoutError, OutOfMemoryError, RefCutError
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PrelabelAnswer, PrelabelJob, PreloadJob

log = logging.getLogger("refcut.worker")


WARM_LIMIT_S = 20.0
"""Afterwards the rest is left to the first click."""


class PreparesTasks(Protocol):
    """The part of `inference.engine.ClickEngine` that prepares a task before its first click."""

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool: ...

    def forget(self) -> None: ...


_preload_engine: PreparesTasks | None = None
_a_click_waits: Callable[[], bool] = lambda: False  # noqa: E731


def warm_with(engine: PreparesTasks, a_click_waits: Callable[[], bool]) -> None:
    """Makes `engine` the one that this process prepares. a_click_waits: asked between steps, some 20 times a second."""
    global _preload_engine, _a_click_waits
    _preload_engine, _a_click_waits = engine, a_click_waits


def run_preload(job: dict[str, Any]) -> None:
    """JSON job to a ready engine. Nobody waits for the outcome: problems are logged, and the click says them again."""
    if _preload_engine is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    started = time.monotonic()
    warm = PreloadJob.from_json(job)
    outcome: dict[str, Any] = {"project": warm.project_id, "task": warm.task_id}

    def must_stop() -> bool:
        return time.monotonic() - started > WARM_LIMIT_S or _a_click_waits()

    try:
        complete = not must_stop() and _preload_engine.preload(warm, must_stop)
        outcome |= {"complete": complete, "total_ms": round(1000 * (time.monotonic() - started), 1)}
        log.info("task prepared", extra=outcome)
    except RefCutError as error:
        log.warning("task not prepared", extra=outcome | {"reason": error.code, "problem": str(error)})
    except JobTimeoutException:
        _preload_engine.forget()  # the alarm may have left the caches half changed
        log.warning("task not prepared", extra=outcome | {"reason": "timeout"})
    except Exception:
        _preload_engine.forget()  # memory may have run out
        log.exception("task not prepared", extra=outcome)


FAILURES_IN_A_ROW = 3
_ALLOCATOR_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


class AnswersClicks(Protocol):
    """What holds the model and its caches."""

    @property
    def device(self) -> str:
        """Where the model computes."""

    def answer(self, job: ClickJob) -> ClickAnswer: ...

    def forget(self) -> None:
        """Empties the caches, the GPU's too."""
        ...


class MemoryGuard:
    """Answers through an engine that may run out of memory."""

    def __init__(self, engine: AnswersClicks) -> None:
        self._engine = engine
        self._failures = 0

    @property
    def needs_restart(self) -> bool:
        """Whether only a fresh process can help."""
        return self._failures >= FAILURES_IN_A_ROW

    def answer(self, job: ClickJob) -> ClickAnswer:
        """The engine's answer. Raises OutOfMemoryError when empty caches did not help either."""
        try:
            answer = self._answer_or_free(job) or self._engine.answer(job)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._failures += 1
            self._free()
            raise OutOfMemoryError(
                "the worker ran out of memory", hint="lower REFCUT_FEATURE_CACHE_MAX_BYTES or REFCUT_WORKERS"
            ) from None
        self._failures = 0
        return answer

    def _answer_or_free(self, job: ClickJob) -> ClickAnswer | None:
        """None when memory ran out. Its traceback holds arrays: they are freed once this function has returned."""
        try:
            return self._engine.answer(job)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning("out of memory, once more with empty caches", extra={"problem": str(error)[:200]})
        self._free()
        return None

    def _free(self) -> None:
        gc.collect()
        self._engine.forget()


def is_out_of_memory(error: BaseException) -> bool:
    """torch raises a RuntimeError for a full GPU and for full main memory, numpy and Python a MemoryError."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _ALLOCATOR_WORDS)


class LooksAtTasks(Protocol):
    """`worker.prelabeller.Prelabeller`."""

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer: ...

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


_click_engine: AnswersClicks | None = None
_care: MemoryGuard | None = None


def serve_with(engine: AnswersClicks) -> MemoryGuard:
    """Makes `engine` the one that answers this process's jobs."""
    global _click_engine, _care
    _click_engine, _care = engine, MemoryGuard(engine)
    return _care


def run_click(job: dict[str, Any]) -> dict[str, Any]:
    """JSON job to JSON answer. Every problem is an answer too: the caller shall know why, not guess."""
    if _click_engine is None or _care is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    try:
        return _care.answer(ClickJob.from_json(job)).to_json()
    except RefCutError as error:
        return ClickAnswer.refused(error).to_json()
    except JobTimeoutException:
        _click_engine.forget()  # the alarm may have left the caches half changed
        return ClickAnswer.refused(ClickTimeoutError("the click was not computed in time")).to_json()
    except Exception:
        log.exception("a click failed")
        _click_engine.forget()
        failed = RefCutError("the worker failed on this click", hint="the worker's log has the traceback")
        return ClickAnswer.refused(failed).to_json()
