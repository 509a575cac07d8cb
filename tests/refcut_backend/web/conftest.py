"""A server on fakes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from tests.fake_services import FakeOpener, FakeQueue, services_on

LIMIT_BYTES = 1_000_000


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener()


@pytest.fixture
def services(tmp_path, queue, opener):
    with services_on(tmp_path, queue, opener) as made:
        yield made


@pytest.fixture
def client(services) -> Iterator[TestClient]:
    with TestClient(create_app(services, LIMIT_BYTES), raise_server_exceptions=False) as test_client:
        yield test_client
