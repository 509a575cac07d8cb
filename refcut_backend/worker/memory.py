"""When memory runs out: once more with empty caches, then a reason; after three in a row the process is given up."""

from __future__ import annotations

import gc
import logging
from typing import Protocol

from refcut_backend.errors import OutOfMemoryError
from refcut_backend.queue.messages import ClickAnswer, ClickJob

log = logging.getLogger("refcut.worker")

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


class MemoryCare:
    """Answers through an engine that may run out of memory."""

    def __init__(self, engine: AnswersClicks) -> None:
        self._engine = engine
        self._failures = 0

    @property
    def is_worn_out(self) -> bool:
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
