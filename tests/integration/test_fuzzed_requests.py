"""No request, however odd, makes the web server fail. `benchmarks/fuzz_requests.py` sends ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from refcut_backend.api.app import create_app
from tests.support.fake_wiring import FakeQueue, wiring_on
from tests.support.fuzzed_requests import faults_of, fuzzed_requests
from tests.support.postgresql import running_postgresql

REQUESTS = 250
LIMIT_BYTES = 2**20


def test_odd_requests_are_answered_on_sqlite(tmp_path, caplog):
    check(tmp_path, None, caplog)


def test_odd_requests_are_answered_on_postgresql(tmp_path, caplog):
    with running_postgresql() as url:
        check(tmp_path, url, caplog)


def check(folder: Path, url: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with (
        wiring_on(folder, FakeQueue(), url=url) as wiring,
        TestClient(create_app(wiring, LIMIT_BYTES), raise_server_exceptions=False) as client,
    ):
        faults = faults_of(client, fuzzed_requests(REQUESTS))
    failed = [record.exc_text for record in caplog.records if record.message == "request failed"]
    assert (faults, failed) == ([], [])
