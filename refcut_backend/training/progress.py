"""What a running training tells the database, and when it has to stop."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.training.runs import Claim, Stage, TrainingRuns

log = logging.getLogger("refcut.training")

WRITE_EVERY_S = 1.0
PROBLEMS_KEPT = 50


class StopRequestedError(Exception):
    """The worker is to end: the run goes on elsewhere from what it has stored."""


class RunLostError(Exception):
    """The run was taken from this worker, which had been silent for too long, or its project is gone."""


class RunReport:
    """One worker's report on one run. Progress that cannot be written costs nothing but the progress."""

    def __init__(self, runs: TrainingRuns, claim: Claim, stop_event: threading.Event) -> None:
        self._runs = runs
        self._claim = claim
        self._stop_event = stop_event
        self._stage: Stage | None = None
        self._written_at = -math.inf
        self.is_lost = False

    def beat(self) -> None:
        """Says that the worker lives; for a thread of its own."""
        self._tell(lambda: self._runs.beat(self._claim))

    def __call__(
        self,
        stage: Stage,
        step: int = 0,
        steps: int = 0,
        eta_s: float | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Notes how far the run is. Raises StopRequestedError or RunLostError when it must not go on."""
        self.check()
        due = time.monotonic() >= self._written_at + WRITE_EVERY_S
        if stage is self._stage and not due and step != steps:
            return
        self._stage, self._written_at = stage, time.monotonic()
        finite = None if metrics is None else _finite(metrics)
        if eta_s is not None and not math.isfinite(eta_s):
            eta_s = None
        self._tell(lambda: self._runs.progress(self._claim, stage, step, steps, eta_s, finite))
        self.check()

    def left_out(self, problems: Sequence[str]) -> None:
        """What the training set lacks, and why: a sentence each."""
        for problem in problems:
            log.warning(
                "not trained on",
                extra={"project": self._claim.project_id, "run": self._claim.run_id, "problem": problem},
            )
        kept = list(problems[:PROBLEMS_KEPT])
        if len(problems) > PROBLEMS_KEPT:
            kept.append(f"and {len(problems) - PROBLEMS_KEPT} more: see the training worker's log")
        self._tell(lambda: self._runs.leave_out(self._claim, kept))

    def check(self) -> None:
        """Raises StopRequestedError or RunLostError when the run must not go on here."""
        if self.is_lost:
            raise RunLostError
        if self._stop_event.is_set():
            raise StopRequestedError

    def _tell(self, write: Callable[[], bool]) -> None:
        try:
            self.is_lost = self.is_lost or not write()
        except SQLAlchemyError as error:
            log.warning("progress not written", extra={"problem": type(error).__name__})


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN, and not every database takes one."""
    return {
        str(name): None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
