"""Brings a database up to date: adds the declared tables, columns, indexes and counts that it lacks."""

from __future__ import annotations

import time

from sqlalchemy import Connection, Engine, Index, Table, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateColumn

from refcut_backend.database import click_tables, indexes  # noqa: F401  # parts of the metadata
from refcut_backend.database.annotation_counts import count_annotations
from refcut_backend.database.tables import Base

UPGRADE_TRIES = 5
"""Processes that start together may add the same table at once: one of them fails and looks again."""
RETRY_PAUSE_S = 0.2


def make_current(engine: Engine) -> None:
    """Adds what is missing. Raises SQLAlchemyError if the database refuses that."""
    for attempt in range(UPGRADE_TRIES):
        try:
            Base.metadata.create_all(engine)
            with engine.begin() as connection:
                _add_columns(connection)
            for index in _missing_indexes(engine):
                _add_index(engine, index)
            with engine.begin() as connection:
                count_annotations(connection)
            return
        except SQLAlchemyError:
            if attempt == UPGRADE_TRIES - 1:
                raise
            time.sleep(RETRY_PAUSE_S)


def _tables() -> list[Table]:
    return Base.metadata.sorted_tables


def _add_columns(connection: Connection) -> None:
    present = inspect(connection)
    dialect = connection.dialect
    for table in _tables():
        known = {column["name"] for column in present.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                name = dialect.identifier_preparer.format_table(table)
                declared = CreateColumn(column).compile(dialect=dialect)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {declared}")


def _add_index(engine: Engine, index: Index) -> None:
    """Adds an index. In a large database that takes seconds, so another process may have added it meanwhile."""
    try:
        index.create(engine)
    except SQLAlchemyError:
        if index in _missing_indexes(engine):
            raise


def _missing_indexes(engine: Engine) -> list[Index]:
    # Looks first: on PostgreSQL even CREATE INDEX IF NOT EXISTS waits for everybody who writes to the table.
    present = inspect(engine)
    return [
        index
        for table in _tables()
        for known in [{found["name"] for found in present.get_indexes(table.name)}]
        for index in sorted(table.indexes, key=lambda index: str(index.name))
        if index.name not in known
    ]
