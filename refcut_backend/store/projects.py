"""Which Label Studio a project lives in."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from refcut_backend.errors import NotConnectedError
from refcut_backend.store.tables import Project


@dataclass(frozen=True)
class Connection:
    """Where a project's images are. The token never shows in a repr.

    label_studio: address at which it is asked, base path included. known_as: what it calls itself, when that differs:
    addresses in its tasks begin with this one.
    """

    label_studio: str
    access_token: str = field(repr=False)
    known_as: str = ""


class Projects:
    """The projects that have called /setup.

    own_token, own_url: what an engineer set (REFCUT_ACCESS_TOKEN, REFCUT_LABEL_STUDIO_URL). They win over what Label
    Studio hands over, which is kept all the same: the setting may be taken back.
    """

    def __init__(self, engine: Engine, own_token: str | None = None, own_url: str | None = None) -> None:
        self._engine = engine
        self._own_token = own_token
        self._own_url = own_url

    def remember(self, project_id: int, connection: Connection, label_config: str) -> bool:
        """Stores what /setup said; writes nothing when it is what is known (Label Studio says it on every page).

        Returns whether it was news.
        """
        try:
            return self._write(project_id, connection, label_config)
        except IntegrityError:
            # Two pages opened at once: the other request has just stored the project.
            return self._write(project_id, connection, label_config)

    def _write(self, project_id: int, connection: Connection, label_config: str) -> bool:
        with Session(self._engine) as session:
            project = session.get(Project, project_id) or Project(id=project_id)
            said = (connection.label_studio, connection.access_token, label_config)
            if (project.label_studio, project.access_token, project.label_config) == said:
                return False
            project.label_studio, project.access_token, project.label_config = said
            session.add(project)
            session.commit()
            return True

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

    def ids(self) -> list[int]:
        """The projects that have called /setup."""
        with Session(self._engine) as session:
            return list(session.scalars(select(Project.id).order_by(Project.id)))

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
