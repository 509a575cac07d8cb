"""A thread that starts due trainings and rescues runs of lost workers; a lease lets only one web process do so."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.database.leases import LeaseHolder
from refcut_backend.errors import RefCutError
from refcut_backend.training.new_annotations import AnnotationCounts, NewAnnotations
from refcut_backend.training.requests import TrainingRequests
from refcut_backend.training.runs import RequestedBy, TrainingRuns
from refcut_backend.training.trigger import FAILURES_LOOKED_AT, ProjectStatus, TrainingRules, reason_to_train

log = logging.getLogger("refcut.training")

LEASE = "training"
LEASE_S = 30.0
LOOK_EVERY_S = 5.0
SILENT_S = 30.0
"""Age in seconds from which the heartbeat of a training worker is too old. It is written every few seconds."""
STOP_LIMIT_S = 2.0


class TrainingThread:
    """A daemon thread of the web process."""

    def __init__(
        self,
        requests: TrainingRequests,
        runs: TrainingRuns,
        new_annotations: NewAnnotations,
        lease: LeaseHolder,
        rules: TrainingRules,
        *,
        silent_s: float = SILENT_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the thread; `start` starts it.

        Args:
            requests: Creates runs.
            runs: The runs in the database.
            new_annotations: Counts what is new.
            lease: Held by the one process that does the work.
            rules: When a training starts automatically.
            silent_s: Age in seconds from which the heartbeat of a worker is too old.
            now: Clock, in seconds since 1970.
        """
        self._requests = requests
        self._runs = runs
        self._new_annotations = new_annotations
        self._lease = lease
        self._rules = rules
        self._silent_s = silent_s
        self._now = now
        self._refused: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and release the lease, so that another process takes over at once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT_S)
        self._lease.release()

    def look(self) -> None:
        """One round, if this process has the lease."""
        if not self._lease.hold():
            return
        for run in self._runs.give_up_silent(self._silent_s):
            log.error("a training lost its worker", extra={"project": run.project_id, "run": run.id})
        for run in self._runs.all_under_way():
            self._requests.put_on_queue(run)
        if self._rules.is_automatic:
            for project_id, counts in self._new_annotations.by_project().items():
                self._begin_if_due(project_id, counts)

    def _begin_if_due(self, project_id: int, counts: AnnotationCounts) -> None:
        if counts.new == 0:
            return
        latest = self._runs.latest(project_id, FAILURES_LOOKED_AT)
        if latest and not latest[0].has_ended:
            return
        reason = reason_to_train(self._rules, ProjectStatus.of(counts, latest), self._now())
        if reason is None:
            return
        try:
            self._requests.request(project_id, RequestedBy(reason))
        except RefCutError as error:
            if project_id not in self._refused:
                log.warning("training not started", extra={"project": project_id, "problem": str(error)})
            self._refused.add(project_id)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_S):
            try:
                self.look()
            except SQLAlchemyError as error:
                log.error("no training: the database fails", extra={"problem": type(error).__name__})
            except Exception:
                log.exception("no training")


def training_thread(
    engine: Engine, requests: TrainingRequests, runs: TrainingRuns, rules: TrainingRules
) -> TrainingThread:
    """The thread on a database, not started."""
    lease = LeaseHolder(engine, LEASE, LEASE_S)
    return TrainingThread(requests, runs, NewAnnotations(engine), lease, rules)
