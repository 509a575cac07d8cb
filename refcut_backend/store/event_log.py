"""The log of webhooks: each is in it once, however often it comes."""

from __future__ import annotations

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import WebhookEvent


class EventLog:
    """For events that change nothing in the registry of annotations; those that do are noted with their change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def note(self, project_id: int, action: str, subject_id: int, said_at: str) -> bool:
        """Returns False when the event is known."""
        try:
            with Session(self._engine) as session, session.begin():
                return note_event(session, project_id, action, subject_id, said_at, None)
        except IntegrityError:
            return False  # another process has just noted it


def note_event(
    session: Session, project_id: int, action: str, subject_id: int, said_at: str, problem: str | None
) -> bool:
    """Notes a webhook; "" is none. Returns False when it has been noted before."""
    if not action:
        return True
    same = select(WebhookEvent.id).where(
        WebhookEvent.project_id == project_id,
        WebhookEvent.action == action,
        WebhookEvent.subject_id == subject_id,
        WebhookEvent.said_at == said_at,
    )
    if session.scalar(same) is not None:
        return False
    session.add(
        WebhookEvent(
            project_id=project_id, action=action, subject_id=subject_id, said_at=said_at, problem=problem
        )
    )
    return True
