"""Compares the registry with Label Studio: applies what webhooks missed, and removes what is gone there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, or_, select, update
from sqlalchemy.orm import Session

from refcut_backend.database.projects import Projects
from refcut_backend.database.tables import Project, Reference, TaskState, WebhookEvent
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import ListedTask, earlier
from refcut_backend.label_studio.tasks import AnnotationSource, GoneError, open_source
from refcut_backend.references.annotation_states import CLOCKS_DIFFER_S
from refcut_backend.references.registry import References
from refcut_backend.references.selection import Action
from refcut_backend.references.webhooks import AnnotationFollower

NOTED_EVENTS_KEPT = timedelta(days=30)


class Comparisons:
    """What was seen when a project was last compared; so the next comparison reads only what has changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def done_until(self, project_id: int) -> str:
        """`updated_at` of the project's newest task at the last comparison; "" before the first."""
        with Session(self._engine) as session:
            until = select(Project.reconciled_until).where(Project.id == project_id)
            return session.scalar(until) or ""

    def set_done_until(self, project_id: int, updated_at: str) -> None:
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Project).where(Project.id == project_id).values(reconciled_until=updated_at)
            )

    def tasks_of_interest(self, project_id: int) -> set[int]:
        """Tasks that references come from, or came from until a webhook said otherwise."""
        with_references = select(Reference.task_id).where(Reference.project_id == project_id)
        needs_check = select(TaskState.task_id).where(
            TaskState.project_id == project_id, TaskState.needs_check.is_(True)
        )
        with Session(self._engine) as session:
            return {*session.scalars(with_references.distinct()), *session.scalars(needs_check)}

    def fingerprints(self, project_id: int, task_ids: Collection[int]) -> dict[int, str | None]:
        """What the list said of tasks when their annotations were last read; None when a webhook came since."""
        query = select(TaskState.task_id, TaskState.sync_fingerprint).where(
            TaskState.project_id == project_id, TaskState.task_id.in_(task_ids)
        )
        with Session(self._engine) as session:
            return {task_id: compared for task_id, compared in session.execute(query)}

    def confirm(self, project_id: int, task_id: int, fingerprint: str | None, asked_at: float) -> None:
        """Notes that a task's annotations agree with Label Studio, unless webhooks came about when it was asked.

        said: what the list said of the task; None when it is not on the list.
        """
        quiet = or_(TaskState.webhook_at.is_(None), TaskState.webhook_at < asked_at - CLOCKS_DIFFER_S)
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(TaskState)
                .where(TaskState.project_id == project_id, TaskState.task_id == task_id, quiet)
                .values(sync_fingerprint=fingerprint, needs_check=None)
            )

    def drop_old_events(self) -> None:
        """Forgets webhooks that are too old to come again."""
        with Session(self._engine) as session, session.begin():
            old = WebhookEvent.received_at < datetime.now(UTC) - NOTED_EVENTS_KEPT
            session.execute(delete(WebhookEvent).where(old))


log = logging.getLogger("refcut.reconcile")

OVERLAP_S = 60.0
"""Label Studio stamps a change before it commits it: what was stamped so long before the newest may still appear."""

OpenSource = Callable[[int, Connection], AnnotationSource]


@dataclass(frozen=True)
class Compared:
    """What a comparison did: how many tasks' annotations were read, and the annotations whose references went."""

    tasks_read: int = 0
    annotations_gone: tuple[int, ...] = ()


