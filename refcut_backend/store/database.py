"""Opens the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from refcut_backend.errors import ConfigError
from refcut_backend.store.schema import make_current

PRIVATE = 0o600
CONNECTS_WITHIN_S = 3
"""PostgreSQL: a click has a deadline of seconds, and drivers would wait for minutes."""


def open_database(url: str, lock_timeout_ms: int = 5000) -> Engine:
    """An engine with all tables. Raises ConfigError when the database cannot be opened.

    lock_timeout_ms: how long to wait for another process that is writing.

    SQLite files are readable by their owner only, since they hold Label Studio's tokens; write-ahead logging lets web
    process and workers read while one of them writes.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(
            parsed, hide_parameters=True, json_deserializer=from_json, **_options(parsed, lock_timeout_ms)
        )
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            _prepare_sqlite(engine, Path(parsed.database), lock_timeout_ms)
        make_current(engine)
    except ImportError as error:
        raise ConfigError(
            f"the database's driver is not installed ({error.name})",
            hint="REFCUT_DATABASE_URL begins with sqlite:// or postgresql+psycopg://",
        ) from None
    except (SQLAlchemyError, ArgumentError, OSError) as error:
        raise ConfigError(
            f"the database cannot be opened ({type(error).__name__})",
            hint="check REFCUT_DATABASE_URL and that REFCUT_STATE_DIR can be written to",
        ) from None
    return engine


def _options(url: URL, lock_timeout_ms: int) -> dict[str, Any]:
    """For PostgreSQL: connections that broke while they were idle are noticed before they are used."""
    if url.get_backend_name() != "postgresql":
        return {}
    arguments = {"connect_timeout": CONNECTS_WITHIN_S, "options": f"-c lock_timeout={lock_timeout_ms}"}
    return {"pool_pre_ping": True, "connect_args": arguments}


def _prepare_sqlite(engine: Engine, path: Path, lock_timeout_ms: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=PRIVATE)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in (f"busy_timeout={lock_timeout_ms}", "journal_mode=WAL", "synchronous=NORMAL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
