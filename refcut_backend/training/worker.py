"""A run in a training worker: claim it, keep its heartbeat, train, and store how it ended.

Every outcome ends up in the run's row: promoted, not promoted, failed with a message, or back to the queue after SIGTERM.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError, SQLAlchemyError
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from model.errors import ModelError
from refcut_backend.errors import RefCutError
from refcut_backend.queue.rq_jobs import JobTimeoutError
from refcut_backend.training.learner import Learner
from refcut_backend.training.pipeline import ProjectTraining, TrainingResult
from refcut_backend.training.process_priority import STOPS_WITHIN_S
from refcut_backend.training.progress import RunLostError, RunReport, StopRequestedError
from refcut_backend.training.runs import Claim, Outcome, TrainingRuns

log = logging.getLogger("refcut.training")

BEAT_S = 5.0
TICK_S = 0.2
LOCK_FILE = "lock"


class TrainingWorker:
    """Works on one run at a time."""

    def __init__(
        self,
        name: str,
        runs: TrainingRuns,
        training: ProjectTraining,
        make_learner: Callable[[], Learner],
        put_back: Callable[[str], None],
        stop_event: threading.Event,
        *,
        beat_s: float = BEAT_S,
    ) -> None:
        """Prepare a worker.

        Args:
            name: Unique name of the worker.
            runs: The runs in the database.
            training: Does the training.
            make_learner: Called when a run has enough data; imports torch.
            put_back: Puts a run that was interrupted on the queue again.
            stop_event: Set at SIGTERM.
            beat_s: Seconds between two heartbeats.
        """
        self._name = name
        self._runs = runs
        self._training = training
        self._make_learner = make_learner
        self._put_back = put_back
        self._stop_event = stop_event
        self._beat_s = beat_s

    def work_on(self, run_id: str) -> None:
        """Work on a run until it has ended or waits again. A failure is stored in the run's row, not raised."""
        run = self._runs.of(run_id)
        if run is None or run.has_ended or self._stop_event.is_set():
            return
        with _locked(self._training.folder_of(run.project_id, run_id) / LOCK_FILE) as is_ours:
            # The lock keeps out a worker of this machine that lost the run but still writes into its folder.
            claim = self._runs.claim(run_id, self._name) if is_ours else None
            if claim is not None:
                self._work_with(claim)

    def _work_with(self, claim: Claim) -> None:
        where = {"project": claim.project_id, "run": claim.run_id, "attempt": claim.attempt}
        log.info("training starts", extra=where)
        report = RunReport(self._runs, claim, self._stop_event)
        try:
            with self._heart(report, claim):
                ended = self._training.train(claim.project_id, claim.run_id, self._make_learner, report)
        except StopRequestedError:
            self._interrupt(claim)
        except RunLostError:
            log.error("training abandoned: the run belongs to another worker now", extra=where)
        except Exception as error:
            message = _explained(error)
            log.error("training failed", extra=where | {"problem": message}, exc_info=error)
            self._end(claim, TrainingResult(Outcome.FAILED, message, None))
        else:
            log.info("training ended", extra=where | {"outcome": ended.outcome, "why": ended.message})
            self._end(claim, ended)

    @retry(
        retry=retry_if_exception_type(OperationalError),
        stop=stop_after_attempt(5),
        wait=wait_fixed(1.0),
        reraise=True,
    )
    def _end(self, claim: Claim, ended: TrainingResult) -> None:
        self._runs.end(claim, ended.outcome, ended.message, ended.version)

    def _interrupt(self, claim: Claim) -> None:
        with suppress(SQLAlchemyError):
            if self._runs.give_back(claim):
                log.info("training resumes later", extra={"project": claim.project_id, "run": claim.run_id})
                self._put_back(claim.run_id)

    @contextmanager
    def _heart(self, report: RunReport, claim: Claim) -> Iterator[None]:
        """Writes the heartbeat from a thread, which also ends the process in time after SIGTERM."""
        over = threading.Event()

        def live() -> None:
            beat_at, stop_at = time.monotonic() + self._beat_s, math.inf
            while not over.wait(TICK_S):
                now = time.monotonic()
                if now >= beat_at:
                    report.beat()
                    beat_at = now + self._beat_s
                if self._stop_event.is_set():
                    stop_at = min(stop_at, now + STOPS_WITHIN_S)
                if now >= stop_at:
                    self._interrupt(claim)
                    os._exit(0)

        threading.Thread(target=live, name="training-heart", daemon=True).start()
        try:
            yield
        finally:
            over.set()


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Yields whether this process has the lock; the kernel releases it when the process ends in any way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _explained(error: Exception) -> str:
    """What happened and what to do, in one line without secrets."""
    if isinstance(error, (RefCutError, ModelError)):
        return str(error)
    if isinstance(error, JobTimeoutError):
        return "the training took too long; REFCUT_TRAIN_TIMEOUT_S sets the limit"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space in REFCUT_STATE_DIR, nothing of this training is used"
    return f"unexpected ({type(error).__name__}); the training worker's log has the traceback"


_worker: TrainingWorker | None = None


def train_with(worker: TrainingWorker) -> None:
    """Make `worker` the one that runs the trainings of this process."""
    global _worker
    _worker = worker


def run_training_job(run_id: str) -> None:
    """The function that rq calls: work on a run with this process's worker.

    Raises:
        RuntimeError: If this process is no training worker.
    """
    if _worker is None:
        raise RuntimeError("this worker does not train; start one with `refcut worker --queues training`")
    _worker.work_on(run_id)