class Reconciler:
    """Compares one project at a time. Comparing again, or two at once, gives the same registry."""

    def __init__(
        self,
        references: References,
        projects: Projects,
        comparisons: Comparisons,
        follower: AnnotationFollower,
        open_source: OpenSource = open_source,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._references = references
        self._projects = projects
        self._comparisons = comparisons
        self._follower = follower
        self._open_source = open_source
        self._now = now
        self._quiet: dict[int, str] = {}

    def compare(self, project_id: int) -> Compared:
        """Brings a project's references up to date. Raises RefCutError when Label Studio does not let it."""
        asked_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            newest = source.newest_change()
            tasks, gone = self._of_interest(source, project_id)
            removed = [self._drop(project_id, task_id, asked_at) for task_id in gone]
            removed += [self._read(source, project_id, task) for task in tasks]
            read = {task.id for task in tasks}
            for part in self._annotated_since_last_time(source, project_id, newest):
                removed += [self._read(source, project_id, task) for task in part if task.id not in read]
                read |= {task.id for task in part}
            self._learn_addresses(source, project_id)
        finally:
            source.close()
        self._comparisons.set_done_until(project_id, newest)
        compared = Compared(len(read), tuple(id for ids in removed for id in ids))
        if compared.annotations_gone:
            log.info(
                "references removed: gone in Label Studio",
                extra={"project": project_id, "annotations": list(compared.annotations_gone)},
            )
        return compared

    def compare_task(self, project_id: int, task_id: int) -> bool:
        """The same for one task; returns whether it exists. Raises RefCutError."""
        asked_at = self._now()
        source = self._open_source(project_id, self._projects.connection(project_id))
        try:
            listed = source.tasks([task_id])
            if listed:
                self._read(source, project_id, listed[0])
            else:
                self._drop(project_id, task_id, asked_at)
            return bool(listed)
        finally:
            source.close()

    def _of_interest(self, source: AnnotationSource, project_id: int) -> tuple[list[ListedTask], list[int]]:
        """Tasks that references come from or that the owner named: those that changed, and the ids of those gone."""
        named = {r.task_id for r in self._references.rules.of_project(project_id) if r.action is Action.ADD}
        ids = self._comparisons.tasks_of_interest(project_id) | {id for id in named if id is not None}
        listed = source.tasks(ids)
        return self._changed(project_id, listed), sorted(ids - {task.id for task in listed})

    def _annotated_since_last_time(
        self, source: AnnotationSource, project_id: int, newest: str
    ) -> Iterator[list[ListedTask]]:
        """Tasks with annotations that changed since the last comparison, without those whose webhook told everything.

        The first time, or after another label config, these are all annotated tasks of the project; a comparison that is
        cut off goes on where it ended.
        """
        until = self._comparisons.done_until(project_id)
        if until and newest == self._quiet.get(project_id):
            return
        for part in source.annotated_since(earlier(until, OVERLAP_S) if until else ""):
            yield self._changed(project_id, part)
        if newest == until:
            # Nothing has changed for a whole interval: whatever was still being committed has been seen now.
            self._quiet[project_id] = newest

    def _changed(self, project_id: int, listed: Sequence[ListedTask]) -> list[ListedTask]:
        known = self._comparisons.fingerprints(project_id, [task.id for task in listed])
        return [task for task in listed if known.get(task.id) != task.fingerprint]

    def _read(self, source: AnnotationSource, project_id: int, task: ListedTask) -> list[int]:
        """Takes what a task's annotations say now; returns those whose references went."""
        annotations, asked_at = self._references.annotations, self._now()
        try:
            found = source.annotations(task.id)
        except GoneError:
            found = []
        config = self._projects.label_config(project_id) or ""
        for annotation in found:
            annotations.apply_listing(self._follower.read(project_id, annotation, task, config), asked_at)
        gone = annotations.remove_missing(project_id, task.id, [a.id for a in found], asked_at)
        self._comparisons.confirm(project_id, task.id, task.fingerprint, asked_at)
        return gone

    def _drop(self, project_id: int, task_id: int, asked_at: float) -> list[int]:
        """Removes the references of a task that Label Studio does not have; returns their annotations."""
        gone = self._references.annotations.remove_missing(project_id, task_id, (), asked_at)
        self._comparisons.confirm(project_id, task_id, None, asked_at)
        return gone

    def _learn_addresses(self, source: AnnotationSource, project_id: int) -> None:
        """Who an e-mail address in REFCUT_REFERENCE_AUTHORS belongs to."""
        if not self._references.authors.emails:
            return
        unknown = self._references.authors_without_address(project_id)
        addresses = source.emails() if unknown else {}
        for user_id in unknown & addresses.keys():
            self._references.set_address(project_id, user_id, addresses[user_id])
