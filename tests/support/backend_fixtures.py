"""A server on fakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from sqlalchemy import Engine, create_engine

from refcut_backend.api.app import create_app
from refcut_backend.database.engine import open_database
from refcut_backend.queue.redis import EmbeddedRedis, check_redis, connect_redis
from tests.support.fake_label_studio import FakeLabelStudio, running
from tests.support.fake_wiring import FakePreloader, FakeQueue, wiring_on
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.registry import Registry, open_registry
from tests.support.training_world import World, open_world
from tests.support.worker_farm import WorkerFarm

LIMIT_BYTES = 1_000_000


@pytest.fixture
def queue() -> FakeQueue:
    """A queue that answers at once and keeps the jobs."""
    return FakeQueue()


@pytest.fixture
def preloader() -> FakePreloader:
    """A fake of what prepares a task that is opened."""
    return FakePreloader()


@pytest.fixture
def wiring(tmp_path, queue, preloader):
    """The services behind the web server, on a fresh database."""
    with wiring_on(tmp_path, queue, preloader) as made:
        yield made


@pytest.fixture
def client(wiring) -> Iterator[TestClient]:
    """A client of the web server's routes, in this process."""
    with TestClient(create_app(wiring, LIMIT_BYTES), raise_server_exceptions=False) as test_client:
        yield test_client


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Address of a Redis for all tests of this process; `connection` empties it."""
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
def databases_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For what holds databases as long as its process lives: those opened from here on are closed after the test."""
    opened: list[Engine] = []

    def create(*arguments: Any, **options: Any) -> Engine:
        opened.append(create_engine(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr("refcut_backend.database.engine.create_engine", create)
    yield
    for engine in opened:
        engine.dispose()


@pytest.fixture
def registry(tmp_path) -> Iterator[Registry]:
    """The references over a fresh database."""
    with open_registry(tmp_path) as opened:
        yield opened


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    """A fake Label Studio that serves files."""
    with running(FakeLabelStudio()) as fake:
        yield fake


@pytest.fixture
def label_studio_api(registry: Registry) -> Iterator[LabelStudioApi]:
    """A Label Studio in memory, whose project 7 is connected with the registry."""
    with serving(LabelStudioApi()) as api:
        registry.connect(api)
        yield api


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    """A connected project without annotations."""
    with open_world(tmp_path) as opened:
        yield opened
