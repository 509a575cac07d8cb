"""Makes a database hold the tables and columns that `tables.py` declares, whichever version made it.

Only additions are ever needed (`tables.py` says why), so no list of migrations is kept: what is missing is seen in the
database itself. Processes may start at once: what one has just added, the other finds on its second look.
"""

from __future__ import annotations

import time

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateColumn

from refcut_backend.store.tables import Base

LOOKS = 5
PAUSE_S = 0.2


def make_current(engine: Engine) -> None:
    """Adds missing tables and columns. Raises SQLAlchemyError when the database does not let it."""
    for look in range(LOOKS):
        try:
            Base.metadata.create_all(engine)
            with engine.begin() as connection:
                _add_columns(connection)
            return
        except SQLAlchemyError:
            if look == LOOKS - 1:
                raise
            time.sleep(PAUSE_S)


def _add_columns(connection: Connection) -> None:
    present = inspect(connection)
    dialect = connection.dialect
    for table in Base.metadata.sorted_tables:
        known = {column["name"] for column in present.get_columns(table.name)}
        for column in table.columns:
            if column.name not in known:
                name = dialect.identifier_preparer.format_table(table)
                declared = CreateColumn(column).compile(dialect=dialect)
                connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {declared}")
