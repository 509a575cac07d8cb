"""A database, a model store or a Label Studio that accepts connections and never answers delays only what needs it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import Pool

from refcut_backend.api.app import create_app
from refcut_backend.api.handlers import REASON_HEADER
from refcut_backend.database import engine as engine_module
from refcut_backend.database import upgrade
from refcut_backend.database.engine import WriteCheck, open_database
from refcut_backend.errors import ConfigError
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import click_body, queue_state
from tests.support.http_server import serving
from tests.support.postgresql import running_postgresql
from tests.support.recorded import backend_request, click_result
from tests.support.silent_server import Proxy, silent_server
from tests.support.worker_farm import wait_for

GENEROUS_S = 30


class Hang:
    """Stands in for calls of a neighbour that is silent until the test ends."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __call__(self, *_arguments: object, **_more: object) -> Any:
        self.released.wait(20 * GENEROUS_S)
        raise OperationalError("select", {}, Exception("the server closed the connection"))


@pytest.fixture
def hang() -> Iterator[Hang]:
    made = Hang()
    yield made
    made.released.set()


def at_once(server: httpx.Client, number: int, send: Callable[[httpx.Client], httpx.Response]) -> list[Any]:
    """Sends requests at once, each over a connection of its own, and does not wait for their answers."""
    pool = ThreadPoolExecutor(number)
    url = server.base_url

    def one() -> httpx.Response:
        with httpx.Client(base_url=url, timeout=20 * GENEROUS_S, trust_env=False, verify=False) as client:
            return send(client)

    futures = [pool.submit(one) for _ in range(number)]
    pool.shutdown(wait=False)
    return futures


def test_a_click_that_hangs_outside_the_queue_ends_at_its_deadline_with_a_reason(wiring, hang, monkeypatch):
    monkeypatch.setattr(wiring.clicks, "answer", hang)
    with serving(create_app(replace(wiring, click_timeout_s=0.2), LIMIT_BYTES)) as server:
        answer = server.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
        hang.released.set()
    assert answer.status_code == 200
    assert answer.headers[REASON_HEADER] == "timeout"
    assert [result["result"] for result in answer.json()["results"]] == [[]]


def test_with_everything_silent_the_server_is_alive_and_says_that_it_is_not_ready(
    wiring, queue, hang, monkeypatch
):
    """More requests of each kind than it has threads for: none of them may run on the event loop, or take all threads."""
    queue.state = queue_state(0, 1)
    for owner, name in (
        (wiring.clicks, "answer"),
        (wiring.projects, "remember"),
        (wiring.versions, "of"),
        (wiring.training.status, "job"),
    ):
        monkeypatch.setattr(owner, name, hang)
    check = WriteCheck(open_database("sqlite://"), limit_s=0.2)
    monkeypatch.setattr(check, "_write_and_release", hang)
    opened = backend_request("api_open_task", "/predict")
    setup = backend_request("api_list_ml", "/setup")
    with serving(create_app(replace(wiring, database_is_writable=check.passes), LIMIT_BYTES)) as server:
        waiting = at_once(server, 45, lambda client: client.post("/setup", json=setup))
        waiting += at_once(server, 45, lambda client: client.post("/predict", json=opened))
        waiting += at_once(server, 45, lambda client: client.post("/job_status", json={"job": "x"}))
        time.sleep(1)
        started = time.monotonic()
        assert server.get("/livez").status_code == 200
        assert server.get("/health").status_code == 200
        assert server.get("/versions").status_code == 200
        ready = server.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, "down")
        assert time.monotonic() - started < GENEROUS_S
        assert [future.result().text for future in waiting if future.done()] == []
        hang.released.set()
        assert {future.result().status_code for future in waiting} == {503}


def test_a_postgresql_that_is_silent_from_the_start_is_a_clear_error_in_time(monkeypatch):
    monkeypatch.setattr(engine_module, "CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES", 1)
    with silent_server() as address:
        started = time.monotonic()
        with pytest.raises(ConfigError, match="OperationalError"):
            open_database(f"postgresql+psycopg://refcut@{address}/refcut")
        assert time.monotonic() - started < GENEROUS_S


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[Proxy, str]]:
    """A PostgreSQL behind a proxy, and its URL."""
    with running_postgresql() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        proxy = Proxy(port)
        yield proxy, url.replace(f":{port}/", f":{proxy.port}/")
        proxy.close()


def works(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.execute(text("SELECT 1")).scalar() == 1


def test_a_postgresql_that_falls_silent_ends_each_statement_in_time_and_works_again_afterwards(proxied):
    proxy, url = proxied
    engine = open_database(url, answer_timeout_s=0.5)
    assert works(engine)
    try:
        proxy.is_silent = True
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(OperationalError):
                works(engine)
            assert time.monotonic() - started < GENEROUS_S
        check = WriteCheck(engine, limit_s=0.3)
        assert not check.passes()
    finally:
        proxy.is_silent = False
    wait_for(check.passes, "the check has ended and the next one passes")
    assert works(engine)
    engine.dispose()


def test_a_statement_that_takes_too_long_is_ended_by_the_server(proxied):
    engine = open_database(proxied[1], answer_timeout_s=0.5)
    with engine.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(60)"))
    engine.dispose()


@pytest.fixture
def locked(tmp_path) -> Iterator[None]:
    """The database of `wiring`, locked by another process."""
    other = create_engine(f"sqlite:///{tmp_path / 'refcut.db'}")
    with other.connect() as connection:
        connection.execute(text("BEGIN EXCLUSIVE"))
        yield
        connection.rollback()
    other.dispose()


def test_a_locked_database_is_503_without_a_traceback_and_is_not_ready(client, queue, caplog, wiring, locked):
    queue.state = queue_state(0, 1)
    answer = client.post("/setup", json=backend_request("api_list_ml", "/setup"))
    assert (answer.status_code, answer.json()["error"]) == (503, "database")
    assert client.get("/readyz").json()["database"] == "down"
    assert not any(record.exc_info for record in caplog.records)


@pytest.fixture
def read_only(wiring) -> Iterator[None]:
    """The volume of `wiring` has become read-only: SQLite refuses to write, as it does there."""

    def refuse_to_write(connection: Any, *_more: object) -> None:
        connection.execute("PRAGMA query_only=ON")

    event.listen(Pool, "checkout", refuse_to_write)
    yield
    event.remove(Pool, "checkout", refuse_to_write)


def test_on_a_read_only_volume_clicks_are_answered_and_all_that_is_to_be_kept_is_refused(
    client, queue, caplog, read_only
):
    queue.state = queue_state(0, 1)
    answer = client.post("/predict", json=click_body(click_result("a", 1, 1, "Door")))
    assert REASON_HEADER not in answer.headers
    assert answer.json()["results"][0]["result"]
    setup = client.post("/setup", json=backend_request("api_list_ml", "/setup"))
    assert (setup.status_code, setup.json()["error"]) == (503, "database")
    assert (client.get("/readyz").status_code, client.get("/readyz").json()["database"]) == (503, "down")
    assert not any(record.exc_info for record in caplog.records)


def test_start_training_on_a_database_that_fails_is_503_without_a_traceback(
    client, wiring, monkeypatch, caplog
):
    monkeypatch.setattr(wiring.training.requests, "button_pressed", fail)
    answer = client.post("/webhook", json=backend_request("api_train", "/webhook"))
    assert (answer.status_code, answer.json()["error"]) == (503, "database")
    assert not any(record.exc_info for record in caplog.records)


def fail(*_arguments: object) -> None:
    raise OperationalError("insert", {}, Exception("the database or disk is full"))
