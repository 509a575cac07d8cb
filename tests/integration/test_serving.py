"""Promises that need a real server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from refcut_backend.api.app import create_app
from refcut_backend.label_studio.payloads import Webhook
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.http_server import serving
from tests.support.recorded import backend_request, recorded


@pytest.fixture
def server(wiring) -> Iterator[httpx.Client]:
    with serving(create_app(wiring, LIMIT_BYTES)) as client:
        yield client


def test_a_webhook_is_acknowledged_before_its_work_begins_to_end(server, wiring, monkeypatch):
    working, may_end = threading.Event(), threading.Event()

    def work(_webhook: object) -> None:
        working.set()
        may_end.wait(60)

    monkeypatch.setattr(wiring.follower, "apply", work)
    body = backend_request("api_annotation_create", "/webhook")
    try:
        assert server.post("/webhook", json=body).json() == {"status": "accepted"}
        assert working.wait(60)
        assert server.get("/health").status_code == 200
        assert server.post("/webhook", json=body).json() == {"status": "accepted"}
    finally:
        may_end.set()


def test_fifty_setups_at_once_are_all_answered_and_store_one_project(server, wiring):
    body = backend_request("api_list_ml", "/setup")

    def setup(_number: int) -> httpx.Response:
        return httpx.post(server.base_url.join("/setup"), json=body, timeout=60, trust_env=False)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(setup, range(50)))
    assert [answer.status_code for answer in answers] == [200] * 50
    assert {answer.text for answer in answers} == {'{"model_version":"s14-test"}'}
    assert wiring.projects.label_config(2) == body["schema"]


def test_health_touches_neither_redis_nor_disk(server, queue, tmp_path):
    queue.state = None
    for file in tmp_path.glob("refcut.db*"):
        file.unlink()
    tmp_path.rmdir()
    assert server.get("/health").json()["status"] == "UP"
    tmp_path.mkdir()


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent(server):
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {10**8}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.base_url.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_clicks_that_wait_keep_nobody_else_from_being_answered(server, wiring, queue, monkeypatch):
    """More clicks than the server has threads for other requests; Label Studio waits 3 s for /setup, 1 s for /health."""
    waiting, may_end = threading.Semaphore(0), threading.Event()

    def wait(_job: object) -> object:
        waiting.release()
        may_end.wait(60)
        return queue.answer

    monkeypatch.setattr(queue, "ask", wait)
    body = recorded("predict_interactive_3clicks_full")["body"]

    def click(_number: int) -> int:
        return httpx.post(
            server.base_url.join("/predict"), json=body, timeout=90, trust_env=False
        ).status_code

    clicks = 45
    with ThreadPoolExecutor(clicks) as pool:
        answers = [pool.submit(click, number) for number in range(clicks)]
        try:
            for _ in range(40):
                assert waiting.acquire(timeout=60)
            setup = backend_request("api_list_ml", "/setup")
            assert server.post("/setup", json=setup, timeout=20).status_code == 200
            assert server.get("/health", timeout=20).status_code == 200
            assert server.get("/status", timeout=20).status_code == 200
        finally:
            may_end.set()
        assert [answer.result() for answer in answers] == [200] * clicks


def test_events_are_worked_on_one_at_a_time_in_the_order_in_which_they_came(server, wiring, monkeypatch):
    seen, at_work = [], threading.Lock()

    def work(event: Webhook) -> None:
        assert at_work.acquire(blocking=False), "two at once"
        time.sleep(0.01)
        seen.append(event.annotation.id)
        at_work.release()

    monkeypatch.setattr(wiring.follower, "apply", work)
    body = backend_request("api_annotation_create", "/webhook")
    for number in range(1, 9):
        event = body | {"annotation": body["annotation"] | {"id": number}}
        assert server.post("/webhook", json=event).status_code == 200
    deadline = time.monotonic() + 60
    while len(seen) < 8:
        assert time.monotonic() < deadline, "events were lost"
        time.sleep(0.01)
    assert seen == list(range(1, 9))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body | {"annotation": body["annotation"] | {"updated_at": "0001-01-01T00:00:00+14:00"}},
        lambda body: body | {"task": body["task"] | {"updated_at": "9999-12-31T23:59:59-14:00"}},
        lambda body: body | {"annotation": body["annotation"] | {"completed_by": 2**70, "updated_by": None}},
        lambda body: body | {"annotation": body["annotation"] | {"updated_by": {"id": "x"}, "task": 2**70}},
        lambda body: body | {"annotation": body["annotation"] | {"result": ["x", None, {"type": ["x"]}]}},
        lambda body: body | {"annotation": body["annotation"] | {"result": "x"}},
        lambda body: body | {"project": body["project"] | {"created_at": "0001-01-01T00:00:00+14:00"}},
        lambda body: json.dumps(body).replace('"result": [', '"result": [{"rle": [1, nonsense]}, ', 1),
    ],
    ids=["year 1", "year 9999", "author", "author and task", "items", "result", "creation", "rle"],
)
def test_an_event_that_was_acknowledged_never_ends_in_a_traceback(server, caplog, change):
    caplog.set_level("INFO", logger="refcut")
    body = change(backend_request("api_annotation_create", "/webhook"))
    content = body if isinstance(body, str) else json.dumps(body)
    answer = server.post("/webhook", content=content, headers={"Content-Type": "application/json"})
    assert answer.json() == {"status": "accepted"}
    # Events are worked on in their order, so this one has been applied when the next one has.
    assert server.post("/webhook", json={"action": "NEXT", "project": {"id": 99}}).status_code == 200
    deadline = time.monotonic() + 60
    while not any(
        getattr(record, "project", None) == 99 for record in caplog.records if "webhook" in record.message
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not [record for record in caplog.records if record.exc_info]
    assert not [record for record in caplog.records if "nonsense" in str(record.__dict__)]
