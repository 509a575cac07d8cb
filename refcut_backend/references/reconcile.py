"""Synchronises the reference registry with Label Studio's API.

It applies changes whose webhook was lost, and removes references whose annotation no longer exists. A comparison reads
as little as possible: it lists the tasks that gave references and the tasks that changed since the last comparison, and
reads the annotations only of those whose fingerprint differs from `TaskState.sync_fingerprint`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Engine, delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from refcut_backend.database.projects import Projects
from refcut_backend.database.tables import Project, Reference, TaskState, WebhookEvent
from refcut_backend.errors import RefCutError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask, Timestamp
from refcut_backend.label_studio.tasks import AnnotationSource, GoneError, UnreadableError, open_source
from refcut_backend.references.annotation_states import CLOCK_TOLERANCE_S
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Action
from refcut_backend.references.webhooks import AnnotationFollower

EVENTS_KEPT_FOR = timedelta(days=30)


class SyncStates:
    """Remembers how far each project has been compared, so that the next comparison reads only changes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def synced_until(self, project_id: int) -> Timestamp:
        """`updated_at` of the project's newest task at the last comparison; empty before the first."""
        with Session(self._engine) as session:
            until = select(Project.reconciled_until).where(Project.id == project_id)
            return Timestamp(session.scalar(until) or "")

    def set_synced_until(self, project_id: int, updated_at: Timestamp) -> None:
        """Stores `updated_at` of the project's newest task after a complete comparison."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Project).where(Project.id == project_id).values(reconciled_until=updated_at)
            )

    def tasks_of_interest(self, project_id: int) -> set[int]:
        """Returns tasks that references come from, or came from until a webhook removed them, and unreadable tasks."""
        with_references = select(Reference.task_id).where(Reference.project_id == project_id)
        needs_check = select(TaskState.task_id).where(
            TaskState.project_id == project_id,
            or_(TaskState.needs_check.is_(True), TaskState.problem.is_not(None)),
        )
        with Session(self._engine) as session:
            return {*session.scalars(with_references.distinct()), *session.scalars(needs_check)}

    def fingerprints(self, project_id: int, task_ids: Collection[int]) -> dict[int, str | None]:
        """Returns the fingerprints of tasks when their annotations were last known; None if they must be read."""
        query = select(TaskState.task_id, TaskState.sync_fingerprint).where(
            TaskState.project_id == project_id, TaskState.task_id.in_(task_ids)
        )
        with Session(self._engine) as session:
            return {task_id: fingerprint for task_id, fingerprint in session.execute(query)}

    def confirm(self, project_id: int, task_id: int, fingerprint: str | None, requested_at: float) -> None:
        """Notes that a task agrees with Label Studio, unless a webhook may have arrived since the request.

        Args:
            project_id: The task's project.
            task_id: The task.
            fingerprint: `ListedTask.fingerprint` of the task; None if it is not on the list.
            requested_at: When the list was requested, seconds since 1970.
        """
        no_webhook_since = or_(
            TaskState.webhook_at.is_(None), TaskState.webhook_at < requested_at - CLOCK_TOLERANCE_S
        )
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(TaskState)
                .where(TaskState.project_id == project_id, TaskState.task_id == task_id, no_webhook_since)
                .values(sync_fingerprint=fingerprint, needs_check=None)
            )
            session.execute(
                update(TaskState)
                .where(TaskState.project_id == project_id, TaskState.task_id == task_id)
                .values(problem=None)
            )

    def note_problem(self, project_id: int, task_id: int, problem: str) -> bool:
        """Notes why a task's annotations cannot be read; returns whether it is new."""
        with Session(self._engine) as session, session.begin():
            state = session.get(TaskState, (project_id, task_id)) or TaskState(
                project_id=project_id, task_id=task_id, locked_at=0.0
            )
            is_new = state.problem != problem
            state.problem = problem
            session.add(state)
            return is_new

    def drop_old_events(self) -> None:
        """Deletes records of webhooks that are too old to be delivered again."""
        with Session(self._engine) as session, session.begin():
            old = WebhookEvent.received_at < datetime.now(UTC) - EVENTS_KEPT_FOR
            session.execute(delete(WebhookEvent).where(old))


log = logging.getLogger("refcut.reconcile")

OVERLAP_S = 60.0
"""Label Studio sets `updated_at` before it commits. A change this much older than the newest one may still appear."""
CLOCKS_DIFFER_S = 3600.0
"""If Label Studio's newest change is in the future by our clock, changes this much before our present are read again."""

COMPARISON_LIMIT_S = 900.0
"""Longest time for reading Label Studio in one comparison. The next one continues where it was interrupted."""

_open_for_comparison = partial(open_source, total_s=COMPARISON_LIMIT_S)

OpenSource = Callable[[int, Connection], AnnotationSource]


@dataclass(frozen=True)
class ComparisonResult:
    """Result of a comparison.

    Attributes:
        tasks_read: Number of tasks whose annotations were read.
        annotations_gone: Ids of the annotations whose references were removed.
    """

    tasks_read: int = 0
    annotations_gone: tuple[int, ...] = ()


