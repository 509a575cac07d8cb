"""Compares all projects with Label Studio at regular intervals, in one of several web processes."""

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
from refcut_backend.references.reconcile import Reconciler
from refcut_backend.references.registry import References
from refcut_backend.references.sync_states import SyncStates
from refcut_backend.references.webhooks import AnnotationFollower

log = logging.getLogger("refcut.reconcile")

LEASE = "reconcile"
LEASE_INTERVALS = 2
SHORTEST_LEASE_S = 30.0
LONGEST_PAUSE_S = 1800.0
STOP_LIMIT_S = 2.0
AT_ONCE = 4
SLOW_AFTER_S = 10.0
"""A comparison that takes longer no longer counts among the `AT_ONCE`: another project is compared beside it."""
MAX_RUNNING = 32
LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class _Trouble:
    """A project whose comparison failed: how often in a row, why, and when to retry (monotonic seconds)."""

    failures: int
    reason: str
    retry_at: float


@dataclass(frozen=True)
class LastComparison:
    """How the last comparison of a project with Label Studio ended.

    Attributes:
        at_s: When it ended, in seconds since 1970.
        problem: Why it failed; None if it did not.
    """

    at_s: float
    problem: str | None


class _Comparisons:
    """The comparisons that run, each on a thread of its own, so that one that hangs holds up no other project."""

    def __init__(self, compare: Callable[[int], None], again: Callable[[int], None]) -> None:
        """Prepares the threads.

        Args:
            compare: Compares a project; never raises.
            again: Called after a comparison whose project was requested once more while it ran.
        """
        self._compare = compare
        self._again = again
        self._changed = threading.Condition()
        self._started: dict[int, float] = {}
        self._requested_again: set[int] = set()

    def start(self, project_id: int, *, is_requested: bool = False) -> bool:
        """Starts a comparison; waits for room. Returns False if there is none because `MAX_RUNNING` are slow."""
        with self._changed:
            if project_id in self._started:
                if is_requested:
                    self._requested_again.add(project_id)
                return True
            while self._quick() >= AT_ONCE:
                self._changed.wait(LOOK_EVERY_S)
            if len(self._started) >= MAX_RUNNING:
                return False
            self._started[project_id] = time.monotonic()
        name = f"reconcile-{project_id}"
        threading.Thread(target=self._run, args=(project_id,), name=name, daemon=True).start()
        return True

    def wait(self, limit_s: float) -> None:
        """Waits until no comparison runs, except for slow ones; at most `limit_s` seconds."""
        ends = time.monotonic() + limit_s
        with self._changed:
            while self._quick() and time.monotonic() < ends:
                self._changed.wait(LOOK_EVERY_S)

    def _quick(self) -> int:
        """Number of comparisons that have not become slow."""
        return sum(time.monotonic() - at < SLOW_AFTER_S for at in self._started.values())

    def _run(self, project_id: int) -> None:
        try:
            self._compare(project_id)
        finally:
            with self._changed:
                del self._started[project_id]
                is_due = project_id in self._requested_again
                self._requested_again.discard(project_id)
                self._changed.notify_all()
            if is_due:
                self._again(project_id)


