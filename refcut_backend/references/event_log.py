"""Records webhooks, so that a repeated delivery is recognised."""

from __future__ import annotations

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import WebhookEvent


class EventLog:
    """Records webhooks that change no annotation, so that a repeated delivery is recognised.

    Webhooks about annotations are recorded together with their change, by `AnnotationStates`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, project_id: int, action: str, subject_id: int, version: str) -> bool:
        """Records a webhook about a state of an object; returns False if it was recorded before.

        Args:
            project_id: The webhook's project.
            action: Label Studio's name of the action.
            subject_id: Id of the object.
            version: Distinguishes this state of the object from its other states; usually its `updated_at`.
        """
        try:
            with Session(self._engine) as session, session.begin():
                return record_event(session, project_id, action, subject_id, version, None)
        except IntegrityError:
            return False  # another process recorded it at the same moment

    def newest(self, project_id: int) -> int:
        """Returns the number of the project's newest webhook, in the order of their arrival; 0 if there is none."""
        query = select(func.max(WebhookEvent.id)).where(WebhookEvent.project_id == project_id)
        with Session(self._engine) as session:
            return session.scalar(query) or 0


def record_event(
    session: Session, project_id: int, action: str, subject_id: int, version: str, problem: str | None
) -> bool:
    """Records a webhook; action "" means that there is none. Returns False if it was recorded before."""
    if not action:
        return True
    same = select(WebhookEvent.id).where(
        WebhookEvent.project_id == project_id,
        WebhookEvent.action == action,
        WebhookEvent.subject_id == subject_id,
        WebhookEvent.subject_version == version,
    )
    if session.scalar(same) is not None:
        return False
    session.add(
        WebhookEvent(
            project_id=project_id,
            action=action,
            subject_id=subject_id,
            subject_version=version,
            problem=problem,
        )
    )
    return True
