"""How far each project has been compared with Label Studio, so that the next comparison reads only changes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, exists, func, or_, select, union, update
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Project, Reference, TaskState, WebhookEvent
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.references.annotation_states import CLOCK_TOLERANCE_S
from refcut_backend.references.selection import NO_TASK

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

    def set_synced_until(self, project_id: int, updated_at: Timestamp, label_config: str) -> bool:
        """Stores `updated_at` of the project's newest task after a complete comparison.

        Args:
            project_id: The project.
            updated_at: The time.
            label_config: The label config when the comparison began.

        Returns:
            False if the project has another label config now: then the next comparison must read everything.
        """
        with Session(self._engine) as session, session.begin():
            stored = session.execute(
                update(Project)
                .where(Project.id == project_id, Project.label_config == label_config)
                .values(reconciled_until=updated_at)
            )
            return bool(stored.rowcount)  # type: ignore[attr-defined]

    def tasks_with_references(self, project_id: int) -> set[int]:
        """Returns the tasks that references come from."""
        with_references = select(Reference.task_id).where(
            Reference.project_id == project_id, Reference.task_id != NO_TASK
        )
        with Session(self._engine) as session:
            return set(session.scalars(with_references.distinct()))

    def unfinished_tasks(self, project_id: int) -> set[int]:
        """Returns tasks whose references a webhook removed, unreadable ones, and those with references not yet read."""
        states = select(TaskState.task_id).where(TaskState.project_id == project_id)
        gives_references = exists().where(
            Reference.project_id == project_id, Reference.task_id == TaskState.task_id
        )
        query = union(
            states.where(TaskState.needs_check.is_(True)),
            states.where(TaskState.problem.is_not(None)),
            states.where(TaskState.sync_fingerprint.is_(None), gives_references),
        )
        with Session(self._engine) as session:
            return set(session.scalars(query))

    def last_known_task(self, project_id: int) -> int | None:
        """Returns the largest id of a task of which anything is known; None if there is none."""
        with Session(self._engine) as session:
            return session.scalar(
                select(func.max(TaskState.task_id)).where(TaskState.project_id == project_id)
            )

    def fingerprints(self, project_id: int, task_ids: Collection[int]) -> dict[int, str | None]:
        """Returns the fingerprints of tasks when their annotations were last known; None if they must be read."""
        query = select(TaskState.task_id, TaskState.sync_fingerprint).where(
            TaskState.project_id == project_id, TaskState.task_id.in_(task_ids)
        )
        with Session(self._engine) as session:
            return {task_id: fingerprint for task_id, fingerprint in session.execute(query)}

    def confirm(
        self,
        project_id: int,
        task_id: int,
        fingerprint: str | None,
        requested_at: float,
        label_config: str,
    ) -> None:
        """Notes that a task agrees with Label Studio.

        Unless a webhook may have arrived since the request, or the project has another label config now.

        Args:
            project_id: The task's project.
            task_id: The task.
            fingerprint: `ListedTask.fingerprint` of the task; None if it is not on the list.
            requested_at: When the list was requested, seconds since 1970.
            label_config: The label config with which the task was read.
        """
        same_config = exists().where(Project.id == project_id, Project.label_config == label_config)
        no_webhook_since = or_(
            TaskState.webhook_at.is_(None), TaskState.webhook_at < requested_at - CLOCK_TOLERANCE_S
        )
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(TaskState)
                .where(
                    TaskState.project_id == project_id,
                    TaskState.task_id == task_id,
                    no_webhook_since,
                    same_config,
                )
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
