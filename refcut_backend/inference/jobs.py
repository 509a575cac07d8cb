"""The job functions that Redis names: JSON in, JSON out. One `JobRunner` per worker process computes them.

Open this file to see what becomes of a failure in a job. Callers always learn the reason:

    failure                               answer      caches
    ------------------------------------  ----------  -----------------------------------------------
    an expected error                     its reason  kept
    the deadline (JobTimeoutError)        `timeout`   repaired: what was computed completely is kept
    a lack of memory                      `oom`       emptied, and the click is tried once more
    an unexpected error                   `error`     emptied, because they may be half changed
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from refcut_backend.errors import TOO_SLOW, ClickTimeoutError, MessageError, OutOfMemoryError, RefCutError
from refcut_backend.queue.measure_queue import MeasureAnswer, MeasureJob
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PrelabelAnswer, PrelabelJob, PreloadJob
from refcut_backend.queue.rq_jobs import JobTimeoutError

log = logging.getLogger("refcut.worker")

PRELOAD_LIMIT_S = 20.0
"""A preload stops after this long and leaves the rest to the first click."""
FAILURES_IN_A_ROW = 3
_ALLOCATOR_WORDS = ("out of memory", "can't allocate memory", "not enough memory")

Answer = TypeVar("Answer")


class Engine(Protocol):
    """Holds the model and its caches: `engine.ClickEngine`."""

    @property
    def device(self) -> str:
        """Where the model computes, as torch names it."""

    def answer(self, job: ClickJob) -> ClickAnswer:
        """Compute the mask of a click."""

    def preload(self, job: PreloadJob, must_stop: Callable[[], bool]) -> bool:
        """Prepare a task's first click. Return whether that was completed."""

    def forget(self) -> None:
        """Empty all caches, on the GPU too."""

    def repair(self) -> None:
        """Make the caches consistent after a job was interrupted at any place, and keep what is complete."""


class LabelFinder(Protocol):
    """Searches a task for objects without a click: `prelabeller.Prelabeller`."""

    def look(self, job: PrelabelJob, should_yield: Callable[[], bool]) -> PrelabelAnswer:
        """Search the job's labels until `should_yield` is true."""


class Measurer(Protocol):
    """Measures what references are worth: `measurer.ReferenceMeasurer`."""

    def measure(self, job: MeasureJob, should_yield: Callable[[], bool]) -> MeasureAnswer:
        """Click with one set of references after another until `should_yield` is true."""


class MemoryGuard:
    """Answers clicks through an engine that may run out of memory.

    Args:
        engine: Retried once with empty caches when it runs out of memory.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._failures = 0

    @property
    def needs_restart(self) -> bool:
        """Whether only a new process can help: memory ran out for three clicks in a row."""
        return self._failures >= FAILURES_IN_A_ROW

    def answer(self, job: ClickJob) -> ClickAnswer:
        """Compute a click.

        Raises:
            OutOfMemoryError: If memory runs out even with empty caches.
        """
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
        """Returns None if memory ran out. The traceback holds arrays, which are freed once this function has returned."""
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
    """Recognise a lack of memory: torch raises RuntimeError for GPU and main memory, numpy and Python MemoryError."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _ALLOCATOR_WORDS)


