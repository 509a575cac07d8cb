"""Bodies of requests: their limits, where they are while they arrive or wait, and what reading one may cost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from refcut_backend.api import app as app_module
from refcut_backend.api.app import create_app
from refcut_backend.api.bodies import BODY, MAX_OBJECTS, MAX_VALUES, Body, BodyLimit, Room, parsed
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.payloads import (
    MAX_TASKS,
    PredictRequest,
    SetupRequest,
    Webhook,
    without_masks,
)
from tests.support.backend_fixtures import LIMIT_BYTES
from tests.support.fake_wiring import FakeQueue, click_body, wiring_on
from tests.support.http_server import serving
from tests.support.recorded import LABEL_CONFIG, PROJECT, click_result
from tests.support.worker_farm import wait_for

MIB = 2**20

PATHS = ["/setup", "/predict", "/webhook"]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", PATHS)
def test_a_body_over_the_limit_is_refused_with_a_hint(client, path):
    answer = client.post(path, content=b" " * (LIMIT_BYTES + 1), headers=JSON)
    assert answer.status_code == 413
    assert "REFCUT_REQUEST_MAX_BYTES" in answer.text


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_does_not_say_how_long_it_is_is_refused_as_soon_as_it_is_too_long(client, path):
    taken = []

    async def endless() -> AsyncIterator[bytes]:
        for number in range(50):
            taken.append(number)
            yield b" " * (LIMIT_BYTES // 10)

    async def ask() -> httpx.Response:
        # Unlike the test client, this transport takes a part of the body only when the server asks for it.
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as asking:
            return await asking.post(path, content=endless(), headers=JSON)

    answer = asyncio.run(ask())
    assert answer.status_code == 413
    assert "REFCUT_REQUEST_MAX_BYTES" in answer.text
    assert len(taken) == 11


@pytest.mark.parametrize("declared", ["100000000", "-1", "a", ""])
def test_a_declared_length_that_is_too_long_or_no_number_is_refused_unread(client, declared):
    answer = client.post("/predict", content=b"{}", headers=JSON | {"Content-Length": declared})
    assert answer.status_code == 413


def test_a_click_with_masks_up_to_the_limit_is_answered(client, queue):
    mask = {"id": "r", "type": "brushlabels", "value": {"format": "rle", "rle": [255] * 10_000}}
    body = click_body(click_result("a", 1, 1, "Door"))
    size = len(json.dumps(body))
    while size < LIMIT_BYTES - 60_000:
        body["tasks"][0].setdefault("drafts", []).append({"id": 1, "result": [mask]})
        size = len(json.dumps(body))
    # A parser that looked at a mask would stop here.
    text = json.dumps(body).replace("255", "x?")
    answer = client.post("/predict", content=text, headers=JSON)
    assert answer.status_code == 200
    assert len(answer.json()["results"][0]["result"]) == 1


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(request.scope[BODY].read())))


def receiver(max_bytes: int = 64 * MIB, **limits: float) -> BodyLimit:
    """An application that says how long a body is."""
    return BodyLimit(Starlette(routes=[Route("/", length, methods=["POST"])]), max_bytes, **limits)


@contextmanager
def half_request(server: httpx.Client, declared: int, *parts: bytes) -> Iterator[socket.socket]:
    """A connection on which a part of a body was sent."""
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {declared}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.base_url.port or 0), timeout=60) as connection:
        for part in (head.encode(), *parts):
            connection.sendall(part)
        yield connection


def received(connection: socket.socket, until: str | None = None) -> str:
    """What arrives until the server closes the connection, or until a text has arrived."""
    answer = b""
    while until is None or until.encode() not in answer:
        part = connection.recv(10_000)
        answer += part
        if not part:
            break
    return answer.decode()


def test_unfinished_bodies_do_not_stay_in_memory_and_are_complete_when_they_end():
    app, part, parts, connections = receiver(), b"x" * MIB, 24, 12
    with serving(app) as server, ExitStack() as stack:
        assert server.post("/", content=b"abc").text == "3"
        before = psutil.Process().memory_info().rss
        halves = [
            stack.enter_context(half_request(server, parts * MIB + 1, *[part] * parts))
            for _ in range(connections)
        ]
        wait_for(lambda: app._room.taken == connections * parts * MIB, "all of it has arrived")
        assert psutil.Process().memory_info().rss - before < connections * parts * MIB / 4
        halves[0].sendall(b"x")
        assert str(parts * MIB + 1) in received(halves[0], until="\r\n\r\n25")
    wait_for(lambda: app._room.taken == app._room.in_memory == 0, "all of it is freed")


@pytest.mark.parametrize("limits", [{"pause_limit_s": 0.2}, {"limit_s": 0.2}])
def test_a_body_that_does_not_arrive_in_time_is_refused(limits):
    with serving(receiver(**limits)) as server, half_request(server, 100, b"x") as connection:
        answer = received(connection)
        assert answer.startswith("HTTP/1.1 408 ")
        assert "body_too_slow" in answer


def test_a_caller_that_goes_away_within_its_body_is_no_failure(client, caplog):
    with serving(client.app) as server:
        with half_request(server, 100, b"x"):
            pass
        wait_for(lambda: "request" in [r.message for r in caplog.records], "it is logged")
    assert "request failed" not in caplog.text


def test_small_bodies_go_to_disk_too_when_there_are_many_of_them(monkeypatch):
    monkeypatch.setattr("refcut_backend.api.bodies.ALL_IN_MEMORY_BYTES", 1000)
    room = Room()
    bodies = [Body(room) for _ in range(30)]
    for number, body in enumerate(bodies):
        body.add(bytes([number]) * 50)
        body.add(bytes([number]) * 50)
    assert room.taken == 3000
    assert room.in_memory <= 1000
    assert [body.read() for body in bodies] == [bytes([number]) * 100 for number in range(30)]
    for body in bodies:
        body.close()
    assert (room.taken, room.in_memory) == (0, 0)


def test_a_full_disk_does_not_change_what_is_counted(monkeypatch):
    room = Room()
    body = Body(room)
    body.add(b"x" * 100)
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", fail_on_full_disk)
    with pytest.raises(OSError, match="No space left"):
        body.add(b"x" * MIB)
    body.close()
    assert (room.taken, room.in_memory) == (0, 0)


def fail_on_full_disk(_file: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_all_bodies_together_have_a_limit(monkeypatch):
    monkeypatch.setattr("refcut_backend.api.bodies.ALL_BYTES", 3 * MIB)
    app = receiver()
    with serving(app) as server, half_request(server, 4 * MIB, b"x" * (2 * MIB)):
        wait_for(lambda: app._room.taken == 2 * MIB, "the first half has arrived")
        assert server.post("/", content=b"x" * (2 * MIB)).status_code == 503
        assert server.post("/", content=b"abc").text == "3"


def tasks(number: int) -> bytes:
    return b'{"project": "1.1", "tasks": [' + b",".join([b'{"id":1}'] * number) + b"]}"


@pytest.mark.parametrize("number", [MAX_TASKS + 1, MAX_OBJECTS + 1])
def test_a_request_of_too_many_tasks_is_refused(number):
    with pytest.raises(RequestValidationError) as error:
        parsed(PredictRequest, tasks(number))
    assert len(error.value.errors()) == 1


def test_a_body_of_a_million_tasks_is_refused_before_anything_is_made_of_them():
    body = tasks(1_000_000)
    started = time.thread_time()
    json.loads(body)
    reading_s, started = time.thread_time() - started, time.thread_time()
    with pytest.raises(RequestValidationError):
        parsed(PredictRequest, body)
    assert time.thread_time() - started < reading_s / 2


def test_the_values_of_a_body_have_a_limit_and_those_of_masks_do_not_count():
    values = [0] * (MAX_VALUES + 1)
    masks, data = click_body(), click_body()
    masks["tasks"][0]["drafts"] = [{"result": [{"id": "r", "value": {"rle": values}}]}]
    data["tasks"][0]["data"]["more"] = values
    assert parsed(PredictRequest, without_masks(json.dumps(masks).encode())).tasks
    with pytest.raises(RequestValidationError) as error:
        parsed(PredictRequest, without_masks(json.dumps(data).encode()))
    assert "values" in error.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/setup", {"project": "1.1", "schema": "<View>\0</View>"}),
        ("/predict", click_body(click_result("a", 1, 1, "Do\0or"))),
        ("/webhook", {"action": "START_TRAINING", "project": {"id": 1, "label_config": "\0"}}),
        ("/job_status", {"job": "\0"}),
    ],
)
def test_the_character_that_no_database_stores_is_a_bad_request(client, path, body):
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert "NUL" in answer.text


def test_a_text_about_that_character_is_taken(client):
    body = json.dumps({"project": "1.1", "hostname": "http://ls/\\u0000", "schema": LABEL_CONFIG})
    assert b"\\\\u0000" in body.encode()
    assert client.post("/setup", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize(("field", "limit"), [("hostname", 2000), ("access_token", 4000), ("schema", 2**20)])
def test_a_text_that_is_too_long_for_the_database_is_a_bad_request_with_its_field(field, limit):
    parsed(SetupRequest, json.dumps({"project": "1.1", field: "x" * limit}).encode())
    with pytest.raises(RequestValidationError) as error:
        parsed(SetupRequest, json.dumps({"project": "1.1", field: "x" * (limit + 1)}).encode())
    assert [fault["loc"] for fault in error.value.errors()] == [(field,)]


@pytest.fixture
def held_follower(tmp_path, monkeypatch):
    """A server whose webhooks wait until an event is set, and the projects that are compared instead."""
    released, begun, applied, compared = threading.Event(), threading.Event(), [], []

    class Reconcile:
        def start(self) -> None:
            pass

        def stop(self) -> None:
            pass

        def soon(self, project_id: int) -> None:
            compared.append(project_id)

    with wiring_on(tmp_path, FakeQueue()) as wiring:
        wiring.projects.remember(PROJECT["id"], Connection("http://127.0.0.1:9", "x"), LABEL_CONFIG)
        object.__setattr__(wiring, "reconcile", Reconcile())

        def hold(webhook: Webhook) -> None:
            begun.set()
            released.wait(60)
            applied.append(webhook.action)

        monkeypatch.setattr(wiring.follower, "apply", hold)
        with serving(create_app(wiring, 64 * MIB)) as server:
            yield server, released, applied, compared, begun
            released.set()


def large_webhook(megabytes: int) -> bytes:
    event = {"action": "ANNOTATION_UPDATED", "project": PROJECT, "task": {"id": 5}, "annotation": {"id": 1}}
    mask = json.dumps({"id": "r", "value": {"rle": [255] * (megabytes * MIB // 5)}})
    return json.dumps(event)[:-2].encode() + b', "result": [' + mask.encode() + b"]}}"


def test_webhooks_that_wait_do_not_stay_in_memory_and_are_all_applied(held_follower):
    server, released, applied, _, begun = held_follower
    body = large_webhook(4)
    server.post("/webhook", content=body, headers=JSON)
    assert begun.wait(60), "the first one, which is in memory while it is applied"
    before = psutil.Process().memory_info().rss
    for _ in range(12):
        assert server.post("/webhook", content=body, headers=JSON).json() == {"status": "accepted"}
    assert psutil.Process().memory_info().rss - before < 12 * len(body) / 2
    released.set()
    wait_for(lambda: len(applied) == 13, "all of them are applied")


def test_webhooks_beyond_the_limit_have_their_project_compared_and_one_log_line(
    held_follower, monkeypatch, caplog
):
    monkeypatch.setattr(app_module, "MAX_WAITING_WEBHOOKS", 3)
    server, released, applied, compared, _ = held_follower
    for _ in range(10):
        assert server.post("/webhook", content=large_webhook(1), headers=JSON).status_code == 200
    assert set(compared) == {PROJECT["id"]}
    assert len(compared) >= 6
    released.set()
    wait_for(
        lambda: len(applied) + len(compared) == 10, "each of them was applied or has its project compared"
    )
    assert sum("too many webhooks" in record.message for record in caplog.records) == 1
