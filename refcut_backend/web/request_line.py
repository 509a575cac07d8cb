"""One log line a request, with an id that the caller gets too; whatever fails unexpectedly ends here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from starlette.datastructures import MutableHeaders
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
