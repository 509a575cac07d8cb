"""What a piece of code asks of the database: its statements, and the indexes that SQLite reads for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

_PLAN = re.compile(r"(?:SCAN|SEARCH) (?P<table>\w+)(?: USING (?:COVERING )?(?:INDEX )?(?P<index>[\w ]+))?")

Statement = tuple[str, Any]
"""Text and parameters, as the driver gets them."""


@contextmanager
def recorded_statements(engine: Engine) -> Iterator[list[Statement]]:
    """The statements that are executed inside the block, in their order."""
    found: list[Statement] = []

    def note(
        _c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool
    ) -> None:
        found.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


def indexes_read(engine: Engine, statements: list[Statement]) -> set[tuple[str, str | None]]:
    """Pairs of a table and the index that SQLite uses to find rows in it; None for a table that it reads whole."""
    with engine.connect() as connection:
        steps = [
            str(row.detail)
            for statement, parameters in statements
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    return {
        (match["table"], match["index"] and match["index"].strip())
        for match in map(_PLAN.match, steps)
        if match is not None
    }
