"""Which Label Studio a project lives in."""

from __future__ import annotations

import logging

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from refcut_backend.database.tables import (
    AnnotationState,
    ImageSplit,
    OwnerRule,
    Project,
    Reference,
    TaskState,
    TrainingRun,
    WebhookEvent,
)
from refcut_backend.errors import NotConnectedError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import sortable

log = logging.getLogger("refcut.store")

OF_PROJECT = (Reference, OwnerRule, AnnotationState, TaskState, WebhookEvent, TrainingRun, ImageSplit)
"""What is known of a project besides its own row."""


class Projects:
    """The projects that have called /setup.

    own_token, own_url: what an engineer set (REFCUT_ACCESS_TOKEN, REFCUT_LABEL_STUDIO_URL). They win over what Label
    Studio hands over, which is kept all the same: the setting may be taken back.
    """

    def __init__(self, engine: Engine, own_token: str | None = None, own_url: str | None = None) -> None:
        self._engine = engine
        self._own_token = own_token
        self._own_url = own_url

    def remember(
        self, project_id: int, connection: Connection, label_config: str, created_at: str | None = None
    ) -> bool:
        """Stores what /setup said; writes nothing when it is what is known (Label Studio says it on every page).

        Returns whether it was news. born: when the project was made, as Label Studio writes it. A Label Studio that was
        set up anew counts its projects from 1 again: what is known of an older project of that number is forgotten.
        """
        try:
            return self._write(project_id, connection, label_config, created_at)
        except IntegrityError:
            # Two pages opened at once: the other request has just stored the project.
            return self._write(project_id, connection, label_config, created_at)

    def _write(
        self, project_id: int, connection: Connection, label_config: str, created_at: str | None
    ) -> bool:
        with Session(self._engine) as session:
            project = session.get(Project, project_id) or Project(id=project_id)
            if created_at and project.created_at and project.created_at != created_at:
                log.warning("another project has this number now", extra={"project": project_id})
                session.delete(project)
                for table in OF_PROJECT:
                    session.execute(delete(table).where(table.project_id == project_id))
                session.flush()
                project = Project(id=project_id)
            said = (
                connection.label_studio,
                connection.access_token,
                label_config,
                created_at or project.created_at,
            )
            if (project.label_studio, project.access_token, project.label_config, project.created_at) == said:
                return False
            if project.label_config != label_config:
                _compare_anew(session, project)
            project.label_studio, project.access_token, project.label_config, project.created_at = said
            session.add(project)
            session.commit()
            return True

    def known(self) -> list[int]:
        """Ids of all projects."""
        with Session(self._engine) as session:
            return list(session.scalars(select(Project.id).order_by(Project.id)))

    def label_config_changed(self, project_id: int, label_config: str, said_at: str) -> bool:
        """Takes the label config of a PROJECT_UPDATED webhook, unless a later one has been taken.

        Returns whether it was news. said_at: the project's `updated_at`.
        """
        said_at = sortable(said_at)
        with Session(self._engine) as session, session.begin():
            project = session.get(Project, project_id, with_for_update=True)
            if project is None or (project.label_config_at or "") >= said_at:
                return False
            project.label_config_at = said_at
            if project.label_config == label_config:
                return False
            _compare_anew(session, project)
            project.label_config = label_config
            return True

    def extra_params_digest(self, project_id: int) -> str | None:
        """Of the extra parameters that were seen last; None before the first."""
        with Session(self._engine) as session:
            return session.scalar(select(Project.extra_params_digest).where(Project.id == project_id))

    def set_extra_params_digest(self, project_id: int, digest: str) -> None:
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Project).where(Project.id == project_id).values(extra_params_digest=digest)
            )

    def connection(self, project_id: int) -> Connection:
        """Raises NotConnectedError for a project that has never called /setup, or did so without an address."""
        with Session(self._engine) as session:
            project = session.get(Project, project_id)
        if project is None:
            raise NotConnectedError(
                f"project {project_id} is not known",
                hint="open Settings > Model in Label Studio once: it calls /setup",
            )
        if not (self._own_url or project.label_studio):
            raise NotConnectedError(
                "Label Studio did not say at which address it is", hint="set REFCUT_LABEL_STUDIO_URL"
            )
        return Connection(
            (self._own_url or project.label_studio).rstrip("/"),
            self._own_token or project.access_token,
            known_as=project.label_studio if self._own_url else "",
        )

    def can_be_read(self) -> bool:
        """Whether the database answers now."""
        try:
            with Session(self._engine) as session:
                session.execute(select(Project.id).limit(1))
            return True
        except SQLAlchemyError:
            return False

    def label_config(self, project_id: int) -> str | None:
        """The label config as last seen; None for an unknown project."""
        with Session(self._engine) as session:
            project = session.get(Project, project_id)
            return project.label_config if project else None


def _compare_anew(session: Session, project: Project) -> None:
    """Another label config may give every annotation another meaning, so all are compared with Label Studio again."""
    project.reconciled_until = None
    session.execute(update(TaskState).where(TaskState.project_id == project.id).values(sync_fingerprint=None))
