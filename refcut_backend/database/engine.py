"""Opens the database, SQLite or PostgreSQL; builds upserts for both; checks whether it can be written."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry

from refcut_backend.database.tables import Lease
from refcut_backend.database.upgrade import make_current
from refcut_backend.errors import ConfigError, DatabaseFailsError
from refcut_backend.system.deadlines import NoAnswerError, answer_within

log = logging.getLogger("refcut.database")

OWNER_ONLY, OWNER_ONLY_FOLDER = 0o600, 0o700
SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite appends to the file's name for the files beside it; they hold parts of its content."""
CONNECT_TIMEOUT_S = 3
"""For PostgreSQL. A click has a deadline of seconds, while drivers by default wait for minutes."""
ANSWER_TIMEOUT_S = 20.0
"""For PostgreSQL: longest time for one statement. The server ends it; a server that is silent is left a second later."""
POOL_TIMEOUT_S = 5
"""Longest wait for a connection of the pool while all of them wait for the database."""
WATCH_INTERVAL_S = 0.1
"""How often psycopg looks for signals while it waits."""
KEEPALIVE = {
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""For PostgreSQL: after about 15 s the system gives up a connection whose other end is gone."""


def open_database(
    url: str, lock_timeout_ms: int = 5000, answer_timeout_s: float = ANSWER_TIMEOUT_S
) -> Engine:
    """Opens a database and adds missing tables and columns.

    A SQLite file is made readable only by its owner, because it contains Label Studio's tokens. It uses write-ahead
    logging, so that the web process and the workers can read while one of them writes.

    Args:
        url: SQLAlchemy URL: "sqlite:///..." or "postgresql+psycopg://...".
        lock_timeout_ms: How long a statement waits for another process that is writing.
        answer_timeout_s: How long a statement may take on PostgreSQL. SQLite has no server that could be silent.

    Raises:
        ConfigError: The database cannot be opened, or its driver is not installed. The message contains no password.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(
            parsed,
            hide_parameters=True,
            json_deserializer=from_json,
            **_options(parsed, lock_timeout_ms, answer_timeout_s),
        )
        if parsed.get_backend_name() == "postgresql":
            _leave_silent_servers(engine, answer_timeout_s + 1)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            _prepare_sqlite(engine, Path(parsed.database), lock_timeout_ms)
        try:
            make_current(engine)
        except SQLAlchemyError:
            engine.dispose()
            raise
    except ImportError as error:
        raise ConfigError(
            f"the database's driver is not installed ({error.name})",
            hint="REFCUT_DATABASE_URL begins with sqlite:// or postgresql+psycopg://; "
            "`pip install 'refcut-label-studio[postgres]'` installs the driver of the latter",
        ) from None
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            "REFCUT_DATABASE_URL is not a valid database URL",
            hint="it begins with sqlite:/// or postgresql+psycopg://",
        ) from None
    except (SQLAlchemyError, OSError) as error:
        raise ConfigError(
            f"the database cannot be opened ({type(error).__name__})", hint=_how_to_open(parsed)
        ) from None
    return engine


def _how_to_open(url: URL) -> str:
    """What to check if a database cannot be opened. Names neither user nor password."""
    if url.get_backend_name() == "sqlite":
        return "check that REFCUT_STATE_DIR, or the folder in REFCUT_DATABASE_URL, can be written to"
    where = f"{url.host or 'localhost'}:{url.port or 5432}"
    return f"check that the server at {where} runs, and user, password and database in REFCUT_DATABASE_URL"


def _options(url: URL, lock_timeout_ms: int, answer_timeout_s: float) -> dict[str, Any]:
    """For PostgreSQL, connections that broke while idle are detected before they are used."""
    if url.get_backend_name() != "postgresql":
        return {"pool_timeout": POOL_TIMEOUT_S} if url.database not in (None, "", ":memory:") else {}
    limits = {"lock_timeout": lock_timeout_ms, "statement_timeout": round(1000 * answer_timeout_s)}
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
    }
    return {
        "pool_pre_ping": True,
        "pool_timeout": POOL_TIMEOUT_S,
        "connect_args": arguments | KEEPALIVE,
    }


