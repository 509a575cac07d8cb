"""Compares all projects with Label Studio again and again, in one web process among several."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from refcut_backend.database.leases import LeaseHolder
from refcut_backend.database.projects import Projects
from refcut_backend.errors import RefCutError
from refcut_backend.references.reconcile import Comparisons, Reconciler
from refcut_backend.references.registry import References
from refcut_backend.references.webhooks import AnnotationFollower

log = logging.getLogger("refcut.reconcile")

LEASE = "reconcile"
LEASE_INTERVALS = 2
SHORTEST_LEASE_S = 30.0
LONGEST_PAUSE_S = 1800.0
STOP_LIMIT_S = 2.0


@dataclass(frozen=True)
class _Trouble:
    """A project that could not be compared: how often in a row, why, and when it is tried again (monotonic seconds)."""

    times: int
    why: str
    next_at: float


class ReconcileThread:
    """A daemon thread of the web process. A project in trouble is tried ever more rarely and does not hold up others."""

    def __init__(
        self,
        reconciler: Reconciler,
        projects: Projects,
        comparisons: Comparisons,
        lease: LeaseHolder,
        interval_s: float,
        now: Callable[[], float] = time.monotonic,
        afterwards: Callable[[], None] = lambda: None,
    ) -> None:
        """interval_s: between comparisons; 0 = only when `soon` asks for one. afterwards: what else one process does in
        every round."""
        self._reconciler = reconciler
        self._projects = projects
        self._comparisons = comparisons
        self._lease = lease
        self._interval_s = interval_s
        self._now = now
        self._afterwards = afterwards
        self._trouble: dict[int, _Trouble] = {}
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and gives the lease back so that another process goes on at once."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT_S)
        self._lease.release()

    def soon(self, project_id: int) -> None:
        """Compares a project without waiting for its turn, whichever process has the lease."""
        self._asked.put(project_id)
        self._wake.set()

    def round(self) -> None:
        """Compares the projects that were asked for, and all that are due if this process has the lease."""
        asked = set()
        while not self._asked.empty():
            asked.add(self._asked.get())
        for project_id in sorted(asked):
            self._compare(project_id)
        if not self._interval_s:
            return
        for project_id in self._projects.known():
            if self._stopping or not self._lease.hold():
                return
            trouble = self._trouble.get(project_id)
            if project_id not in asked and (trouble is None or trouble.next_at <= self._now()):
                self._compare(project_id)
        self._comparisons.drop_old_events()
        self._afterwards()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.round()
            except SQLAlchemyError as error:
                log.error("no comparison: the database fails", extra={"problem": type(error).__name__})
            except Exception:
                log.exception("no comparison")
            self._wake.wait(self._interval_s or None)
            self._wake.clear()

    def _compare(self, project_id: int) -> None:
        try:
            compared = self._reconciler.compare(project_id)
        except RefCutError as error:
            self._note_trouble(project_id, str(error))
            return
        except Exception as error:
            # What one project holds must not keep the others from being compared.
            log.exception("a comparison failed", extra={"project": project_id})
            self._note_trouble(project_id, type(error).__name__)
            return
        if self._trouble.pop(project_id, None) is not None:
            log.info("compared with Label Studio again", extra={"project": project_id})
        if compared.tasks_read:
            log.info(
                "compared with Label Studio", extra={"project": project_id, "tasks": compared.tasks_read}
            )

    def _note_trouble(self, project_id: int, why: str) -> None:
        """Says a reason once, with what to do; not at every try."""
        before = self._trouble.get(project_id)
        times = before.times + 1 if before else 1
        pause_s = min(self._interval_s * 2**times, LONGEST_PAUSE_S) * random.uniform(0.9, 1.1)
        self._trouble[project_id] = _Trouble(times, why, self._now() + pause_s)
        if before is None or before.why != why:
            log.warning(
                "a project's references cannot be compared with Label Studio",
                extra={"project": project_id, "problem": why},
            )


def reconcile_thread(
    engine: Engine,
    references: References,
    projects: Projects,
    follower: AnnotationFollower,
    interval_s: float,
    afterwards: Callable[[], None],
) -> ReconcileThread:
    """The thread on a database, not started. afterwards: what else one process does in every round."""
    comparisons = Comparisons(engine)
    lease = LeaseHolder(engine, LEASE, max(LEASE_INTERVALS * interval_s, SHORTEST_LEASE_S))
    reconciler = Reconciler(references, projects, comparisons, follower)
    return ReconcileThread(reconciler, projects, comparisons, lease, interval_s, afterwards=afterwards)
