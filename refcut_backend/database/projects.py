"""Stores what /setup reports about projects: Label Studio's address and token, and the label config."""

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
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.store")

PROJECT_TABLES = (Reference, OwnerRule, AnnotationState, TaskState, WebhookEvent, TrainingRun, ImageSplit)
"""Tables whose rows belong to a project, besides its own row."""


class Projects:
    """The projects that have called /setup."""

    def __init__(self, engine: Engine, own_token: str | None = None, own_url: str | None = None) -> None:
        """Opens the projects of a database.

        Args:
            engine: The database.
            own_token: REFCUT_ACCESS_TOKEN. Overrides the tokens that Label Studio reports; those stay stored.
            own_url: REFCUT_LABEL_STUDIO_URL. Overrides the addresses that Label Studio reports; those stay stored.
        """
        self._engine = engine
        self._own_token = own_token
        self._own_url = own_url

    @classmethod
    def of(cls, engine: Engine, settings: Settings) -> Projects:
        """The projects on a database, with the token and the address of the settings."""
        return cls(engine, settings.own_token, settings.label_studio_url)

    def remember(
        self, project_id: int, connection: Connection, label_config: str, created_at: str | None = None
    ) -> bool:
        """Stores what /setup reports; writes nothing if it is known, since Label Studio reports it on every page.

        A Label Studio that was installed anew numbers its projects from 1 again. If a project of the same id was created
        at another time, everything about the older project is deleted.

        Args:
            project_id: The project.
            connection: Label Studio's address and token.
            label_config: The label config (XML).
            created_at: When the project was created, as Label Studio writes it.

        Returns:
            Whether anything changed.
        """
        try:
            return self._write(project_id, connection, label_config, created_at)
        except IntegrityError:
            # Two pages were opened at once, and the other request has just stored the project.
            return self._write(project_id, connection, label_config, created_at)

    def _write(
        self, project_id: int, connection: Connection, label_config: str, created_at: str | None
    ) -> bool:
        with Session(self._engine) as session:
            project = session.get(Project, project_id) or Project(id=project_id)
            if created_at and project.created_at and project.created_at != created_at:
                log.warning("another project has this number now", extra={"project": project_id})
                session.delete(project)
                for table in PROJECT_TABLES:
                    session.execute(delete(table).where(table.project_id == project_id))
                session.flush()
                project = Project(id=project_id)
            created_at = created_at or project.created_at
            reported = (connection.label_studio, connection.access_token, label_config, created_at)
            known = (project.label_studio, project.access_token, project.label_config, project.created_at)
            if known == reported:
                return False
            if project.label_config != label_config:
                _require_comparison(session, project)
            project.label_studio, project.access_token = connection.label_studio, connection.access_token
            project.label_config, project.created_at = label_config, created_at
            session.add(project)
            session.commit()
            return True

    def known(self) -> list[int]:
        """Returns the ids of all projects, in ascending order."""
        with Session(self._engine) as session:
            return list(session.scalars(select(Project.id).order_by(Project.id)))

    def label_config_changed(self, project_id: int, label_config: str, updated_at: Timestamp) -> bool:
        """Applies the label config of a PROJECT_UPDATED webhook, unless a later webhook was applied.

        Args:
            project_id: The project.
            label_config: The label config (XML).
            updated_at: The project's `updated_at`.

        Returns:
            Whether the label config changed.
        """
        with Session(self._engine) as session, session.begin():
            project = session.get(Project, project_id, with_for_update=True)
            if project is None or (project.label_config_at or "") >= updated_at:
                return False
            project.label_config_at = updated_at
            if project.label_config == label_config:
                return False
            _require_comparison(session, project)
            project.label_config = label_config
            return True

    def extra_params_digest(self, project_id: int) -> str | None:
        """Returns the digest of the last extra parameters; None before the first."""
        with Session(self._engine) as session:
            return session.scalar(select(Project.extra_params_digest).where(Project.id == project_id))

    def set_extra_params_digest(self, project_id: int, digest: str) -> None:
        """Stores the digest of the last extra parameters."""
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Project).where(Project.id == project_id).values(extra_params_digest=digest)
            )

    def connection(self, project_id: int) -> Connection:
        """Returns the address and token of a project's Label Studio; the engineer's settings take precedence.

        Raises:
            NotConnectedError: The project has never called /setup, or no address of Label Studio is known.
        """
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
        """Whether the database answers; for the health check."""
        try:
            with Session(self._engine) as session:
                session.execute(select(Project.id).limit(1))
            return True
        except SQLAlchemyError:
            return False

    def label_config(self, project_id: int) -> str | None:
        """Returns the last known label config (XML); None for an unknown project."""
        with Session(self._engine) as session:
            project = session.get(Project, project_id)
            return project.label_config if project else None


def _require_comparison(session: Session, project: Project) -> None:
    """Makes the next comparison read all annotations, because a new label config may change what each of them means."""
    project.reconciled_until = None
    session.execute(update(TaskState).where(TaskState.project_id == project.id).values(sync_fingerprint=None))
