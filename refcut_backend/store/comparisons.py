"""How far the registry has been compared with Label Studio's own lists."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, delete, or_, select, update
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Project, Reference, TaskState, WebhookEvent
from refcut_backend.store.annotation_states import CLOCKS_DIFFER_S

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
        doubted = select(TaskState.task_id).where(
            TaskState.project_id == project_id, TaskState.doubted.is_(True)
        )
        with Session(self._engine) as session:
            return {*session.scalars(with_references.distinct()), *session.scalars(doubted)}

    def said_of(self, project_id: int, task_ids: Collection[int]) -> dict[int, str | None]:
        """What the list said of tasks when their annotations were last read; None when a webhook came since."""
        query = select(TaskState.task_id, TaskState.compared).where(
            TaskState.project_id == project_id, TaskState.task_id.in_(task_ids)
        )
        with Session(self._engine) as session:
            return {task_id: compared for task_id, compared in session.execute(query)}

    def confirm(self, project_id: int, task_id: int, said: str | None, asked_at: float) -> None:
        """Notes that a task's annotations agree with Label Studio, unless webhooks came about when it was asked.

        said: what the list said of the task; None when it is not on the list.
        """
        quiet = or_(TaskState.told_at.is_(None), TaskState.told_at < asked_at - CLOCKS_DIFFER_S)
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(TaskState)
                .where(TaskState.project_id == project_id, TaskState.task_id == task_id, quiet)
                .values(compared=said, doubted=None)
            )

    def drop_old_events(self) -> None:
        """Forgets webhooks that are too old to come again."""
        with Session(self._engine) as session, session.begin():
            old = WebhookEvent.received_at < datetime.now(UTC) - NOTED_EVENTS_KEPT
            session.execute(delete(WebhookEvent).where(old))