class Reconciler:
    """Compares one project at a time. Repeated and concurrent comparisons give the same registry."""

    def __init__(
        self,
        references: References,
        projects: Projects,
        sync_states: SyncStates,
        follower: AnnotationFollower,
        open_source: OpenSource = _open_for_comparison,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._references = references
        self._projects = projects
        self._sync_states = sync_states
        self._follower = follower
        self._open_source = open_source
        self._now = now
        self._unchanged_since: dict[int, Timestamp] = {}

    def compare(self, project_id: int) -> ComparisonResult:
        """Brings a project's references up to date.

        Raises:
            RefCutError: Label Studio cannot be read. Changes that were found before the error stay applied.
        """
        requested_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            newest = source.newest_change()
            tasks, gone = self._changed_of_interest(source, project_id)
            removed = [self._remove_task(project_id, task_id, requested_at) for task_id in gone]
            removed += [self._read(source, project_id, task) for task in tasks]
            read = {task.id for task in tasks}
            for part in self._changed_since(source, project_id, newest, requested_at):
                removed += [self._read(source, project_id, task) for task in part if task.id not in read]
                read |= {task.id for task in part}
            self._learn_emails(source, project_id)
        finally:
            source.close()
        if _is_future(newest, requested_at):
            # A clock that was wrong for a while must not hide what changes until its time has come.
            newest = Timestamp(datetime.fromtimestamp(requested_at - CLOCKS_DIFFER_S, UTC))
        self._sync_states.set_synced_until(project_id, newest)
        result = ComparisonResult(len(read), tuple(annotation for part in removed for annotation in part))
        if result.annotations_gone:
            log.info(
                "references removed: gone in Label Studio",
                extra={"project": project_id, "annotations": list(result.annotations_gone)},
            )
        return result

    def compare_task(self, project_id: int, task_id: int) -> bool:
        """Brings the references of one task up to date; returns whether the task exists. Raises RefCutError."""
        requested_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            listed = source.tasks([task_id])
            if listed:
                self._read(source, project_id, listed[0])
            else:
                self._remove_task(project_id, task_id, requested_at)
            return bool(listed)
        finally:
            source.close()

    def _changed_of_interest(
        self, source: AnnotationSource, project_id: int
    ) -> tuple[list[ListedTask], list[int]]:
        """Returns, of tasks with references or explicitly added ones, those that changed and the ids of those gone."""
        added = {r.task_id for r in self._references.rules.of_project(project_id) if r.action is Action.ADD}
        ids = self._sync_states.tasks_of_interest(project_id) | {
            task_id for task_id in added if task_id is not None
        }
        listed = source.tasks(ids)
        return self._changed(project_id, listed), sorted(ids - {task.id for task in listed})

    def _changed_since(
        self, source: AnnotationSource, project_id: int, newest: Timestamp, now: float
    ) -> Iterator[list[ListedTask]]:
        """Yields tasks whose annotations changed since the last comparison, except those that a webhook covered.

        The first time, and after a change of the label config, these are all annotated tasks of the project; likewise if
        the newest change is older than at the last comparison: a backup was restored, or the newest task was deleted. A
        comparison that is interrupted reads only the rest when it is repeated.
        """
        until = self._sync_states.synced_until(project_id)
        if until and newest == self._unchanged_since.get(project_id):
            return
        since = until if until <= newest else Timestamp()
        for part in source.annotated_since(since.minus(OVERLAP_S) if since else since):
            yield self._changed(project_id, part)
        if newest == until and not _is_future(newest, now):
            # Nothing changed for a whole interval, so every change that was being committed has been seen.
            self._unchanged_since[project_id] = newest

    def _changed(self, project_id: int, listed: Sequence[ListedTask]) -> list[ListedTask]:
        fingerprints = self._sync_states.fingerprints(project_id, [task.id for task in listed])
        return [task for task in listed if fingerprints.get(task.id) != task.fingerprint]

    def _read(self, source: AnnotationSource, project_id: int, task: ListedTask) -> list[int]:
        """Applies a task's annotations as they are now; returns those whose references were removed.

        If they cannot be read, that task alone is left out, and what is known about it stays.
        """
        unforeseen: Exception | None = None
        try:
            return self._read_annotations(source, project_id, task)
        except UnreadableError as error:
            problem = str(error)
        except (RefCutError, SQLAlchemyError):
            raise
        except Exception as error:
            problem, unforeseen = f"its annotations cannot be read ({type(error).__name__})", error
        if self._sync_states.note_problem(project_id, task.id, problem):
            where = {"project": project_id, "task": task.id}
            extra = where | {"problem": problem}
            log.warning("task left out of the comparison", extra=extra, exc_info=unforeseen)
        return []

    def _read_annotations(self, source: AnnotationSource, project_id: int, task: ListedTask) -> list[int]:
        annotations, requested_at = self._references.annotations, self._now()
        try:
            found = source.annotations(task.id)
        except GoneError:
            found = []
        config = self._projects.label_config(project_id) or ""
        for annotation in found:
            annotations.apply_listing(self._follower.read(project_id, annotation, task, config), requested_at)
        gone = annotations.remove_missing(project_id, task.id, [a.id for a in found], requested_at)
        self._sync_states.confirm(project_id, task.id, task.fingerprint, requested_at)
        return gone

    def _remove_task(self, project_id: int, task_id: int, requested_at: float) -> list[int]:
        """Removes the references of a task that does not exist; returns their annotations."""
        gone = self._references.annotations.remove_missing(project_id, task_id, (), requested_at)
        self._sync_states.confirm(project_id, task_id, None, requested_at)
        return gone

    def _learn_emails(self, source: AnnotationSource, project_id: int) -> None:
        """Stores authors' e-mail addresses, which are needed if REFCUT_REFERENCE_AUTHORS contains any."""
        if not self._references.authors.emails:
            return
        unknown = self._references.authors_without_email(project_id)
        emails = source.emails() if unknown else {}
        for user_id in unknown & emails.keys():
            self._references.set_email(project_id, user_id, emails[user_id])


def _is_future(updated_at: Timestamp, now: float) -> bool:
    """Whether a time of Label Studio's clock is in the future by ours."""
    return updated_at > Timestamp(datetime.fromtimestamp(now, UTC))
