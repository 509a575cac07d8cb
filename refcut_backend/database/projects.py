"""Stores what /setup reports about projects: Label Studio's address and token, and the label config.

Also finds out which project a request or a command means: several Label Studios may use one backend, and each of them
numbers its projects from 1 (`project_ids.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, Row, Table, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from refcut_backend.database.engine import database_explained
from refcut_backend.database.project_identity import (
    IDENTITIES,
    KnownProject,
    known_project,
    new_project,
    read_places,
    rows_of_number,
    same_project,
)
from refcut_backend.database.tables import Base, Project, TaskState
from refcut_backend.errors import ConfigError, NotConnectedError, UnclearProjectError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.label_studio.project_ids import (
    ProjectChoice,
    ProjectRef,
    number_of,
    project_id_of,
    project_name,
)
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.store")

SETUP_TRIES = 3
_HOW_TO_CHOOSE = "`refcut projects list` shows all projects"


@dataclass(frozen=True)
class SetupResult:
    """Which project called /setup, and whether what it reported was new."""

    project_id: int
    has_changed: bool


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
        self, number: int, connection: Connection, label_config: str, created_at: str | None = None
    ) -> SetupResult:
        """Stores what /setup reports; writes nothing if it is known, since Label Studio reports it on every page.

        A project of another Label Studio, or one that was created at another time, is another project: it gets a project
        id of its own, and nothing about a known project is changed or deleted.

        Args:
            number: Label Studio's number of the project.
            connection: Label Studio's address and token.
            label_config: The label config (XML).
            created_at: When the project was created, as Label Studio writes it.

        Raises:
            ConfigError: More than `MAX_PLACES` projects have this number.
        """
        for _ in range(SETUP_TRIES - 1):
            try:
                return self._write(number, connection, label_config, created_at)
            except IntegrityError:
                # Two pages were opened at once, and the other request has just stored a project of this number.
                continue
        return self._write(number, connection, label_config, created_at)

    def _write(
        self, number: int, connection: Connection, label_config: str, created_at: str | None
    ) -> SetupResult:
        with Session(self._engine) as session:
            known = rows_of_number(session, number)
            found = same_project(known, connection, created_at)
            project = found or new_project(number, known)
            created_at = created_at or project.created_at
            reported = (connection.label_studio, connection.access_token, label_config, created_at, None)
            if reported == (
                project.label_studio,
                project.access_token,
                project.label_config,
                project.created_at,
                project.forgotten_at,
            ):
                return SetupResult(project.id, False)
            if project.label_config != label_config:
                _require_comparison(session, project)
            if found and found.label_studio != connection.label_studio:
                log.warning("Label Studio has another address now", extra={"project": project.id})
            project.label_studio, project.access_token = connection.label_studio, connection.access_token
            project.label_config, project.created_at = label_config, created_at
            project.forgotten_at = None
            session.add(project)
            project_id = project.id
            session.commit()
            if known and found is None:
                log.warning(
                    "another project with a known number; both are kept apart",
                    extra={"project": project_id, "known": [project_name(one.id) for one in known]},
                )
            return SetupResult(project_id, True)

    def resolve(self, ref: ProjectRef) -> int:
        """Returns the project id of the project that a request names.

        A request has the project's number and mostly its creation time, but not the address of its Label Studio. If an
        earlier version of this program stored a project without its creation time, that one is meant as long as no other
        project has had the number.

        Raises:
            NotConnectedError: The project has never called /setup.
            UnclearProjectError: The request may mean several projects.
            DatabaseFailsError: The database cannot be read.
        """
        with database_explained():
            rows = self._identities(ref.number)
        known = _not_forgotten(rows)
        same = [one for one in known if ref.created in (None, one.created)]
        if not same and len(rows) == 1:
            same = [one for one in known if one.created is None]
        if len(same) == 1:
            return same[0].project_id
        if not same:
            others = ", only another one with its number" if known else ""
            raise NotConnectedError(
                f"project {ref.number} is not known{others}",
                hint="open Settings > Model in Label Studio once: it calls /setup",
            )
        raise UnclearProjectError(
            f"the request does not say which project {ref.number} it means: {_listed(same)}",
            hint="use a backend of its own for one of them",
        )

    def find(self, text: str) -> int:
        """Returns the project id of the project that a person names on the command line (`ProjectChoice.read`).

        Raises:
            ConfigError: The text names no project, or several; the message lists them.
        """
        choice = ProjectChoice.read(text)
        known = self.of_number(choice.number)
        if not known and choice == ProjectChoice(choice.number):
            return choice.number  # what uses it reports that the project is unknown
        found = [one for one in known if self._is_chosen(choice, one)]
        if len(found) == 1:
            return found[0].project_id
        if not found:
            others = f"; known are: {_listed(known)}" if known else ""
            raise ConfigError(f"no known project is {text[:200]}{others}", hint=_HOW_TO_CHOOSE)
        raise ConfigError(
            f"several projects have the number {choice.number}: {_listed(found)}",
            hint=f"name one as {choice.number}#1, or by its address in Label Studio",
        )

    def _is_chosen(self, choice: ProjectChoice, known: KnownProject) -> bool:
        addresses = (known.label_studio.rstrip("/"), (self._own_url or "").rstrip("/"))
        return (
            choice.created in (None, known.created)
            and (choice.place is None or project_id_of(choice.number, choice.place) == known.project_id)
            and (choice.label_studio is None or choice.label_studio in addresses)
        )

    def of_number(self, number: int) -> list[KnownProject]:
        """Returns the projects with a number of Label Studio, in the order in which they first called /setup."""
        return _not_forgotten(self._identities(number))

    def _identities(self, number: int) -> list[Row[*tuple[Any, ...]]]:
        with Session(self._engine) as session:
            return read_places(
                number, lambda ids: session.execute(IDENTITIES.where(Project.id.in_(ids))).all()
            )

    def all(self) -> list[KnownProject]:
        """Returns all projects, by number."""
        with Session(self._engine) as session:
            known = _not_forgotten(session.execute(IDENTITIES).all())
        return sorted(known, key=lambda one: (number_of(one.project_id), one.project_id))

    def forget(self, project_id: int) -> None:
        """Deletes everything that the database holds about a project; its versions in the model store stay.

        The project id is not given to another project. If the project calls /setup again, it begins anew.
        """
        with Session(self._engine) as session, session.begin():
            # The project's own row first, as everything does that changes it and others: none then waits for the other.
            session.execute(
                update(Project)
                .where(Project.id == project_id)
                .values(
                    access_token="",
                    label_config="",
                    extra_params_digest=None,
                    label_config_at=None,
                    reconciled_until=None,
                    forgotten_at=datetime.now(UTC),
                )
            )
            for table in _tables_of_projects():
                session.execute(delete(table).where(table.c.project_id == project_id))

    def known(self) -> list[int]:
        """Returns the project ids of all projects, in ascending order."""
        with Session(self._engine) as session:
            ids = select(Project.id).where(Project.forgotten_at.is_(None)).order_by(Project.id)
            return list(session.scalars(ids))

    def label_config_changed(self, project_id: int, label_config: str, updated_at: Timestamp) -> bool:
        """Applies the label config of a PROJECT_UPDATED webhook, unless a later webhook was applied.

        A later time that lies in the future is no reason: it was forged, or Label Studio's clock was wrong.

        Args:
            project_id: The project.
            label_config: The label config (XML).
            updated_at: The project's `updated_at`.

        Returns:
            Whether the label config changed.
        """
        with Session(self._engine) as session, session.begin():
            project = session.get(Project, project_id, with_for_update=True)
            known = "" if project is None else project.label_config_at or ""
            if project is None or Timestamp(datetime.now(UTC)) > known >= updated_at:
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
        if project is None or project.forgotten_at is not None:
            raise NotConnectedError(
                f"project {project_name(project_id)} is not known",
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
            project_created=project.created_at,
        )

    def label_config(self, project_id: int) -> str | None:
        """Returns the last known label config (XML); None for an unknown project."""
        with Session(self._engine) as session:
            project = session.get(Project, project_id)
            return project.label_config if project else None


def _not_forgotten(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[KnownProject]:
    return [known_project(row) for row in rows if row.forgotten_at is None]


def _listed(known: Iterable[KnownProject]) -> str:
    return "; ".join(map(str, known))


def _tables_of_projects() -> list[Table]:
    """Tables whose rows belong to a project, besides its own row."""
    return [table for table in Base.metadata.sorted_tables if "project_id" in table.columns]


def _require_comparison(session: Session, project: Project) -> None:
    """Makes the next comparison read all annotations, because a new label config may change what each of them means."""
    # The project's own row before its tasks, as in `Projects.forget`.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update())
    project.reconciled_until = None
    session.execute(update(TaskState).where(TaskState.project_id == project.id).values(sync_fingerprint=None))
