"""Reports the progress of a run to the database, and ends the run when it must not continue."""

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
CURVE_POINTS = 240
"""With more, every second one is dropped, so that a long training has as small a row as a short one."""
CURVE_METRICS = ("loss", "iou", "checked_iou")
PROBLEMS_KEPT = 50


class StopRequestedError(Exception):
    """SIGTERM: the run stores its state, and another worker resumes it."""


class RunLostError(Exception):
    """The run no longer belongs to this worker: its heartbeat was too old, or its project is gone."""


class RunReport:
    """Reports one run of one worker. If the database fails, only the progress is lost."""

    def __init__(self, runs: TrainingRuns, claim: Claim, stop_event: threading.Event) -> None:
        """Prepare a report.

        Args:
            runs: The runs in the database.
            claim: The worker's right to the run.
            stop_event: Set at SIGTERM.
        """
        self._runs = runs
        self._claim = claim
        self._stop_event = stop_event
        self._stage: Stage | None = None
        self._written_at = -math.inf
        self._curve: list[list[float | None]] | None = None
        self.is_lost = False

    def beat(self) -> None:
        """Write the heartbeat. Called from a thread of its own."""
        self._write(lambda: self._runs.beat(self._claim))

    def __call__(
        self,
        stage: Stage,
        step: int = 0,
        steps: int = 0,
        eta_s: float | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Report the progress, at most once per `WRITE_EVERY_S`, and at every new stage and last step.

        Args:
            stage: What the run is doing.
            step: Number of finished steps of the stage.
            steps: Number of all steps of the stage; 0 if unknown.
            eta_s: Estimated seconds until the end; None if unknown.
            metrics: Figures to show; None leaves the last ones.

        Raises:
            StopRequestedError: At SIGTERM.
            RunLostError: If the run no longer belongs to this worker.
        """
        self.check()
        due = time.monotonic() >= self._written_at + WRITE_EVERY_S
        if stage is self._stage and not due and step != steps:
            return
        self._stage, self._written_at = stage, time.monotonic()
        finite = None if metrics is None else _finite(metrics)
        if eta_s is not None and not math.isfinite(eta_s):
            eta_s = None
        curve = self._extended_curve(step, finite) if stage is Stage.TRAINING and finite else None
        self._write(lambda: self._runs.progress(self._claim, stage, step, steps, eta_s, finite, curve))
        self.check()

    def left_out(self, problems: Sequence[str]) -> None:
        """Report what was skipped in the training data, one sentence each."""
        for problem in problems:
            log.warning(
                "not trained on",
                extra={"project": self._claim.project_id, "run": self._claim.run_id, "problem": problem},
            )
        kept = list(problems[:PROBLEMS_KEPT])
        if len(problems) > PROBLEMS_KEPT:
            kept.append(f"and {len(problems) - PROBLEMS_KEPT} more: see the training worker's log")
        self._write(lambda: self._runs.leave_out(self._claim, kept))

    def check(self) -> None:
        """Raise StopRequestedError or RunLostError if the run must not continue here."""
        if self.is_lost:
            raise RunLostError
        if self._stop_event.is_set():
            raise StopRequestedError

    def _extended_curve(self, step: int, metrics: Mapping[str, Any]) -> list[list[float | None]]:
        """Adds a point to the curve. An attempt that resumes at a checkpoint continues the curve before it."""
        if self._curve is None:
            self._curve = self._stored_curve(step)
        self._curve.append([step, *(metrics.get(name) for name in CURVE_METRICS)])
        if len(self._curve) > CURVE_POINTS:
            self._curve = self._curve[:-1:2] + self._curve[-1:]
        return self._curve

    def _stored_curve(self, before_step: int) -> list[list[float | None]]:
        try:
            run = self._runs.of(self._claim.run_id)
        except SQLAlchemyError:
            return []
        return [] if run is None else [list(point) for point in run.curve if (point[0] or 0) < before_step]

    def _write(self, write: Callable[[], bool]) -> None:
        try:
            self.is_lost = self.is_lost or not write()
        except SQLAlchemyError as error:
            log.warning("progress not written", extra={"problem": type(error).__name__})


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces NaN and infinity by None: JSON has neither."""
    return {
        str(name): None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in metrics.items()
    }