class ReconcileThread:
    """A daemon thread of the web process.

    A failing project is retried with growing pauses, up to `LONGEST_PAUSE_S`. Neither a failing nor a slow project delays
    others. Of several web processes, the one that holds the lease compares all projects.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        projects: Projects,
        sync_states: SyncStates,
        lease: LeaseHolder,
        interval_s: float,
        now: Callable[[], float] = time.monotonic,
        afterwards: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepares the thread; `start` runs it.

        Args:
            reconciler: Compares one project.
            projects: Lists the projects.
            sync_states: Whose old events are deleted in every round.
            lease: Held by the one process that compares all projects.
            interval_s: Seconds between rounds; 0 compares only what `soon` requests.
            now: Monotonic clock in seconds.
            afterwards: Further periodic work, done at the end of every round by the process that holds the lease.
        """
        self._reconciler = reconciler
        self._projects = projects
        self._sync_states = sync_states
        self._lease = lease
        self._interval_s = interval_s
        self._now = now
        self._afterwards = afterwards
        self._trouble: dict[int, _Trouble] = {}
        self._last: dict[int, LastComparison] = {}
        self._requested: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._comparisons = _Comparisons(self._compare, self.soon)
        self._last_started = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and releases the lease, so that another process takes over at once."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(STOP_LIMIT_S)
        self._comparisons.wait(STOP_LIMIT_S)
        self._lease.release()

    def soon(self, project_id: int) -> None:
        """Requests the comparison of a project at once, in this process, whichever process holds the lease."""
        self._requested.put(project_id)
        self._wake.set()

    def last_comparisons(self) -> dict[int, LastComparison]:
        """Returns the last comparison of each project that this process has compared."""
        return dict(self._last)

    def round(self) -> None:
        """Compares the requested projects, and all that are due if this process holds the lease.

        Returns when the comparisons have ended, except for slow ones, which continue.
        """
        requested = set()
        while not self._requested.empty():
            requested.add(self._requested.get())
        for project_id in sorted(requested):
            if not self._comparisons.start(project_id, is_requested=True):
                self._requested.put(project_id)
        if self._interval_s and self._compare_due(requested):
            self._sync_states.drop_old_events()
            self._afterwards()
        self._comparisons.wait(SLOW_AFTER_S)

    def _compare_due(self, requested: set[int]) -> bool:
        """Starts the comparisons that are due; returns whether this process still holds the lease."""
        known = self._projects.known()
        # Each round begins behind the last one, so that every project is compared even if slow ones leave no room.
        for project_id in sorted(
            known, key=lambda project_id: (project_id <= self._last_started, project_id)
        ):
            if self._stopping or not self._lease.hold():
                return False
            trouble = self._trouble.get(project_id)
            if project_id in requested or (trouble is not None and trouble.retry_at > self._now()):
                continue
            if not self._comparisons.start(project_id):
                return True
            self._last_started = project_id
        self._last_started = 0
        return True

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.round()
            except SQLAlchemyError as error:
                log.error("no comparison: the database fails", extra={"problem": type(error).__name__})
            except Exception:
                log.exception("no comparison")
            # Without an interval, requests for which there was no room would wait for the next request.
            self._wake.wait(self._interval_s or (None if self._requested.empty() else SLOW_AFTER_S))
            self._wake.clear()

    def _compare(self, project_id: int) -> None:
        try:
            result = self._reconciler.compare(project_id)
        except RefCutError as error:
            self._note_trouble(project_id, str(error))
            return
        except Exception as error:
            # An error in one project must not keep the others from being compared.
            log.exception("a comparison failed", extra={"project": project_id})
            self._note_trouble(project_id, type(error).__name__)
            return
        self._last[project_id] = LastComparison(time.time(), None)
        if self._trouble.pop(project_id, None) is not None:
            log.info("compared with Label Studio again", extra={"project": project_id})
        if result.tasks_read:
            log.info("compared with Label Studio", extra={"project": project_id, "tasks": result.tasks_read})

    def _note_trouble(self, project_id: int, reason: str) -> None:
        """Plans the retry. Logs a reason when it first occurs, not at every failure."""
        self._last[project_id] = LastComparison(time.time(), reason)
        before = self._trouble.get(project_id)
        failures = before.failures + 1 if before else 1
        pause_s = min(self._interval_s * 2**failures, LONGEST_PAUSE_S) * random.uniform(0.9, 1.1)
        self._trouble[project_id] = _Trouble(failures, reason, self._now() + pause_s)
        if before is None or before.reason != reason:
            log.warning(
                "a project's references cannot be compared with Label Studio",
                extra={"project": project_id, "problem": reason},
            )


def reconcile_thread(
    engine: Engine,
    references: References,
    projects: Projects,
    follower: AnnotationFollower,
    interval_s: float,
    afterwards: Callable[[], None],
) -> ReconcileThread:
    """Builds the thread for a database, not started.

    Args:
        engine: The database, which holds the lease.
        references: The registry to bring up to date.
        projects: Lists the projects.
        follower: Reads annotations.
        interval_s: Seconds between rounds; 0 compares only what `soon` requests.
        afterwards: Further periodic work, done at the end of every round by the process that holds the lease.
    """
    sync_states = SyncStates(engine)
    lease = LeaseHolder(engine, LEASE, max(LEASE_INTERVALS * interval_s, SHORTEST_LEASE_S))
    reconciler = Reconciler(references, projects, sync_states, follower)
    return ReconcileThread(reconciler, projects, sync_states, lease, interval_s, afterwards=afterwards)