class JobRunner:
    """Computes the jobs of one worker process.

    Args:
        engine: Answers clicks and preloads tasks.
        finder: Searches tasks that are pre-labelled.
        click_waits: Whether a preload must stop for a click; asked some 20 times per second.
        should_yield: Whether pre-labelling must stop for something more urgent; asked as often.
        measurer: Measures references; None for a worker that does not.
        measuring_yields: Whether a measurement must stop for anything else; asked as often.
    """

    def __init__(
        self,
        engine: Engine,
        finder: LabelFinder,
        click_waits: Callable[[], bool],
        should_yield: Callable[[], bool],
        measurer: Measurer | None = None,
        measuring_yields: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._guard = MemoryGuard(engine)
        self._finder = finder
        self._click_waits = click_waits
        self._should_yield = should_yield
        self._measurer = measurer
        self._measuring_yields = measuring_yields

    @property
    def device(self) -> str:
        """Where the model computes, as torch names it."""
        return self._engine.device

    @property
    def needs_restart(self) -> bool:
        """Whether the process is to be replaced by a new one (see `MemoryGuard`)."""
        return self._guard.needs_restart

    def click(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Compute a `ClickJob` and return its `ClickAnswer`, both as JSON."""
        answer = self._attempt("click", {}, lambda: self._guard.answer(ClickJob.from_json(payload)))
        return (ClickAnswer.refused(answer) if isinstance(answer, RefCutError) else answer).to_json()

    def prelabel(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Compute a `PrelabelJob` and return its `PrelabelAnswer`, both as JSON."""
        try:
            job = PrelabelJob.from_json(payload)
        except MessageError as error:
            log.warning("task not prelabelled", extra=_reason(error))
            return PrelabelAnswer.refused(error).to_json()
        facts: dict[str, Any] = {"project": job.project_id, "task": job.task_id}
        answer = self._attempt("task", facts, lambda: self._finder.look(job, self._should_yield))
        if isinstance(answer, RefCutError):
            log.warning("task not prelabelled", extra=facts | _reason(answer))
            return PrelabelAnswer.refused(answer).to_json()
        done = {"labels": len(answer.found), "of": len(job.labels), "milliseconds": answer.milliseconds}
        log.info("task prelabelled", extra=facts | done)
        return answer.to_json()

    def measure(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Compute a `MeasureJob` and return its `MeasureAnswer`, both as JSON."""
        measurer = self._measurer
        assert measurer is not None, "such a worker does not serve the queue"
        answer = self._attempt(
            "measurement", {}, lambda: measurer.measure(MeasureJob.from_json(payload), self._measuring_yields)
        )
        return (MeasureAnswer.refused(answer) if isinstance(answer, RefCutError) else answer).to_json()

    def preload(self, payload: dict[str, Any]) -> None:
        """Compute a `PreloadJob`, given as JSON.

        Nobody waits for it: a problem is logged, and the click reports it again.
        """
        started = time.monotonic()
        try:
            job = PreloadJob.from_json(payload)
        except MessageError as error:
            log.warning("task not prepared", extra=_reason(error))
            return
        facts: dict[str, Any] = {"project": job.project_id, "task": job.task_id}

        def must_stop() -> bool:
            return time.monotonic() - started > PRELOAD_LIMIT_S or self._click_waits()

        done = self._attempt(
            "preload", facts, lambda: not must_stop() and self._engine.preload(job, must_stop)
        )
        if isinstance(done, RefCutError):
            log.warning("task not prepared", extra=facts | _reason(done))
        else:
            spent = {"complete": done, "total_ms": round(1000 * (time.monotonic() - started), 1)}
            log.info("task prepared", extra=facts | spent)

    def _attempt(
        self, subject: str, facts: dict[str, Any], compute: Callable[[], Answer]
    ) -> Answer | RefCutError:
        """Computes a job. Every failure becomes the error to report; the caches are repaired or emptied (see the top)."""
        try:
            return compute()
        except RefCutError as error:
            return error
        except JobTimeoutError:
            self._engine.repair()
            return ClickTimeoutError(f"the {subject} was not computed in time", hint=TOO_SLOW)
        except Exception as error:
            log.exception(f"a {subject} failed", extra=facts)
            problem = RefCutError(
                f"the worker failed on this {subject}", hint="the worker's log has the traceback"
            )
            if is_out_of_memory(error):
                problem = OutOfMemoryError(
                    "the worker ran out of memory", hint="lower REFCUT_FEATURE_CACHE_MAX_BYTES"
                )
        self._engine.forget()
        return problem


def _reason(error: RefCutError) -> dict[str, str]:
    return {"reason": error.code, "problem": str(error)}


_runner: JobRunner | None = None


def register(runner: JobRunner) -> None:
    """Make `runner` compute this process's jobs. rq imports the functions below by name and passes nothing but JSON."""
    global _runner
    _runner = runner


def _registered() -> JobRunner:
    if _runner is None:
        raise RuntimeError("this worker has no engine; start workers with `refcut worker`")
    return _runner


def run_click(payload: dict[str, Any]) -> dict[str, Any]:
    """Compute a click; rq calls it (see `JobRunner.click`)."""
    return _registered().click(payload)


def run_preload(payload: dict[str, Any]) -> None:
    """Prepare an opened task; rq calls it (see `JobRunner.preload`)."""
    _registered().preload(payload)


def run_prelabel(payload: dict[str, Any]) -> dict[str, Any]:
    """Search a task that is pre-labelled; rq calls it (see `JobRunner.prelabel`)."""
    return _registered().prelabel(payload)


def run_measure(payload: dict[str, Any]) -> dict[str, Any]:
    """Measure references; rq calls it (see `JobRunner.measure`)."""
    return _registered().measure(payload)
