"""Where the Redis is that a running `refcut run` embeds, for commands on the same machine: a file in the state folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refcut_backend.errors import ConfigError
from refcut_backend.jobs.redis_server import check_redis
from refcut_backend.settings import Settings

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
