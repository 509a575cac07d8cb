"""Insert, or update what is there already: in one statement, whoever writes the same row at this moment."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

from sqlalchemy import Engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase

Upsert = postgresql.Insert | sqlite.Insert


def upsert(
    engine: Engine, table: type[DeclarativeBase], columns: Collection[str], newest_by: str | None = None
) -> Upsert:
    """A statement for rows of a table. columns: what of a row that exists is replaced.

    newest_by: column in which a row that exists must not be larger than the new one; else it stays as it is.
    """
    return _statement(engine.dialect.name, table, tuple(columns), newest_by)


@cache
def _statement(
    dialect: str, table: type[DeclarativeBase], columns: tuple[str, ...], newest_by: str | None
) -> Upsert:
    """Made once: making it takes longer than running it."""
    insert: Upsert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    where = None
    if newest_by is not None:
        where = table.__table__.columns[newest_by] <= insert.excluded[newest_by]
    return insert.on_conflict_do_update(
        index_elements=list(table.__table__.primary_key),
        set_={name: insert.excluded[name] for name in columns},
        where=where,
    )
