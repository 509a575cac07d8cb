"""Which stored project is the one that calls /setup, and how all projects with one number are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from refcut_backend.database.tables import Project
from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.project_ids import MAX_PLACES, project_id_of, project_name

PLACES_AT_ONCE = 8


@dataclass(frozen=True)
class KnownProject:
    """A project as lists show it.

    Attributes:
        project_id: The id under which everything about it is stored.
        label_studio: Address of its Label Studio as that reported it.
        created: When it was created, in seconds since 1970 as Label Studio writes it; None if it never
            reported that.
    """

    project_id: int
    label_studio: str
    created: str | None

    def __str__(self) -> str:
        """Name, address and creation in one line."""
        where = self.label_studio or "an unknown Label Studio"
        return f"{project_name(self.project_id)} at {where}, created {shown_time(self.created)}"


def shown_time(created: str | None) -> str:
    """Formats the creation time of a project for people."""
    try:
        return f"{datetime.fromtimestamp(int(created or ''), UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


IDENTITIES = select(
    Project.id, Project.label_studio, Project.created_at.label("created_at"), Project.forgotten_at
).order_by(Project.id)
"""Without label config, because every click runs it."""


def rows_of_number(session: Session, number: int) -> list[Project]:
    """Returns the rows of all projects with a number, forgotten ones included."""
    query = select(Project).order_by(Project.id)
    return read_places(number, lambda ids: session.scalars(query.where(Project.id.in_(ids))).all())


R = TypeVar("R")


def read_places(number: int, read: Callable[[list[int]], Sequence[R]]) -> list[R]:
    """Reads the projects with a number, some places at a time: places have no gaps.

    Args:
        number: Label Studio's number.
        read: Returns what is stored under some project ids, in ascending order.
    """
    rows: list[R] = []
    while len(rows) % PLACES_AT_ONCE == 0:
        first = len(rows) + 1
        part = read([project_id_of(number, place) for place in range(first, first + PLACES_AT_ONCE)])
        if not part:
            break
        rows += part
    return rows


def same_project(rows: Sequence[Project], reported: Connection, created_at: str | None) -> Project | None:
    """Returns the row of the project that calls /setup; None if it is a new one.

    A known token proves that a caller is the Label Studio of the row, if that has another address now (or did not know
    its own before), or if an earlier version of this program wrote the row, without the time of the creation. A row with
    neither address nor token is taken by the first caller that has one.
    """
    here = [row for row in rows if row.label_studio == reported.label_studio]
    trusted = [row for row in rows if _is_trusted(row, reported)]
    if created_at is None:
        candidates = here[-1:] or trusted
        return candidates[0] if len(candidates) == 1 else None
    for group in (here, trusted):
        for row in group:
            if row.created_at == created_at:
                return row
    return next((row for row in here if row.created_at is None and row in trusted), None)


def _is_trusted(row: Project, reported: Connection) -> bool:
    if row.access_token:
        return row.access_token == reported.access_token
    return not row.label_studio and row.forgotten_at is None


def new_project(number: int, known: Sequence[Project]) -> Project:
    """Returns a row for one more project with a number. Raises ConfigError if there are too many."""
    if len(known) >= MAX_PLACES:
        raise ConfigError(
            f"{len(known)} projects with the number {number} have called /setup",
            hint="`refcut projects list` shows them",
        )
    return Project(id=project_id_of(number, len(known) + 1))


def known_project(row: Row[*tuple[Any, ...]]) -> KnownProject:
    """Converts a row of `IDENTITIES`."""
    return KnownProject(row.id, row.label_studio, row.created_at)