def _leave_silent_servers(engine: Engine, limit_s: float) -> None:
    """Closes a connection on which the server is silent: it accepts packets, and neither answers nor ends statements.

    Neither PostgreSQL's own limits nor those of TCP notice a server that is stopped, or a proxy whose server is gone.
    """
    import psycopg

    class ImpatientConnection(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = WATCH_INTERVAL_S, timeout: float | None = None) -> Any:
            started = time.monotonic()
            try:
                return super().wait(gen, interval, timeout=limit_s if timeout is None else timeout)
            except psycopg.OperationalError:
                if timeout is not None or time.monotonic() - started < limit_s:
                    raise
                self.pgconn.finish()
                raise psycopg.OperationalError(f"the database did not answer within {limit_s:g} s") from None

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, arguments: list[Any], more: dict[str, Any]) -> object:
        return ImpatientConnection.connect(*arguments, **more)


def _prepare_sqlite(engine: Engine, path: Path, lock_timeout_ms: int) -> None:
    path.parent.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    path.touch(mode=OWNER_ONLY)
    for file in (path, *(path.with_name(path.name + suffix) for suffix in SQLITE_COMPANIONS)):
        _make_private(file)

    @event.listens_for(engine, "connect")
    def _pragmas(connection: object, _entry: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in (f"busy_timeout={lock_timeout_ms}", "journal_mode=WAL", "synchronous=NORMAL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()


def _make_private(file: Path) -> None:
    """Takes the rights to a file from everybody but its owner, as far as this user may."""
    with suppress(FileNotFoundError):
        if file.stat().st_mode & 0o077:
            try:
                file.chmod(OWNER_ONLY)
            except OSError as error:
                log.warning(
                    "other users can read the database, which holds tokens of Label Studio",
                    extra={"file": file.name, "problem": type(error).__name__},
                )


@contextmanager
def database_explained() -> Iterator[None]:
    """Turns a failure of the database into an error with a reason code. Raises DatabaseFailsError."""
    try:
        yield
    except SQLAlchemyError as error:
        raise DatabaseFailsError(
            f"the database fails ({type(error).__name__})",
            hint="check that its disk has room, and REFCUT_DATABASE_URL",
        ) from error


Upsert = postgresql.Insert | sqlite.Insert


def upsert(
    engine: Engine, table: type[DeclarativeBase], columns: Collection[str], newest_by: str | None = None
) -> Upsert:
    """Builds a statement that inserts rows, or updates rows whose primary key exists.

    Args:
        engine: Determines the dialect: SQLite or PostgreSQL.
        table: The table.
        columns: Keys of the columns that an existing row takes over from the new one.
        newest_by: Key of a column. An existing row with a larger value there stays unchanged.
    """
    return _statement(engine.dialect.name, table, tuple(columns), newest_by)


@cache
def _statement(
    dialect: str, table: type[DeclarativeBase], columns: tuple[str, ...], newest_by: str | None
) -> Upsert:
    """Cached, because building the statement takes longer than running it."""
    insert: Upsert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    where = None
    if newest_by is not None:
        where = table.__table__.columns[newest_by] <= insert.excluded[newest_by]
    return insert.on_conflict_do_update(
        index_elements=list(table.__table__.primary_key),
        set_={name: insert.excluded[name] for name in columns},
        where=where,
    )


class WriteCheck:
    """Checks whether the database can be written, within seconds even if it is locked or silent; for probes.

    Args:
        engine: The database.
        limit_s: Longest time for an answer.
    """

    def __init__(self, engine: Engine, limit_s: float = 2.0) -> None:
        self._engine = engine
        self._limit_s = limit_s
        self._running = threading.Lock()

    def passes(self) -> bool:
        """Write a row; return whether that succeeded in time. A check that hangs is not followed by a second one."""
        if not self._running.acquire(timeout=self._limit_s):
            return False
        try:
            answer_within(self._limit_s, self._write_and_release, "database-check")
        except (NoAnswerError, SQLAlchemyError):
            return False
        return True

    def _write_and_release(self) -> None:
        try:
            row = {"name": "write-check", "holder": "", "expires_at": time.time()}
            with self._engine.begin() as connection:
                connection.execute(upsert(self._engine, Lease, ["expires_at"]), row)
        finally:
            self._running.release()
