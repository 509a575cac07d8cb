"""The layers around every request: log line and metrics, security headers, JSON only. `bodies.py` receives the body.

`app.py` sets their order. Unexpected exceptions end in `RequestLine`, which responds 500 with the id of the log line.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from refcut_backend.logs import collect_fields, note

log = logging.getLogger("refcut.request")

ID_HEADER = "X-RefCut-Request"
QUIET = frozenset({"/health", "/livez", "/readyz", "/metrics"})
"""Paths that probes request every few seconds: logged only if the response is not 200."""
QUIET_ENDS = ("/events", "/speed", "/progress")
"""Ends of the paths that an open page requests again and again."""
GOOD_OUTCOMES = frozenset({None, "answered", "no_clicks"})

Observe = Callable[[dict[str, Any]], None]


class RequestLine:
    """ASGI middleware that writes one log line per request, with an id that the caller gets in a header."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        """Wrap an application.

        Args:
            app: What answers the request.
            observe: Called with the fields of the log line, for the metrics.
        """
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with collect_fields() as fields:
            await _Exchange(scope, receive, send, fields, self._observe).answer(self._app)


class _Exchange:
    """One request and its response."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, fields: dict[str, Any], observe: Observe
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._observe = observe
        self._started = time.monotonic()
        self._status = 0
        self._is_logged = False
        self._fields = fields
        self._fields.update(id=uuid4().hex[:12], method=scope["method"], path=scope["path"][:100])
        self._fields.update(bytes_in=0, bytes_out=0)

    async def answer(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._counted_receive, self._counted_send)
        except Exception as error:
            log.exception("request failed", extra={"id": self._fields["id"], "path": self._fields["path"]})
            self._fields.update(outcome="failed", problem=type(error).__name__)
            if not self._status:
                body = {
                    "error": "internal",
                    "id": self._fields["id"],
                    "hint": "the log has the details under this id",
                }
                await JSONResponse(body, status_code=500)(self._scope, self._receive, self._counted_send)
        finally:
            self._log_once()

    async def _counted_receive(self) -> Message:
        message = await self._receive()
        self._fields["bytes_in"] += len(message.get("body", b""))
        return message

    async def _counted_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            MutableHeaders(scope=message)[ID_HEADER] = self._fields["id"]
        await self._send(message)
        self._fields["bytes_out"] += len(message.get("body", b""))
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            # Not when the application returns: background work after the response delays nobody.
            self._log_once()

    def _log_once(self) -> None:
        if self._is_logged:
            return
        self._is_logged = True
        total_ms = 1000 * (time.monotonic() - self._started)
        phases = self._fields.get("milliseconds")
        if phases is not None:
            phases["http"] = round(total_ms - sum(phases.values()), 1)
        self._fields.update(status=self._status, total_ms=round(total_ms, 1))
        log.log(self._level(), "request", extra=self._fields)
        self._observe(self._fields)

    def _level(self) -> int:
        if self._status >= 500 or not self._status:
            return logging.ERROR
        if self._status >= 400 or self._fields.get("outcome") not in GOOD_OUTCOMES:
            return logging.WARNING
        path = self._fields["path"]
        return logging.DEBUG if path in QUIET or path.endswith(QUIET_ENDS) else logging.INFO


HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
READING = frozenset({"GET", "HEAD", "OPTIONS"})


class SafeHeaders:
    """ASGI middleware: adds `HEADERS` to every response that does not set them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class JsonOnly:
    """ASGI middleware: responds 415 to requests that change something and are not JSON (protection against CSRF).

    A page of another site can make a browser send forms and plain text with the stored credentials. JSON needs a CORS
    preflight first, which this server never grants.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond 415."""
        if scope["type"] != "http" or scope["method"] in READING or _is_json(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        answer = JSONResponse(
            {"error": "not_json", "hint": "send JSON with the header Content-Type: application/json"},
            status_code=415,
        )
        await answer(scope, receive, send)


class SameOrigin:
    """ASGI middleware: responds 403 to requests that change something and come from a page of another origin.

    `JsonOnly` stops these too. This one also stops what a browser would send without a preflight because of a fault in
    it, and pages of another port of this machine, to which a cookie with `SameSite=Strict` is sent. Programs send neither
    header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond 403."""
        if scope["type"] != "http" or scope["method"] in READING or _is_own(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        hint = (
            "only the pages of this server may do that; a proxy in front of it must pass the header Host on"
        )
        note(outcome="other_origin", problem=hint)
        await JSONResponse({"error": "other_origin", "hint": hint}, status_code=403)(scope, receive, send)


def _is_own(headers: Headers) -> bool:
    """Whether no browser says that another origin sends the request. `Sec-Fetch-Site` is not sent over plain HTTP."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host", "")


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
