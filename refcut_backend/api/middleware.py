"""One log line a request, with an id that the caller gets too; whatever fails unexpectedly ends here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refcut_backend.logs import gather_facts

log = logging.getLogger("refcut.request")

ID_HEADER = "X-RefCut-Request"
QUIET = frozenset({"/health", "/livez", "/readyz", "/metrics"})
"""Asked every few seconds: logged only when the answer is not 200."""
GOOD_OUTCOMES = frozenset({None, "answered", "no_clicks"})

Observe = Callable[[dict[str, Any]], None]


class RequestLine:
    """ASGI middleware, the outermost. observe: is given what was logged, for the metrics."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with gather_facts() as facts:
            await _Exchange(scope, receive, send, facts, self._observe).answer(self._app)


class _Exchange:
    """One request and its answer on their way through."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, facts: dict[str, Any], observe: Observe
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._observe = observe
        self._started = time.monotonic()
        self._status = 0
        self._told = False
        self._facts = facts
        self._facts.update(id=uuid4().hex[:12], method=scope["method"], path=scope["path"][:100])
        self._facts.update(bytes_in=0, bytes_out=0)

    async def answer(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._counted_receive, self._counted_send)
        except Exception as error:
            log.exception("request failed", extra={"id": self._facts["id"], "path": self._facts["path"]})
            self._facts.update(outcome="failed", problem=type(error).__name__)
            if not self._status:
                body = {
                    "error": "internal",
                    "id": self._facts["id"],
                    "hint": "the log has the details under this id",
                }
                await JSONResponse(body, status_code=500)(self._scope, self._receive, self._counted_send)
        finally:
            self._tell()

    async def _counted_receive(self) -> Message:
        message = await self._receive()
        self._facts["bytes_in"] += len(message.get("body", b""))
        return message

    async def _counted_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            MutableHeaders(scope=message)[ID_HEADER] = self._facts["id"]
        await self._send(message)
        self._facts["bytes_out"] += len(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            # Not when the application returns: work that follows the answer keeps nobody waiting.
            self._tell()

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        total_ms = 1000 * (time.monotonic() - self._started)
        phases = self._facts.get("milliseconds")
        if phases is not None:
            phases["http"] = round(total_ms - sum(phases.values()), 1)
        self._facts.update(status=self._status, total_ms=round(total_ms, 1))
        log.log(self._level(), "request", extra=self._facts)
        self._observe(self._facts)

    def _level(self) -> int:
        if self._status >= 500 or not self._status:
            return logging.ERROR
        if self._status >= 400 or self._facts.get("outcome") not in GOOD_OUTCOMES:
            return logging.WARNING
        return logging.DEBUG if self._facts["path"] in QUIET else logging.INFO


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class SafeHeaders:
    """ASGI middleware: `HEADERS` on every answer that does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class JsonOnly:
    """ASGI middleware: 415 for whatever changes something and is not JSON.

    A page of another site can make a browser send forms and plain text with the credentials that it keeps; JSON it can
    send only after asking, which nobody here answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING or _is_json(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        answer = JSONResponse(
            {"error": "not_json", "hint": "send JSON with the header Content-Type: application/json"},
            status_code=415,
        )
        await answer(scope, receive, send)


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


class _TooLargeError(HTTPException):
    """Told to whoever reads the body; frameworks let this kind pass."""

    def __init__(self) -> None:
        super().__init__(status_code=413)


class BodyLimit:
    """ASGI middleware: 413 with a hint for bodies over `max_bytes`."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise _TooLargeError
            return message

        async def unless_too_large(message: Message) -> None:
            """What the application makes of the error says nothing of the setting."""
            if seen <= self._max_bytes:
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, counted, unless_too_large)
        if seen > self._max_bytes:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = JSONResponse(
            {
                "error": "too_large",
                "hint": f"at most {self._max_bytes} bytes; REFCUT_REQUEST_MAX_BYTES sets it",
            },
            status_code=413,
        )
        await answer(scope, receive, send)
