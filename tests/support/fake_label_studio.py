"""A fake Label Studio: it serves files to holders of a token, and misbehaves on request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import jwt

LEGACY = "c0ffee" * 6 + "abcd"
SIGNING_KEY = "a key of the fake server, 32 bytes long"


def personal_access_token(number: int = 1) -> str:
    """A PAT as Label Studio makes them: a JWT of type refresh that lives for years."""
    claims = {
        "token_type": "refresh",
        "exp": int(time.time()) + 10**8,
        "iat": int(time.time()),
        "jti": str(number),
    }
    return jwt.encode(claims, SIGNING_KEY)


PERSONAL = personal_access_token()


@dataclass
class Answer:
    """The answer to requests for one path.

    Attributes:
        body: The body, or a function that writes it by itself, for slow servers.
        open_headers: The function in `body` also ends the headers.
    """

    body: bytes | Callable[[BaseHTTPRequestHandler], None] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    open_headers: bool = False


@dataclass(frozen=True)
class Seen:
    """One request that arrived."""

    method: str
    path: str
    authorization: str | None
    headers: dict[str, str]


@dataclass
class FakeLabelStudio:
    """files: paths below the base path, with their query. Whatever is asked for is in `seen`.

    before: answers given first, once each, whatever is asked with a good token (busy servers).
    access_life_s: life of an access token by its own claims. clock_ahead_s: how far this server's clock is ahead.
    """

    port: int = 0
    base: str = ""
    legacy: str | None = LEGACY
    files: dict[str, Answer] = field(default_factory=dict)
    before: list[Answer] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    access_life_s: float = 300.0
    clock_ahead_s: float = 0.0
    refresh: Answer | None = None
    good: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its address, base path included."""
        return f"http://127.0.0.1:{self.port}{self.base}"

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path below the base path."""
        return [seen for seen in self.seen if seen.path == self.base + path]

    @property
    def refreshes(self) -> int:
        """How often an access token was requested."""
        return len(self.asked("/api/token/refresh/"))

    def new_access(self, sent: dict[str, Any]) -> Answer:
        """What /api/token/refresh/ answers."""
        if self.refresh is not None:
            return self.refresh
        if sent.get("refresh") != PERSONAL:
            return Answer(b'{"detail": "Token is invalid or expired"}', 401)
        now = time.time() + self.clock_ahead_s
        claims = {
            "token_type": "access",
            "iat": now,
            "exp": now + self.access_life_s,
            "jti": str(len(self.seen)),
        }
        token = jwt.encode(claims, SIGNING_KEY)
        self.good.add(f"Bearer {token}")
        return Answer(json.dumps({"access": token}).encode())

    def answer(self, handler: BaseHTTPRequestHandler) -> Answer:
        """The answer to the request in hand."""
        authorization = handler.headers.get("Authorization")
        self.seen.append(Seen(handler.command, handler.path, authorization, dict(handler.headers)))
        if not handler.path.startswith(self.base + "/"):
            return Answer(b"not below the base path", 404)
        path = handler.path.removeprefix(self.base)
        if path == "/api/token/refresh/":
            length = int(handler.headers.get("Content-Length", 0))
            return self.new_access(json.loads(handler.rfile.read(length)))
        if authorization != f"Token {self.legacy}" and authorization not in self.good:
            return Answer(b'{"detail": "Invalid token."}', 401)
        if path.startswith("/data/") and "*/*" not in handler.headers.get("Accept", "*/*"):
            return Answer(b'{"detail": "Could not satisfy the request Accept header."}', 406)  # as 1.23 does
        if self.before:
            return self.before.pop(0)
        return self.files.get(path, Answer(b"nothing there", 404))


class _Handler(BaseHTTPRequestHandler):
    def _respond(self) -> None:
        answer = cast(Any, self.server).fake.answer(self)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if callable(answer.body):
            if not answer.open_headers:
                self.end_headers()
            try:
                answer.body(self)
            except OSError:
                return  # the client has had enough, as it should
        else:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    def do_GET(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def running(fake: FakeLabelStudio) -> Iterator[FakeLabelStudio]:
    """Serves on a port of its own until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.fake = fake  # type: ignore[attr-defined]
    fake.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
