"""Limits of connections: whoever opens many or sends half a header, the others are answered."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from refcut_backend.api.connections import ConnectionLimits, connection_limits
from tests.support.http_server import serving
from tests.support.worker_farm import wait_for

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GENEROUS_S = 60
MIB = 2**20


posted: list[Request] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers "hello" to GET, and the length of the body to POST; /long is an answer of 64 MiB."""
    if scope["type"] == "lifespan":
        await await_lifespan(receive, send)
        return
    request = Request(scope, receive)
    if request.url.path == "/long":
        await StreamingResponse(iter([b"x" * MIB] * 64))(scope, receive, send)
    else:
        text = "hello"
        if request.method == "POST":
            posted.append(request)
            with suppress(ClientDisconnect):
                text = str(len(await request.body()))
        await PlainTextResponse(text)(scope, receive, send)


async def await_lifespan(receive: Receive, send: Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def limits(connections: int = 50, request_bytes: int = 10 * MIB, **more: float) -> ConnectionLimits:
    return ConnectionLimits(connections, request_bytes, **more)


@contextmanager
def connected(server: httpx.Client, sent: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.base_url.port or 0), timeout=GENEROUS_S) as connection:
        connection.sendall(sent)
        yield connection


def is_closed(connection: socket.socket) -> bool:
    """Reads until the server closes the connection."""
    with suppress(ConnectionResetError):
        while connection.recv(2**20):
            pass
    return True


def send_slowly(connection: socket.socket, parts: list[bytes]) -> None:
    for part in parts:
        connection.sendall(part)
        time.sleep(0.001)


def hello(server: httpx.Client) -> bool:
    with connected(server, REQUEST) as connection:
        answer = b""
        while b"hello" not in answer:
            part = connection.recv(10_000)
            assert part, answer
            answer += part
    return True


def test_any_number_of_half_headers_keeps_nobody_from_being_answered_and_is_logged_once(caplog):
    with serving(app, limits(connections=20)) as server, ExitStack() as stack:
        halves = [stack.enter_context(connected(server, b"GET / HTTP/1.1\r\nHost:")) for _ in range(200)]
        assert all(hello(server) for _ in range(30))
        assert is_closed(halves[0]), "the oldest made room"
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in warnings] == ["connections are closed"]


def test_a_connection_with_a_request_is_never_closed_for_another():
    posted.clear()
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na"
    with serving(app, limits(connections=5)) as server, ExitStack() as stack:
        begun = [stack.enter_context(connected(server, post)) for _ in range(5)]
        wait_for(lambda: len(posted) == 5, "they are being answered")
        further = stack.enter_context(connected(server, REQUEST))
        assert is_closed(further)
        for connection in begun:
            connection.sendall(b"b")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        wait_for(lambda: hello(server), "the finished ones make room")


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost:", REQUEST + b"GET /"])
def test_a_header_has_a_limit_of_time(sent):
    with serving(app, limits(header_s=0.3)) as server, connected(server, sent) as connection:
        assert is_closed(connection)


def test_a_header_has_a_limit_of_length():
    with serving(app, limits()) as server, connected(server, b"GET / HTTP/1.1\r\n") as connection:
        lines = [f"X-{number}: {'x' * 1000}\r\n".encode() for number in range(1000)]
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_slowly(connection, lines)


def test_a_request_has_a_limit_of_length_whatever_it_declares():
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        serving(app, limits(request_bytes=MIB)) as server,
        connected(server, head) as connection,
        pytest.raises((BrokenPipeError, ConnectionResetError)),
    ):
        send_slowly(connection, [b"2000\r\n" + b"x" * 8192 + b"\r\n"] * 1000)


def test_an_answer_that_is_not_read_has_a_limit_of_time():
    with (
        serving(app, limits(answer_s=0.3)) as server,
        connected(server, REQUEST.replace(b"/", b"/long", 1)) as slow,
    ):
        wait_for(lambda: hello(server), "others are answered meanwhile")
        time.sleep(1)
        assert length_of_answer(slow) < 64 * MIB


def length_of_answer(connection: socket.socket) -> int:
    total = 0
    with suppress(ConnectionResetError):
        while part := connection.recv(2**20):
            total += len(part)
    return total


def test_a_body_that_was_refused_may_end_and_the_connection_serves_the_next_request(client):
    with serving(client.app, limits()) as server:
        post = b"POST /setup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n"
        with connected(server, post) as connection:
            assert b" 413 " in connection.recv(10_000)
            connection.sendall(b"x" * 3_000_000 + REQUEST.replace(b"/", b"/livez", 1))
            answer = b""
            while b"alive" not in answer:
                part = connection.recv(10_000)
                assert part
                answer += part


def test_a_server_leaves_descriptors_for_everything_else():
    made = connection_limits(2**20)
    assert 20 <= made.connections <= 500
    assert made.request_bytes > 2**20
