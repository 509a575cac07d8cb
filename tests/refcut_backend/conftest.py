from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from sqlalchemy import Engine

from refcut_backend.database.engine import open_database
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from tests.fake_label_studio import FakeLabelStudio, running
from tests.worker_farm import WorkerFarm


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with EmbeddedRedis() as server:
        check_redis(server.url)
        yield server.url


@pytest.fixture
def connection(redis_url: str) -> Iterator[Redis]:
    """A connection to an empty Redis."""
    opened = connect_redis(redis_url)
    opened.flushall()
    yield opened
    opened.close()


@pytest.fixture
def farm(redis_url: str, connection: Redis, tmp_path) -> Iterator[WorkerFarm]:
    """Fake workers and callers on an empty Redis."""
    with WorkerFarm(redis_url, tmp_path) as farm:
        yield farm


@pytest.fixture
def engine(tmp_path) -> Iterator[Engine]:
    """A fresh database."""
    opened = open_database(f"sqlite:///{tmp_path / 'state' / 'refcut.db'}")
    yield opened
    opened.dispose()


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with running(FakeLabelStudio()) as fake:
        yield fake
